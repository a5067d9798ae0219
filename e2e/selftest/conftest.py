"""What the self tests do: start a part of the test bed as its users do, and look for what it leaves behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.testbed.support.waiting import wait_for

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Started:
    """A program of the test bed that is up; `folder` has all its files."""

    process: subprocess.Popen[str]
    kubeconfig: Path
    log: Path

    @property
    def folder(self) -> Path:
        """Where everything that it made is, itself included."""
        return self.kubeconfig.parent

    def processes(self) -> dict[int, str]:
        """The command lines that name its folder, by process ID."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has just ended
                continue
            if str(self.folder) in line and path.parent.name != str(os.getpid()):
                found[int(path.parent.name)] = line
        return found

    def end(self, how: signal.Signals) -> None:
        """Send it a signal, and wait until none of its processes is left."""
        # A process that ends loses its command line before it closes its ports.
        known = self.processes()
        self.process.send_signal(how)
        self.process.wait(60)
        wait_for("its processes are gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in known))
        wait_for("all its processes are gone", lambda: not self.processes())

    def nothing_left(self) -> bool:
        """Whether of all that was below its folder for temporary files only the log is left."""
        return [path.name for path in self.log.parent.iterdir()] == [self.log.name]


@contextmanager
def started(module: str, folder: Path) -> Iterator[Started]:
    """`python -m MODULE`, once it has said that it is up."""
    log = folder / "log"
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("export KUBECONFIG="), log.read_text()
        yield Started(process, Path(line.strip().partition("=")[2]), log)
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
