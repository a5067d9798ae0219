"""What is published: the sdist and the wheel that is built from it."""

import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email import message_from_bytes
from pathlib import Path, PurePosixPath

import pytest

from tests.packaging.containerfile import ROOT

SOURCES = ("mirror", "controller", "webhook")
BESIDE = ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml")


def build(target: str, source: Path, folder: Path) -> Path:
    """What the build backend makes of a source tree."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=300)
    (made,) = folder.glob("*.tar.gz" if target == "sdist" else "*.whl")
    return made


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this tree."""
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from the sdist."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    return zipfile.ZipFile(build("wheel", source, tmp_path_factory.mktemp("wheel")))


def tracked(*folders: str) -> set[str]:
    """The project's own files."""
    done = subprocess.run(["git", "ls-files", "--", *folders], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip("this is no git checkout")
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


def test_the_sdist_has_what_the_wheel_is_built_from(sdist: Path) -> None:
    """The sources and what the metadata names; no tests, manifests or locks, also not those in folders of the same names."""
    with tarfile.open(sdist) as archive:
        names = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}
    # hatchling adds the file that a checkout's rules of what to ignore are in.
    assert names - {"PKG-INFO", ".gitignore"} == {*tracked(*SOURCES), *BESIDE}


def test_the_wheel_has_all_modules(wheel: zipfile.ZipFile) -> None:
    """Each package with its type marker where it has one, and nothing beside them but the metadata."""
    modules = {name.partition("/")[2] for name in tracked(*SOURCES)}
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == modules
    for package in ("mirrorstream", "mirrorstream_cli", "mirrorstream_controller", "mirrorstream_webhook"):
        assert f"{package}/py.typed" in found


def test_the_wheels_metadata(wheel: zipfile.ZipFile) -> None:
    """Licence, entry points, the Python that it needs; it is for every platform."""
    info = next(name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
    metadata = message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert (metadata["Name"], metadata["License-Expression"], metadata["Requires-Python"]) == (
        "mirrorstream",
        "Apache-2.0",
        ">=3.11",
    )
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "Tag: py3-none-any" in wheel.read(f"{info}/WHEEL").decode()
    scripts = ConfigParser()
    scripts.read_string(wheel.read(f"{info}/entry_points.txt").decode())
    names = ("mirrorstream", "kubectl-mirrorstream", "kubectl_complete-mirrorstream")
    assert dict(scripts["console_scripts"]) == dict.fromkeys(names, "mirrorstream_cli.main:main")


def test_two_builds_are_the_same(sdist: Path, tmp_path: Path) -> None:
    """Byte for byte, so that a second build can be compared."""
    assert build("sdist", ROOT, tmp_path).read_bytes() == sdist.read_bytes()
