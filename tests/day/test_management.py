"""An hour of a management cluster with 60 hosted clusters, whose catalogs fail every 15 minutes.

The source is lost all the time. In the middle of each turn hosted clusters come and go, and an application fails. With
MIRRORSTREAM_SOAK=1 it is a day, with 300 hosted clusters.
"""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from mirrorstream.runtime.settings import Settings

from e2e.testbed.controllers.hosted_catalogs import CATALOGS
from tests.day.cluster import SCHEDULED_SECONDS
from tests.day.management import ManagementCluster
from tests.day.programs import MAY_GROW
from tests.model import SOAK

log = structlog.get_logger(__name__)

HOSTED = 300 if SOAK else 60
TURNS = (24 if SOAK else 1) * 3600 // SCHEDULED_SECONDS
"""The first is the one in which all streams are created."""
RESTARTS = (30, 60) if SOAK else (2,)
"""In these turns another controller takes over, and the mirror has a new content of each catalog."""
COME_AND_GO = 5
"""Hosted clusters that are created, and that are deleted, in each turn."""
HEALED_SECONDS = 60
REQUESTS = 3
"""For a tag and turn: its Image is read, and a stream's three tags share a dry run, a GET, a status write and an Event."""
FIRST_REQUESTS = 8
"""For a tag that gets an image: that and its two parts are created, and noted as mirrorstream's."""
OBSERVED = 2
"""So often the operator reconciles a stream in a turn; one that is new: when it was created, and when its import failed."""
AHEAD = max(16, HOSTED // 6)
"""How many dry runs may come before that for the application: those that run, and those of tags without an image."""
STEADY = 2
"""From this turn on nothing may grow, but for the history of each tag with each new content."""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ManagementCluster]:
    """The first turn is over."""
    gc.collect()
    with ManagementCluster(tmp_path, monkeypatch, HOSTED) as found:
        found.settle()
        yield found


def take_turn(cluster: ManagementCluster) -> list[dict[str, Any]]:
    """The platform imports all catalogs, and what happens in the middle of that; the controller's requests."""
    cluster.requests()
    cluster.clock.advance(SCHEDULED_SECONDS)
    schedule = threading.Thread(target=cluster.schedule)
    schedule.start()
    cluster.wait_for_requests(HOSTED)
    for _ in range(COME_AND_GO):
        cluster.remove()
        cluster.add()
    schedule.join()
    last = cluster.deploy()
    cluster.settle()
    made = cluster.requests()
    dry_runs = [request for request in made if request["path"].endswith("/imagestreamimports")]
    application = next(request["number"] for request in dry_runs if "/namespaces/team/" in request["path"])
    ahead = sum(last < request["number"] < application for request in dry_runs)
    log.info("a turn is over", requests=len(made), ahead=ahead, after=sum(request["number"] > application for request in dry_runs))
    assert ahead <= AHEAD, "what fails beside them does not wait for them"
    return made


@pytest.mark.timeout(7200)
def test_catalogs_of_hosted_clusters(cluster: ManagementCluster) -> None:
    """Every turn: all tags are healed, nobody's reference changes without a new digest, nothing rolls out, requests are bounded."""
    operator, turns = cluster.operator, list[dict[str, int]]()
    rate = Settings().controller.apiRequestsPerSecond
    for number in range(1, TURNS):
        if new_content := number in RESTARTS:
            cluster.restart()
            cluster.settle()
            cluster.publish(f"content {number}")
        before, rollouts = cluster.catalogs(), operator.rollouts
        operator.reconciled.clear()
        made = take_turn(cluster)
        assert cluster.failing() == [], "without a second of the cluster's time"
        assert len(made) / rate <= HEALED_SECONDS, "and at the default rate in that time"
        tags = len(CATALOGS) * HOSTED
        created = len(CATALOGS) * COME_AND_GO + 1
        assert tags < len(made) <= (FIRST_REQUESTS if new_content else REQUESTS) * tags + FIRST_REQUESTS * created
        after = cluster.catalogs()
        stayed = before.keys() & after.keys()
        assert len(stayed) == len(CATALOGS) * (HOSTED - COME_AND_GO)
        moved = [key for key in stayed if pointer(before[key]) != pointer(after[key])]
        assert len(moved) == (len(stayed) if new_content else 0)
        rolled_out = operator.rollouts - rollouts
        assert len(moved) <= rolled_out <= (tags if new_content else 0), "some of them in a namespace that went"
        assert all(len(after[key]) == len(before[key]) + new_content for key in stayed), "nothing else in the history"
        assert operator.updates == 0, "the spec is the operator's"
        assert max(operator.reconciled.values()) <= OBSERVED, "each stream has a new generation when its import fails, and no other"
        assert cluster.settled()
        turns.append(cluster.sizes())
        log.info("counted", **turns[-1])
        cluster.forget()
    assert [gone for gone in cluster.gone if gone() is not None] == [], "of a controller that ended nothing is left"
    for name in turns[0]:
        first = max(sizes[name] for sizes in turns[:STEADY])
        last = max(sizes[name] for sizes in turns[STEADY:])
        allowed = {**MAY_GROW, "references": len(RESTARTS) * len(CATALOGS) * HOSTED}.get(name, first // 10 + 2)
        assert last <= first + allowed, f"{name}: {[sizes[name] for sizes in turns]}"


def pointer(items: list[dict[str, Any]]) -> tuple[str, str]:
    """What a tag points to: the reference and the image of its newest item."""
    return items[0]["dockerImageReference"], items[0]["image"]
