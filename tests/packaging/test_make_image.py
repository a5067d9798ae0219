"""`make image`: which engine it calls, and how. The engines are stand-ins that write down their arguments."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.packaging.containerfile import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
NAME = f"quay.io/mirrorstream/mirrorstream:{VERSION}"
TOOLS = ("sh", "make", "sed", "git", "date", "dirname", "basename", "mkdir", "env", "grep", "awk", "sort")


def make(folder: Path, *arguments: str, engines: tuple[str, ...]) -> tuple[list[str], str]:
    """The engine's command line, and what make says; with a PATH that has the usual tools and these engines only."""
    folder.mkdir(exist_ok=True)
    for tool in TOOLS:
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    for engine in engines:
        (folder / engine).write_text(f'#!/bin/sh\nprintf "%s\\n" "${{0##*/}}" "$@" > {folder}/called\n', encoding="utf-8")
        (folder / engine).chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key in ("HOME", "LANG")} | {"PATH": str(folder)}
    command = [str(folder / "make"), "--silent", "image", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    called = folder / "called"
    return (called.read_text(encoding="utf-8").splitlines() if called.exists() else []), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("engines", "arguments", "begins", "has"),
    [
        pytest.param(("podman", "docker"), (), ["podman", "build"], ["--tag", NAME], id="podman-first"),
        pytest.param(("docker",), (), ["docker", "build"], ["--tag", NAME], id="docker"),
        pytest.param(("docker",), ("IMAGE=r.example.com/m:1",), ["docker", "build"], ["--tag", "r.example.com/m:1"], id="named"),
        pytest.param(
            ("podman",),
            ("PLATFORMS=linux/amd64,linux/arm64",),
            ["podman", "build"],
            ["--platform", "linux/amd64,linux/arm64", "--manifest", NAME],
            id="podman-several",
        ),
        pytest.param(
            ("docker",),
            ("PLATFORMS=linux/amd64,linux/arm64",),
            ["docker", "buildx", "build"],
            ["--platform", "linux/amd64,linux/arm64", "--tag", NAME, "--output", "type=oci,dest=dist/image.tar"],
            id="docker-several",
        ),
        pytest.param(
            ("podman", "docker"),
            (
                "ENGINE=docker",
                "BASE_IMAGE=m.example.com/ubi@sha256:1",
                "PIP_INDEX_URL=https://p.example.com",
                "ENGINE_FLAGS=--pull --quiet",
            ),
            ["docker", "build"],
            ["BASE_IMAGE=m.example.com/ubi@sha256:1", "PIP_INDEX_URL=https://p.example.com", "--pull", "--quiet"],
            id="disconnected",
        ),
    ],
)
def test_the_engine_is_asked(
    engines: tuple[str, ...], arguments: tuple[str, ...], begins: list[str], has: list[str], tmp_path: Path
) -> None:
    """For the Containerfile here, with what the labels need."""
    called, said = make(tmp_path / "bin", *arguments, engines=engines)
    assert called[: len(begins)] == begins, said
    assert [word for word in has if word not in called] == []
    assert called[-1] == "."
    assert called[called.index("--file") + 1] == "Containerfile"
    values = dict(word.split("=", 1) for flag, word in itertools.pairwise(called) if flag == "--build-arg")
    assert values["VERSION"] == VERSION
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", values["CREATED"])
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", values["REVISION"])


def test_without_an_engine_it_says_so(tmp_path: Path) -> None:
    """One line, before anything else."""
    called, said = make(tmp_path / "bin", engines=())
    assert called == []
    assert "make image: needs podman or docker, and there is neither on the PATH" in said


def test_debian_needs_no_engine(tmp_path: Path) -> None:
    """It says which programs it does need."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    called, said = make(tmp_path / "bin", "BASE=debian", engines=("podman",))
    assert called == []
    assert "make image: BASE=debian needs mmdebstrap and buildah" in said


def test_an_unknown_base_is_refused(tmp_path: Path) -> None:
    """With the names of the two that there are."""
    called, said = make(tmp_path / "bin", "BASE=alpine", engines=("podman",))
    assert called == []
    assert "make image: BASE is ubi or debian, not alpine" in said
