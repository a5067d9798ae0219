"""Names for a shell that completes a word: of the cluster, soon, or none."""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from mirrorstream.kube.client import Client
from mirrorstream_cli import cluster_names
from mirrorstream_cli.main import main

from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.waiting import wait_for
from tests.cli.simulated import fail

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Complete:
    """What a shell gets, on a cluster with a stream `app`, whose tag is v1, in the namespace `ns`."""
    monkeypatch.setattr(cluster_names, "SECONDS", 60.0)

    def run(*words: str) -> list[str]:
        assert main(["__complete", words[0], "--kubeconfig", str(tmp_path / "kubeconfig"), *words[1:]]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out.splitlines()

    return run


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["status", "-n", "n"], ["ns", ":4"]),
        (["retry", "-n", "ns", "a"], ["app", ":4"]),
        (["retry", "-n", "ns", "app:"], ["app:v1", ":4"]),
        (["retry", "ns/app:v"], ["ns/app:v1", ":4"]),
        (["explain", "n"], ["ns/", ":6"]),
        (["explain", "ns/"], ["ns/app", ":4"]),
        (["explain", "ns/app:"], ["ns/app:v1", ":4"]),
        (["explain", "ns/other:"], [":4"]),
        (["retry", "-n", "typo", ""], [":4"]),
    ],
)
def test_what_the_cluster_has(complete: Complete, words: list[str], found: list[str]) -> None:
    """Namespaces, streams and tags; nothing of what is not there."""
    assert complete(*words) == found


def test_who_may_not_list_namespaces_gets_their_projects(complete: Complete, simulator: Simulator) -> None:
    """An ordinary user of OpenShift; and nothing, silently, where that is refused as well."""
    fail(simulator, 403, "/api/v1/namespaces$")
    assert complete("status", "-n", "n") == [":4"]
    # A request is in the log once it has been answered.
    wait_for("a request for projects", lambda: any(r["path"].endswith("/projects") for r in list(simulator.server.requests)))


@pytest.mark.parametrize("status", [403, 503, "reset"])
def test_a_cluster_that_cannot_be_asked_is_silent(complete: Complete, simulator: Simulator, status: int | str) -> None:
    """A shell shows what is written."""
    fail(simulator, status)
    assert complete("retry", "-n", "ns", "a") == [":4"]


def test_contexts_are_those_of_the_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all of its files, also behind a comma; a file that is malformed has none."""
    (tmp_path / "a").write_text("contexts: [{name: paris}, {name: perth}]")
    (tmp_path / "b").write_text("contexts:\n- name: berlin\n")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'a'}:{tmp_path / 'b'}:{tmp_path / 'none'}")
    assert cluster_names.names("context", "p", {}) == ["paris", "perth"]
    assert cluster_names.names("context", "paris,b", {}) == ["paris,berlin"]
    assert cluster_names.names("context", "", {"kubeconfig": str(tmp_path / "b")}) == ["berlin"]
    (tmp_path / "b").write_text("contexts: 1\n")
    assert cluster_names.names("context", "", {}) == []


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A cluster that answers when the event is set."""
    event = threading.Event()

    def ask(_word: str, _given: Mapping[str, str]) -> list[str]:
        event.wait(30)
        return ["late"]

    monkeypatch.setitem(cluster_names._ASK, "namespace", ask)
    yield event
    event.set()


def test_nobody_waits_for_a_slow_cluster(slow: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a second: the key was pressed for a word."""
    assert cluster_names.SECONDS < 1
    monkeypatch.setattr(cluster_names, "SECONDS", 0.01)
    assert cluster_names.names("namespace", "", {}) == []
    assert cluster_names.is_asking()
