"""What the Containerfile promises to those who run the image, read from it."""

import json
import re
import tomllib
from typing import Any

import pytest

from tests.packaging.containerfile import ROOT, Containerfile

OCI = ("title", "description", "version", "revision", "created", "source", "documentation", "licenses", "vendor", "base.name")
OPENSHIFT = ("io.k8s.display-name", "io.k8s.description", "io.openshift.tags")
INHERITED = ("name", "version", "release", "vendor", "maintainer", "url", "summary", "description", "com.redhat.component", "usage")
"""Labels of the base image that would say of ours what is true of Python's."""


@pytest.fixture(scope="session")
def project() -> dict[str, Any]:
    """The project's table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def test_there_are_two_stages_on_the_same_base(containerfile: Containerfile) -> None:
    """The environment's interpreter is the base image's, so both must be one; its name is an argument with a tag of its own."""
    build, final = containerfile.stages
    assert (build.base, final.base) == ("${BASE_IMAGE}", "${BASE_IMAGE}")
    assert (build.name, final.name) == ("build", "")
    assert re.search(r"(:[\w.-]+|@sha256:[0-9a-f]{64})$", containerfile.arguments["BASE_IMAGE"]), "an engine would add `latest`"


def test_the_final_stage_has_the_environment_and_nothing_else(containerfile: Containerfile) -> None:
    """No RUN, so no layer with more than that; one COPY, of one folder, from the first stage; no ADD that could download."""
    _, final = containerfile.stages
    assert [copy.text for copy in final.all("COPY")] == ["--from=build /opt/mirrorstream /opt/mirrorstream"]
    assert not final.all("RUN")
    assert not any(stage.all("ADD") for stage in containerfile.stages)


def test_it_runs_as_nobody_in_particular(containerfile: Containerfile) -> None:
    """A number, since `runAsNonRoot` cannot judge a name; not 0; and set once."""
    (user,) = containerfile.stages[-1].all("USER")
    assert int(user.text) > 0


def test_no_shell_is_between_the_container_and_the_program(containerfile: Containerfile, project: dict[str, Any]) -> None:
    """SIGTERM must reach it. The entry point is a console script of the project."""
    final = containerfile.stages[-1]
    (entrypoint,), (command,) = final.all("ENTRYPOINT"), final.all("CMD")
    (program,) = json.loads(entrypoint.text)
    assert program.removeprefix("/opt/mirrorstream/bin/") in project["scripts"]
    assert json.loads(command.text) == ["--help"]
    assert not final.all("SHELL")


def test_labels(containerfile: Containerfile, project: dict[str, Any]) -> None:
    """As OCI's image spec names them, what OpenShift shows, and none of what the base image says about itself."""
    final = containerfile.stages[-1]
    labels = final.pairs("LABEL")
    assert not [name for name in OCI if not labels.get(f"org.opencontainers.image.{name}")]
    assert not [name for name in (*OPENSHIFT, *INHERITED) if not labels.get(name)]
    assert labels["org.opencontainers.image.description"] == project["description"]
    assert labels["org.opencontainers.image.licenses"] == project["license"]
    assert final.pairs("ARG")["VERSION"] == project["version"], "what a build without arguments says"
    declared = final.pairs("ARG")
    assert {name for text in labels.values() for name in re.findall(r"\$\{(\w+)\}", text)} <= set(declared)


def test_everything_that_is_downloaded_has_its_hash(containerfile: Containerfile) -> None:
    """Each installation is of a lock file with hashes, without building, or of what was built here, without an index."""
    steps = " && ".join(run.text for stage in containerfile.stages for run in stage.all("RUN"))
    installs = [step for step in re.split(r"\s&&\s", steps) if re.search(r"pip\b.*\b(install|wheel|download)\b", step)]
    assert len(installs) == 4
    for step in installs:
        words = step.split()
        assert "--no-index" in words or {"--require-hashes", "--only-binary"} <= set(words), step
    assert not [word for word in steps.split() if word.startswith("http")]


def test_what_is_copied_is_not_ignored(containerfile: Containerfile) -> None:
    """`.containerignore` lets through what is copied, and no more."""
    lines = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    through = {line.removeprefix("!/") for line in lines if line.startswith("!")}
    copied = {source for copy in containerfile.stages[0].all("COPY") for source in copy.text.split()[:-1]}
    assert "*" in lines
    assert copied == through


def test_the_build_backend_is_the_one_that_developers_have() -> None:
    """Its lock file is chosen together with theirs, and is part of it."""
    build, dev = ((ROOT / f"requirements-{name}.lock").read_text(encoding="utf-8") for name in ("build", "dev"))
    pinned = re.findall(r"^\S+==\S+", build, re.MULTILINE)
    assert any(pin.startswith("hatchling==") for pin in pinned)
    assert set(pinned) <= set(re.findall(r"^\S+==\S+", dev, re.MULTILINE))
