"""The environment that the image has, made as the Containerfile says, once for all of a run's processes."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.testbed.support.gobuild import alone
from tests.packaging import read_only
from tests.packaging.containerfile import ROOT, Containerfile, Performer

NO_INDEX = re.compile(r"NewConnectionError|ConnectTimeoutError|NameResolutionError|Name or service not known|ProxyError")
"""What pip says when there is no package index to be reached."""
ANY_UID = 1000680000
"""One of those that OpenShift gives out; no machine has a user of that number."""


@dataclass(frozen=True)
class Image:
    """What would be in the image; `places` says where each of its paths is here."""

    containerfile: Containerfile
    places: dict[str, Path]

    @property
    def environment(self) -> Path:
        """The virtual environment."""
        return self.places["/opt/mirrorstream"]

    @property
    def entrypoint(self) -> str:
        """The program that ENTRYPOINT names."""
        (entrypoint,) = self.containerfile.stages[-1].all("ENTRYPOINT")
        return Performer(ROOT, self.places, {}).path(json.loads(entrypoint.text)[0])

    def variables(self) -> dict[str, str]:
        """The environment variables that a container has, and those that keep temporary files away; no others."""
        pairs = self.containerfile.stages[-1].pairs("ENV")
        return {key: Performer(ROOT, self.places, {}).path(value) for key, value in pairs.items()} | {"TMPDIR": "/nonexistent"}


@pytest.fixture(scope="session")
def containerfile() -> Containerfile:
    """The project's."""
    return Containerfile.read(ROOT / "Containerfile")


@pytest.fixture(scope="session")
def image(containerfile: Containerfile, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The Containerfile's steps, performed. Skips where no package index can be reached and pip has not cached what is needed."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    places = {"/opt/mirrorstream": shared / "image" / "opt", "/build": shared / "image" / "build"}
    with alone(shared / "image.lock"):
        outcome = shared / "image.outcome"
        if not outcome.exists():
            outcome.write_text(_perform(containerfile, places), encoding="utf-8")
            # The final stage takes nothing else.
            shutil.rmtree(places["/build"], ignore_errors=True)
    problem = outcome.read_text(encoding="utf-8")
    if NO_INDEX.search(problem):
        pytest.skip("the image's steps need a package index, and none can be reached")
    assert not problem, problem
    return Image(containerfile, places)


def _perform(containerfile: Containerfile, places: dict[str, Path]) -> str:
    performer = Performer(ROOT, places, {"PYTHON": _python(containerfile.stages[0].pairs("ARG")["PYTHON"])})
    try:
        for stage in containerfile.stages:
            performer.perform(stage)
    except AssertionError as error:
        return str(error)
    return ""


def _python(wanted: str) -> str:
    """The image's Python if this machine has it, else the one that the tests run with."""
    ask = [wanted, "-c", "import sys, ensurepip; print(sys.executable)"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=300).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="session")
def confined(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What makes a command run as a user whom nobody knows, who may write no file. Skips where that cannot be."""
    as_anybody = ["unshare", "--user", f"--map-user={ANY_UID}", "--map-group=0"]
    command = [*as_anybody, sys.executable, read_only.__file__]
    if not read_only.supported() or not shutil.which("unshare"):
        pytest.skip("needs Linux with Landlock, and unshare")
    kept = tmp_path_factory.mktemp("confined") / "file"
    script = f"import os; print(os.getuid(), os.getgid()); open({str(kept)!r}, 'w')"
    done = subprocess.run([*command, sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)
    if done.stdout.split() != [str(ANY_UID), "0"]:
        pytest.skip(f"user namespaces are switched off here: {done.stderr.strip()[-200:]}")
    assert "PermissionError" in done.stderr, "writing must be refused, or what follows shows nothing"
    assert not kept.exists()
    return command
