"""The control plane itself: it comes up, and is gone without a trace."""

import signal
import socket
from pathlib import Path

import pytest

from e2e.selftest.conftest import started
from e2e.testbed.backends import CONTROLPLANE, Choice


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_behind(chosen: Choice, built: None, tmp_path: Path, how: signal.Signals) -> None:
    """Neither a process nor a port, however it ends."""
    if chosen.backend != CONTROLPLANE:
        pytest.skip("no control plane was asked for")
    with started("e2e.testbed.controlplane", tmp_path) as plane:
        commands = "".join(plane.processes().values())
        assert "etcd" in commands
        assert "kube-apiserver" in commands
        port = int(plane.kubeconfig.read_text(encoding="utf-8").partition("https://localhost:")[2].partition("\n")[0])
        assert _listening(port)
        plane.end(how)
        assert not _listening(port)
        if how == signal.SIGTERM:
            assert plane.nothing_left()
