"""Running the operators' commands as users do, and watching whom they talk to."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from e2e.testbed.programs.program import PROGRAM, RELEASED
from e2e.testbed.support.processes import COMPILED
from e2e.testbed.support.waiting import PATIENCE

_WATCH = """
import os, sys

def _hook(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        os.write(_file, f"{arguments[1][1]}\\n".encode())

_file = os.open(os.environ["CONNECTIONS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(_hook)
"""
"""Python runs it before the program: every connection that the process opens is noted by its port."""


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, as JSON or YAML."""
        return yaml.safe_load(self.out)

    def tags(self) -> dict[str, Any]:
        """The tags of a status document, as `stream:tag`."""
        return {f"{tag['stream']}:{tag['tag']}": tag for tag in json.loads(self.out)["tags"]}


class Commands:
    """Runs `mirrorstream COMMAND` with a kubeconfig; every connection must be to its API server."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._kubeconfig, self._folder = kubeconfig, folder
        (folder / "watch").mkdir(exist_ok=True)
        (folder / "watch" / "sitecustomize.py").write_text(_WATCH, encoding="utf-8")
        server = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))["clusters"][0]["cluster"]["server"]
        self._port = urlsplit(server).port or 443

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command."""
        paths = os.pathsep.join(map(str, (self._folder / "watch", RELEASED)))
        environment = {**os.environ, **COMPILED, "PYTHONPATH": paths, "CONNECTIONS": str(self._folder / "connections")}
        environment.pop("KUBECONFIG", None)
        command = [str(PROGRAM), *arguments, "--kubeconfig", str(self._kubeconfig)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, started: subprocess.Popen[str], *, seconds: float = 2 * PATIENCE) -> Ran:
        """Wait for its end, and check whom it talked to."""
        with started:
            try:
                out, err = started.communicate(timeout=seconds)
            finally:
                started.kill()
        assert "Traceback" not in err, err
        connections = self._folder / "connections"
        ports = {int(port) for port in connections.read_text(encoding="ascii").split()} if connections.exists() else set()
        assert ports <= {self._port}, f"it talked to others than the API server at {self._port}: {ports}"
        return Ran(started.returncode, out, err)

    def __call__(self, *arguments: str, seconds: float = 2 * PATIENCE) -> Ran:
        """Run a command to its end."""
        return self.finish(self.start(*arguments), seconds=seconds)
