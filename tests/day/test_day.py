"""24 hours of a cluster whose upstream is lost most of the time, in minutes: everything is served, and nothing grows.

The controller runs as it does in a cluster (threads, informers, queue, pool, lease), on a clock that the test moves by minutes; so
does what the webhook knows and remembers. Without MIRRORSTREAM_SOAK=1 it is three hours, in steps of five minutes.
"""

import gc
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.day.cluster import OUTAGE, STREAMS, Cluster
from tests.day.programs import MAY_GROW
from tests.day.recording import Recording
from tests.model import SOAK

log = structlog.get_logger(__name__)

HOURS = 24 if SOAK else 3
STEP = 1 if SOAK else 5
"""Minutes that pass at once."""
STEADY = 3 if SOAK else 1
"""From this hour on nothing may grow."""
BACK = range(20, 40)
"""In these minutes of every fourth hour the upstream is back."""
RESTARTS = (35, 11 * 60 + 5, 17 * 60 + 50) if SOAK else (95,)
"""In these minutes of the day the controller is restarted."""
WRITES = STREAMS * 4 + 6 + 3
"""In an hour: each stream with scheduled tags fails four times, six streams are created, and three builds."""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster at midnight."""
    gc.collect()
    tracemalloc.start()
    try:
        with Cluster(tmp_path, monkeypatch) as found:
            yield found
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(3600)
def test_a_day(cluster: Cluster, tmp_path: Path) -> None:
    """Every hour: each tag that the mirror has is served, writes are bounded, and no more of anything than hours before."""
    hours: list[dict[str, int]] = []
    recording = Recording(STEP)
    reviewed = 0
    for minute in range(0, HOURS * 60 + 1, STEP):
        hour, of_hour = divmod(minute, 60)
        back = hour % 4 == 2 and of_hour in BACK
        cluster.source.failure = None if back else OUTAGE
        if minute % 5 == 0:
            cluster.edit_rules(minute // 5)
        if minute % 10 == 5:
            cluster.pass_by(minute)
        if minute % 20 == 10:
            cluster.build(minute)
        if minute % 30 == 15:
            cluster.lose_watches()
        if minute in RESTARTS:
            cluster.restart()
        cluster.schedule()
        cluster.settle()
        cluster.review(minute)
        reviewed += STREAMS
        recording.scrape(cluster.controller.manager.metrics.registry, len(cluster.gone))
        cluster.clock.advance(60 * STEP)
        cluster.settle()
        if of_hour == 0:
            assert cluster.failing() == []
            written = cluster.writes()
            hours.append(cluster.sizes())
            log.info("an hour has passed", hour=hour, writes=written, **hours[-1])
            assert written <= WRITES, "one for each failure, for all tags of a stream together"
            assert hour == 0 or written >= STREAMS, "the day is not spent idly"
            cluster.forget()
    assert cluster.patched == reviewed, "every pod was pointed at what is served"
    assert [gone for gone in cluster.gone if gone() is not None] == [], "of a controller that ended nothing is left"
    assert len(cluster.gone) == len(RESTARTS)
    if promtool := shutil.which("promtool"):
        assert recording.fired(promtool, tmp_path) == "", "a healthy day has no alert"
    for name in hours[0]:
        before = max(sizes[name] for sizes in hours[: STEADY + 1])
        after = max(sizes[name] for sizes in hours[STEADY + 1 :])
        allowed = MAY_GROW.get(name, before // 10 + 2)
        assert after <= before + allowed, f"{name}: {[sizes[name] for sizes in hours]}"
