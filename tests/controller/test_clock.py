"""What durations are measured with, and items dated."""

from pathlib import Path

import pytest
from mirrorstream.runtime.settings import SettingsFile
from mirrorstream_controller.manager import Manager, steady

KUBECONFIG = """
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
"""


def test_setting_the_clock_counts_for_nothing() -> None:
    """It starts as the time of day, and goes on with the monotonic clock."""
    wall, monotonic = [1_000_000.0], [50.0]
    now = steady(lambda: wall[0], lambda: monotonic[0])
    assert now() == 1_000_000.0
    wall[0] -= 3600
    monotonic[0] += 2
    assert now() == 1_000_002.0


def test_the_process_dates_items_with_the_time_of_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the clock was set; its decisions go on with the other one."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    wall = [1_800_000_000.0]
    monkeypatch.setattr("time.time", lambda: wall[0])
    manager = Manager(SettingsFile(None), kubeconfig=str(kubeconfig), metrics_port=0, clock=lambda: 50.0)
    manager._health._server.server_close()
    reconciler = manager._reconciler
    wall[0] += 3 * 3600
    assert reconciler._now() == 1_800_000_000.0
    assert reconciler._worker._times.of(("ns", "app"), "v1", "sha256:aa") == "2027-01-15T11:00:00Z"
