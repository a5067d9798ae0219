"""Whatever ends a test run, nothing that it started stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.testbed.support.processes import Process, ProcessError
from e2e.testbed.support.waiting import wait_for

START_ONE = """
import sys, time
from pathlib import Path
from e2e.testbed.support.processes import Process
print(Process("sleeper", ["sleep", "600"], Path(sys.argv[1])).pid, flush=True)
time.sleep(600)
"""


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux only")
def test_a_killed_run_takes_its_processes_along(tmp_path: Path) -> None:
    """SIGKILL leaves nobody to clean up: the kernel does."""
    command = [sys.executable, "-c", START_ONE, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        pid = int(run.stdout.readline())
        # It is tied to its parent by the program that becomes it.
        wait_for("the program runs", lambda: Path(f"/proc/{pid}/comm").read_text(encoding="ascii") == "sleep\n")
        os.kill(run.pid, signal.SIGKILL)
    wait_for("the process is gone", lambda: not _runs(pid))


def test_an_early_end_shows_the_end_of_the_log(tmp_path: Path) -> None:
    """The reason is in the error, and where the rest is."""
    process = Process("failing", ["sh", "-c", "echo one; echo the reason >&2; exit 3"], tmp_path / "log")
    with pytest.raises(ProcessError, match=r"(?s)failing ended with 3 before it serves; the end of .*log:.*the reason"):
        process.wait_until("it serves", lambda: False)


def _start_and_wait(program: Path, log: Path) -> None:
    Process("nothing", [program], log).wait_until("it serves", lambda: False)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    """By name, not with a traceback."""
    with pytest.raises(ProcessError, match="nothing"):
        _start_and_wait(tmp_path / "nothing", tmp_path / "log")


def test_a_process_that_does_not_listen_is_killed_and_said(tmp_path: Path) -> None:
    """After the time that it was given."""
    process = Process("stubborn", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], tmp_path / "log")
    process.wait_until("it is ready", lambda: "ready" in process.log())
    with pytest.raises(ProcessError, match=r"stubborn did not end within 0\.3 s"):
        process.stop(seconds=0.3)
    assert process.ended == -signal.SIGKILL
