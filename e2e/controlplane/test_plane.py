"""The control plane itself: quick to come up, and gone without a trace."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.backends import CONTROLPLANE, Choice
from e2e.waiting import wait_for

ROOT = Path(__file__).parents[2]
START_SECONDS = 15


@pytest.fixture
def wanted(chosen: Choice, built: None) -> None:
    """Only where a control plane was asked for, and can be had."""
    if chosen.backend != CONTROLPLANE:
        pytest.skip("no control plane was asked for")


def _children(pid: int) -> dict[int, str]:
    """Processes by ID with their names, for one process's children."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text(encoding="utf-8").partition("(")[2].rpartition(")")
        except OSError:
            continue
        if int(rest.split()[1]) == pid and rest.split()[0] != "Z":
            found[int(path.parent.name)] = name
    return found


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_behind(wanted: None, tmp_path: Path, how: signal.Signals) -> None:
    """Neither a process nor a port, however it ends; and it is up in seconds."""
    began = time.monotonic()
    log = tmp_path / "log"
    with log.open("w") as errors:
        command = [sys.executable, "-m", "e2e.controlplane"]
        environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
        plane = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert plane.stdout
        line = plane.stdout.readline()
        assert line.startswith("export KUBECONFIG="), log.read_text()
        # Beside other workers of a run, which share the machine: the limit for an idle one is in the log of every run.
        assert time.monotonic() - began < 3 * START_SECONDS
        children = _children(plane.pid)
        assert {"etcd", "kube-apiserver"} <= set(children.values())
        kubeconfig = Path(line.strip().partition("=")[2]).read_text(encoding="utf-8")
        port = int(kubeconfig.partition("https://localhost:")[2].partition("\n")[0])
        assert _listening(port)
        plane.send_signal(how)
        plane.wait(30)
        wait_for("all its processes are gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), seconds=10)
        assert not _listening(port)
        if how == signal.SIGTERM:
            assert [path.name for path in tmp_path.iterdir()] == ["log"], "no file is left"
    finally:
        plane.kill()
        plane.wait()
        assert plane.stdout
        plane.stdout.close()
