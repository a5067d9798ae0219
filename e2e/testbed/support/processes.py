"""The processes of a test run: each with a log of its own, ended by pid, and gone with the run even when that is killed."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from e2e.testbed.support.waiting import PATIENCE, wait_for

STOP_SECONDS = 60
# The kernel kills what we started when we end, however we end. Where there is no setpriv (not Linux) only an orderly end cleans up.
_SETPRIV = shutil.which("setpriv")
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""In the environment of programs: they are started a thousand times, and compiled once."""
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_TIED = [_SETPRIV, "--pdeathsig", "KILL", "--"] if _SETPRIV else []


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, for processes that were not started by us. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ProcessError(Exception):
    """A process did not do what it was started for; the text has the end of its log."""


class Process:
    """A program that runs, in a session of its own: a Ctrl-C is for the test run, which then ends things in order."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log_file: Path,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start it; raises ProcessError when there is no such program. `environment` is added to ours."""
        self.name = name
        self.log_file = log_file
        try:
            with log_file.open("ab") as log:
                self._process = subprocess.Popen(
                    [*_TIED, *map(str, command)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **COMPILED, **(environment or {})},
                    cwd=folder,
                    start_new_session=True,
                )
        except OSError as error:
            raise ProcessError(f"{name}: {error}") from error

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.poll()

    def log(self) -> str:
        """Everything that it has said."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.ended is None:
            self._process.send_signal(number)

    def stop(self, *, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM, and SIGKILL when that does not help; the exit status."""
        self.send(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float) -> int:
        """Wait for its end, for so long at most, then kill it; the exit status. Raises ProcessError when it had to be killed."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ProcessError(f"{self.name} did not end within {seconds:g} s{self.tail()}") from None

    def kill(self) -> None:
        """SIGKILL, and wait for its end; nothing if it has ended."""
        self.send(signal.SIGKILL)
        self._process.wait()

    def wait_until(self, what: str, condition: Callable[[], bool], *, seconds: float = PATIENCE) -> None:
        """Wait for a condition for as long as the process runs. Raises ProcessError with the end of its log."""

        def met() -> bool:
            if self.ended is not None:
                raise ProcessError(f"{self.name} ended with {self.ended} before {what}{self.tail()}")
            try:
                return condition()
            except OSError:
                return False

        try:
            wait_for(what, met, seconds=seconds, step=0.05)
        except AssertionError as error:
            raise ProcessError(f"{self.name}: {error}{self.tail()}") from None

    def tail(self) -> str:
        """The end of its log, to be appended to an error."""
        return f"; the end of {self.log_file}:\n" + "\n".join(self.log().splitlines()[-20:])
