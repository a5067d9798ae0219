"""What the end-to-end suite says when it cannot run as asked."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from e2e import conftest as suite
from e2e.testbed.controlplane.build import DEFINITIONS, MODULE, components
from e2e.testbed.controlplane.openshift import PROGRAMS
from e2e.testbed.node.node import NodeError
from e2e.testbed.support.gobuild import GoMissingError, cache_folder, version

ROOT = Path(__file__).parents[2]
ONE = "e2e/scenarios/test_healing.py::test_a_tag_heals_through_digest_mirrors"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Pytest on one scenario."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ONE, *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": "", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "openshift"], "--backend openshift needs --openshift-bin DIR"),
        (["--backend", "controlplane", "--openshift-bin", "."], "--openshift-bin belongs to the back ends openshift and node"),
        (
            ["--openshift-bin", "docs"],
            "--openshift-bin docs has no openshift-apiserver, openshift-controller-manager, dockerregistry",
        ),
        (["--kubeconfig", "nowhere.yaml"], "--kubeconfig nowhere.yaml: no such file"),
        (["--kubeconfig", "README.md", "--backend", "simulator"], "--kubeconfig names a cluster that exists"),
        (["--hosted"], "--hosted belongs to the back ends controlplane and node"),
        (["--kubeconfig", "README.md", "-n", "2"], "the cluster knows the registries of one process only"),
    ],
    ids=["no-folder", "wrong-backend", "missing-programs", "no-kubeconfig", "two-clusters", "hosted-simulator", "many-processes"],
)
def test_impossible_options_are_refused_with_the_reason(arguments: list[str], message: str) -> None:
    """Before anything starts."""
    done = run(*arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert message in done.stdout + done.stderr


def test_without_go_the_suite_skips_and_says_so(tmp_path: Path) -> None:
    """Not silently, and not as a failure."""
    done = run("--backend", "controlplane", PATH=f"{Path(sys.executable).parent}", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT RUN on the back end controlplane: it is built with Go" in done.stdout
    assert "1 skipped" in done.stdout


@pytest.mark.parametrize("required", [False, True], ids=["optional", "required"])
def test_without_what_a_node_needs_the_suite_says_so(tmp_path: Path, required: bool) -> None:
    """In one line; where a node must be had this is an error, so that nobody takes the skipped tests for passed ones."""
    environment = {"PATH": f"{Path(sys.executable).parent}", "XDG_CACHE_HOME": str(tmp_path)}
    done = run("--backend", "node", **environment, MIRRORSTREAM_REQUIRE_NODE="1" if required else "")
    output = done.stdout + done.stderr
    if required:
        assert done.returncode == 1, output
        assert "MIRRORSTREAM_REQUIRE_NODE is set, so this is an error" in output
    else:
        assert done.returncode == 0, output
        assert "NOT RUN on the back end node: a node needs " in done.stdout
        assert "1 skipped" in done.stdout


def test_what_is_built_once_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the version of its sources, in the user's cache directory, without Go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(GoMissingError):
        components()
    folder = tmp_path / "mirrorstream" / "controlplane" / version(MODULE, DEFINITIONS)
    assert cache_folder() in folder.parents
    (folder / "done").touch()
    assert components() == folder


def test_a_program_of_openshift_that_fails_is_shown_with_its_log(tmp_path: Path) -> None:
    """Only where the real control plane was built already: it takes minutes."""
    try:
        if not (cache_folder() / "controlplane" / version(MODULE, DEFINITIONS) / "done").exists():
            pytest.skip("the control plane is not built")
    except GoMissingError as error:
        pytest.skip(str(error))
    for name in PROGRAMS:
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho no such flag: --config >&2\nexit 7\n", encoding="ascii")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    done = run("--openshift-bin", str(tmp_path))
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert "openshift-apiserver ended with 7 before it is ready" in output
    assert "no such flag: --config" in output


def test_a_node_that_leaves_something_behind_hides_no_tests_result() -> None:
    """Pytest shows failures only after everything has ended: an error there would be all that one sees."""

    class Plane:
        def stop(self) -> None:
            raise NodeError("the node has left something behind")

    session: Any = SimpleNamespace(config=SimpleNamespace(stash=pytest.Stash()), exitstatus=0)
    session.config.stash[suite.PLANE] = Plane()
    suite.pytest_sessionfinish(session)
    assert session.exitstatus == pytest.ExitCode.TESTS_FAILED
    assert session.config.stash[suite.LEFT] == "the node has left something behind"
