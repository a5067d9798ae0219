"""The day's alerts: what is recorded of a leader that is lost for long makes one fire, and of one that is not, none."""

import shutil
from pathlib import Path

import pytest
from mirrorstream_controller.metrics import ControllerMetrics

from tests.day.recording import Recording


@pytest.mark.parametrize(("leads", "alert"), [(True, ""), (False, "MirrorstreamNoLeader")])
def test_an_alert_that_should_fire_does(leads: bool, alert: str, tmp_path: Path) -> None:
    """So that a day without alerts says something."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool: Debian's package prometheus has it")
    metrics, recording = ControllerMetrics(), Recording(5)
    for scrape in range(6):
        metrics.leader.set(leads or scrape == 0)
        recording.scrape(metrics.registry, 0)
    assert alert in recording.fired(promtool, tmp_path)
    assert bool(recording.fired(promtool, tmp_path)) is bool(alert)
