"""`status --contexts` and `--all-contexts`: many clusters, some of which are away."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.kube.client import load_client
from mirrorstream.kube.errors import ConfigurationError
from mirrorstream_cli.commands.status_contexts import at_once
from mirrorstream_cli.main import main

from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.ports import free_port
from tests.cli.simulated import cover, fail

MANY = 50


def kubeconfig(path: Path, servers: dict[str, str], current: str = "", users: tuple[str, ...] = ()) -> Path:
    """A kubeconfig with a context for each server, and one more of `first` for each of `users`."""
    contexts = [{"name": name, "context": {"cluster": name, "user": "me"}} for name in servers]
    contexts += [{"name": f"first-{user}", "context": {"cluster": "first", "user": user, "namespace": "x"}} for user in users]
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current,
        "clusters": [{"name": name, "cluster": {"server": server}} for name, server in servers.items()],
        "users": [{"name": "me", "user": {}}, {"name": "other", "user": {}}],
        "contexts": contexts,
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.fixture
def second() -> Iterator[Simulator]:
    """A cluster without a stream."""
    with Simulator() as found:
        yield found


@pytest.fixture
def clusters(simulator: Simulator, second: Simulator, tmp_path: Path) -> Path:
    """Three: one that fails, one that has nothing, one that is away; the context that `oc` would make for a project, too."""
    cover(load_client(str(tmp_path / "kubeconfig"), in_cluster=False))
    away = f"http://127.0.0.1:{free_port()}"
    servers = {"first": simulator.url, "second": second.url, "away": away}
    return kubeconfig(tmp_path / "many", servers, "first-me", users=("me", "other"))


def ask(clusters: Path, *arguments: str) -> int:
    """Run the command."""
    return main(["status", *arguments, "--kubeconfig", str(clusters)])


def test_a_line_for_each_and_the_one_that_is_away_is_named(clusters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing stands for what is not known."""
    assert ask(clusters, "--contexts", "away,first,second") == 3
    first, _, *lines = capsys.readouterr().out.splitlines()
    assert first == "3 clusters: 1 with failing tags, 1 that cannot be asked, 1 other"
    assert [line.split()[0] for line in lines[:3]] == ["first", "away", "second"]
    assert lines[0].split()[1:3] == ["1", "failing"]
    assert "cannot be asked" in lines[1]
    assert "refused" in lines[1]
    assert "there is no ImageStream" in lines[2]


def test_all_contexts_are_one_for_each_cluster_and_user(clusters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The current one where several are alike."""
    assert ask(clusters, "--all-contexts", "-o", "json") == 3
    document = json.loads(capsys.readouterr().out)
    assert [cluster["context"] for cluster in document["clusters"]] == ["first-me", "first-other", "second"]
    assert [cluster["context"] for cluster in document["unreachable"]] == ["away"]
    assert document["clusters"][0]["worst"]["examples"] == ["ns/app:v1"]


def test_one_namespace_of_each(clusters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no such namespace, that is said."""
    assert ask(clusters, "--contexts", "first,second", "-n", "ns", "-o", "yaml") == 3
    document = yaml.safe_load(capsys.readouterr().out)
    assert [cluster["context"] for cluster in document["clusters"]] == ["first"]
    assert document["unreachable"] == [{"context": "second", "error": "there is no namespace 'ns'"}]


def test_exit_status_1_if_one_is_away_and_0_if_none_is(clusters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A script must not take an unknown cluster for a well one."""
    assert ask(clusters, "--contexts", "away,second") == 1
    assert ask(clusters, "--contexts", "away") == 1
    assert ask(clusters, "--contexts", "second") == 0
    assert capsys.readouterr().err == ""


def test_a_cluster_that_breaks_off_in_the_middle_is_not_half_an_answer(
    clusters: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its streams were read, and then its mirror sets were not."""
    fail(simulator, 500, "imagedigestmirrorsets")
    assert ask(clusters, "--contexts", "first,second", "-o", "json") == 1
    document = json.loads(capsys.readouterr().out)
    assert [cluster["context"] for cluster in document["unreachable"]] == ["first"]
    assert document["unreachable"][0]["error"] == "not now"


@pytest.mark.parametrize(
    ("status", "arguments", "says"),
    [
        pytest.param(1, ["--contexts", "first,nowhere"], "there is no context 'nowhere'", id="unknown"),
        pytest.param(2, ["--contexts", "first", "--wait", "5s"], "--wait and --all are for one cluster", id="wait"),
        pytest.param(2, ["--all-contexts", "--all"], "--wait and --all are for one cluster", id="all"),
    ],
)
def test_what_cannot_be_asked_for(
    clusters: Path, capsys: pytest.CaptureFixture[str], status: int, arguments: list[str], says: str
) -> None:
    """One line, and nobody is asked; exit status 2 for options that do not go together."""
    assert ask(clusters, *arguments) == status
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says in err


@pytest.mark.parametrize(
    "arguments", [["--contexts", "a,,b"], ["--contexts", "a", "--context", "b"], ["--contexts", "a", "--all-contexts"]]
)
def test_usage(clusters: Path, arguments: list[str]) -> None:
    """Exit status 2."""
    with pytest.raises(SystemExit, match="2"):
        ask(clusters, *arguments)


class _Together(http.server.BaseHTTPRequestHandler):
    """Answers the first request of each client only when all clients have asked; then it refuses everything."""

    protocol_version = "HTTP/1.1"
    barrier: threading.Barrier
    seen: set[Any]

    def do_GET(self) -> None:
        """A list, or anything else."""
        if self.client_address not in self.seen:
            self.seen.add(self.client_address)
            self.barrier.wait()
        body = b'{"kind": "Status", "message": "you may not", "code": 403}'
        self.send_response(403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = MANY


def test_fifty_clusters_are_asked_at_the_same_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None waits for the answer of another: here each answers only when all of them have been asked."""
    _Together.barrier, _Together.seen = threading.Barrier(MANY, timeout=60), set()
    with _Server(("127.0.0.1", 0), _Together) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        path = kubeconfig(tmp_path / "many", {f"cluster-{number}": url for number in range(MANY)})
        assert ask(path, "--all-contexts", "-o", "json") == 1
        server.shutdown()
    document = json.loads(capsys.readouterr().out)
    assert len(document["unreachable"]) == MANY
    assert all("you may not" in cluster["error"] for cluster in document["unreachable"])


def test_a_defect_is_not_taken_for_an_answer() -> None:
    """What a thread raises is raised."""

    def work(item: int) -> int:
        if item:
            raise ConfigurationError("broken")
        return item

    with pytest.raises(ConfigurationError, match="broken"):
        list(at_once(work, [0, 1], late=lambda item: item))


def test_who_does_not_answer_in_time_is_told_and_not_waited_for() -> None:
    """A server may never complete its response."""
    over = threading.Event()

    def work(item: str) -> str:
        if item == "slow":
            over.wait(60)
        return f"{item} answers"

    found = list(at_once(work, ["slow", "quick"], lambda item: f"{item} is late", seconds=1.0))
    over.set()
    assert found == ["quick answers", "slow is late"]


class _Empty(http.server.BaseHTTPRequestHandler):
    """Something that is no API server, a proxy say: 200 and nothing else."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_what_is_no_api_server_has_a_line(clusters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the others have theirs."""
    with _Server(("127.0.0.1", 0), _Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        document = yaml.safe_load(clusters.read_text(encoding="utf-8"))
        servers = {each["name"]: each["cluster"]["server"] for each in document["clusters"]}
        path = kubeconfig(tmp_path / "more", {**servers, "empty": f"http://127.0.0.1:{server.server_port}"})
        assert ask(path, "--contexts", "first,empty", "-o", "json") == 3
        server.shutdown()
    answer = json.loads(capsys.readouterr().out)
    assert [cluster["context"] for cluster in answer["clusters"]] == ["first"]
    (empty,) = answer["unreachable"]
    assert empty["context"] == "empty"
    assert "cannot be read" in empty["error"]
