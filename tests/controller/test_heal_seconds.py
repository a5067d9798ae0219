"""How long a heal took: what the histogram says of one."""

from typing import Any

import pytest
from mirrorstream.kube.events import EventRecorder
from mirrorstream.kube.workqueue import WorkQueue
from mirrorstream.runtime.settings import Settings
from mirrorstream_controller.history import TagHistory
from mirrorstream_controller.import_queue import ImportQueue
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.plan import Action, TagPlan
from mirrorstream_controller.reconciler import Reconciler
from mirrorstream_controller.results import TagResult
from mirrorstream_controller.stream_state import StreamState, TagState

KEY = ("ns", "app")
STARTED, NOW = 1000.0, 1100.0


@pytest.mark.parametrize(
    ("failed_at", "seen", "seconds"),
    [
        (1090.0, 1091.5, 10.0),
        (1090.0, 1070.0, 30.0),
        (500.0, 1001.0, 100.0),
        (1101.0, 1100.0, 0.0),
        (None, None, 0.0),
    ],
    ids=["from-the-condition", "its-message-had-changed", "it-had-failed-before-we-began", "clocks-differ", "unknown"],
)
def test_a_heal_is_measured_from_the_failure(failed_at: float | None, seen: float | None, seconds: float) -> None:
    """Not from when it was seen: what a user waited for counts, a controller that was not there does not."""
    nobody: Any = None
    metrics, times = ControllerMetrics(), [STARTED]
    events = EventRecorder(nobody, "mirrorstream", "test")
    reconciler = Reconciler(nobody, WorkQueue(), ImportQueue(1), events, metrics, Settings(), now=lambda: times[-1])
    times.append(NOW)
    state = StreamState("u", "", lambda failures: 5.0)
    state._tags["v1"] = TagState(TagHistory(failed_since=seen))
    plan = TagPlan("v1", Action.IMPORT, "", "src.io/a:v1", 2, failed_at=failed_at)
    reconciler._recorded(
        KEY, state, TagResult(plan, "v1", "sha256:aa", "src.io/a@sha256:aa", "m.io/a:v1", "ImageDigestMirrorSet/m")
    )
    assert metrics.registry.get_sample_value("mirrorstream_heal_seconds_count") == 1
    assert metrics.registry.get_sample_value("mirrorstream_heal_seconds_sum") == seconds
