"""The commands from the command line to the exit status, on a simulated cluster, in this process."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.cli import main
from mirrorstream.commands import retry, status
from mirrorstream.commands.waiting import Clock
from mirrorstream.kube.client import Client, load_client

from e2e.simulator.simulator import Simulator
from e2e.waiting import wait_for
from tests.cli.builders import DIGEST

Run = Callable[..., int]
STREAMS = "/apis/image.openshift.io/v1/namespaces/ns/imagestreams"
DEAD = "localhost:1/team/app:v1"
_connected: list[Any] = []
_watched = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        _connected.append(arguments[1])


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    """A cluster with a namespace whose only stream fails."""
    with Simulator() as found:
        found.write_kubeconfig(tmp_path / "kubeconfig")
        client = load_client(str(tmp_path / "kubeconfig"), in_cluster=False)
        client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": "ns"}})
        tag = {"name": "v1", "from": {"kind": "DockerImage", "name": DEAD}}
        client.request("POST", STREAMS, body={"metadata": {"name": "app"}, "spec": {"tags": [tag]}})
        wait_for("the import fails", lambda: (client.get(f"{STREAMS}/app")["status"].get("tags") or [{}])[0].get("conditions"))
        yield found


@pytest.fixture
def client(simulator: Simulator, tmp_path: Path) -> Client:
    """A user's client."""
    return load_client(str(tmp_path / "kubeconfig"), in_cluster=False)


@pytest.fixture
def run(simulator: Simulator, tmp_path: Path) -> Run:
    """Run a command against the cluster."""
    return lambda *arguments: main([*arguments, "--kubeconfig", str(tmp_path / "kubeconfig")])


def cover(client: Client, source: str = "localhost:1") -> None:
    """Create a mirror set for the source."""
    spec = {"imageDigestMirrors": [{"source": source, "mirrors": ["localhost:2/mirror"]}]}
    body = {"metadata": {"name": "m"}, "spec": spec}
    client.request("POST", "/apis/config.openshift.io/v1/imagedigestmirrorsets", body=body)


def test_a_tag_without_a_mirror_is_told_and_does_not_count(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not mirrorstream's; `missing` counts it, since it is what is to be mirrored."""
    assert run("status", "-n", "ns") == 0
    assert "1 failing without a mirror" in capsys.readouterr().out
    assert run("missing", "-n", "ns", "-o", "imageset") == 3
    document = yaml.safe_load(capsys.readouterr().out)
    assert document["mirror"]["additionalImages"] == [{"name": DEAD}]


def test_a_failing_tag_is_exit_status_3(run: Run, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """With a mirror that covers it."""
    cover(client)
    assert run("status", "-n", "ns", "-o", "json") == 3
    (tag,) = json.loads(capsys.readouterr().out)["tags"]
    assert (tag["state"], tag["failure"]["class"], tag["tried"]) == ("failing", "unreachable", None)
    assert tag["candidates"] == [{"reference": "localhost:2/mirror/team/app:v1", "mirrorSet": "ImageDigestMirrorSet/m"}]
    assert run("missing", "-n", "ns", "-o", "yaml") == 3
    (image,) = yaml.safe_load(capsys.readouterr().out)["images"]
    assert (image["image"], image["state"]) == (DEAD, "unknown")


def test_the_namespace_is_the_contexts(
    run: Run, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for kubectl; `-A` means all, and a namespace that is not there is seen to be empty."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    cover(client)
    assert run("status") == 0
    assert capsys.readouterr().out.startswith("Namespace default: there is no ImageStream\n")
    assert run("status", "-A") == 3
    assert capsys.readouterr().out.startswith("All namespaces: 1 failing")
    path = tmp_path / "kubeconfig"
    document = yaml.safe_load(path.read_text())
    document["contexts"][0]["context"]["namespace"] = "ns"
    document["contexts"].append({"name": "other", "context": {**document["contexts"][0]["context"], "namespace": "elsewhere"}})
    path.write_text(yaml.safe_dump(document))
    assert run("status") == 3
    assert capsys.readouterr().out.startswith("Namespace ns: 1 failing")
    assert run("status", "--context", "other") == 0
    assert run("status", "--context", "nope") == 1
    assert "nope" in capsys.readouterr().err


def heal(client: Client, through: str = "localhost:2/mirror/team/app:v1") -> None:
    """Record an image, as the controller does."""
    annotations = {"mirrorstream.github.io/imported-through": through}
    image = {"metadata": {"name": DIGEST, "annotations": annotations}, "dockerImageReference": f"localhost:1/team/app@{DIGEST}"}
    client.request("POST", "/apis/image.openshift.io/v1/images", body=image)
    stream = client.get(f"{STREAMS}/app")
    event = {"created": "2027-01-01T00:00:00Z", "dockerImageReference": f"localhost:1/team/app@{DIGEST}", "image": DIGEST}
    generation = stream["spec"]["tags"][0]["generation"]
    stream["status"]["tags"] = [{"tag": "v1", "items": [{**event, "generation": generation}]}]
    client.request("PUT", f"{STREAMS}/app/status", body=stream)


class Waits:
    """A clock of a test: whoever sleeps lets something happen, and time pass."""

    def __init__(self, *happenings: Callable[[], object]) -> None:
        self.at, self.happenings = time.time(), list(happenings)
        self.slept = 0

    def clock(self) -> Clock:
        """The clock."""
        return Clock(lambda: self.at, self.sleep, lambda: self.at)

    def sleep(self, seconds: float) -> None:
        """Pass the time."""
        self.at += seconds
        self.slept += 1
        if self.happenings:
            self.happenings.pop(0)()


def arguments(kubeconfig: Path, **changes: Any) -> Any:
    """The parsed arguments of a command."""
    defaults = {"namespace": "ns", "all_namespaces": False, "wait": None, "output": "text", "context": None, "subject": "app:v1"}
    return argparse.Namespace(**{**defaults, "kubeconfig": str(kubeconfig), **changes})


@pytest.mark.parametrize(
    ("heals", "wait", "exit_status"), [(True, 60, 0), (False, 60, 3), (True, None, 3)], ids=["heals", "time-over", "no-waiting"]
)
def test_status_waits_for_the_heal(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], heals: bool, wait: float | None, exit_status: int
) -> None:
    """Scripts go on as soon as everything is well."""
    cover(client)
    waits = Waits(lambda: None, *([lambda: heal(client)] if heals else []))
    assert status.run(arguments(tmp_path / "kubeconfig", wait=wait), waits.clock()) == exit_status
    if wait is None:
        assert waits.slept == 0
    elif heals:
        assert waits.slept == 2
        assert "  ns/app:v1  through localhost:2/mirror/team/app:v1\n" in capsys.readouterr().out
    else:
        assert waits.slept >= 60


def test_status_does_not_wait_for_what_waiting_does_not_help(client: Client, tmp_path: Path) -> None:
    """Nobody is kept for five minutes by a tag that no mirror covers."""
    waits = Waits()
    assert status.run(arguments(tmp_path / "kubeconfig", wait=300), waits.clock()) == 0
    assert waits.slept == 0


def event(client: Client, outcome: dict[str, Any], name: str = "e", at: str = "2027-01-01T00:00:00Z") -> None:
    """Write an Event, as the controller does."""
    stream = client.get(f"{STREAMS}/app")["metadata"]
    body = {
        "metadata": {"name": name, "annotations": {"mirrorstream.github.io/outcome": json.dumps(outcome)}},
        "involvedObject": {"kind": "ImageStream", "namespace": "ns", "name": "app", "uid": stream["uid"]},
        "reason": "MirrorImportFailed",
        "message": "m",
        "lastTimestamp": at,
        "count": 1,
    }
    client.request("POST", "/api/v1/namespaces/ns/events", body=body)


@pytest.mark.parametrize("patient", [False, True])
def test_retry_tells_of_the_heal(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], patient: bool) -> None:
    """The annotation is what the controller sees."""
    cover(client)
    waits = Waits(lambda: None, lambda: heal(client))
    assert retry.run(arguments(tmp_path / "kubeconfig", wait=300 if patient else None), waits.clock()) == 0
    assert capsys.readouterr().out == "ns/app:v1  healed  through localhost:2/mirror/team/app:v1\n"
    assert "mirrorstream.github.io/retry" in client.get(f"{STREAMS}/app")["metadata"]["annotations"]


@pytest.mark.parametrize(("patient", "sleeps"), [(False, 2), (True, 100)])
def test_retry_ends_with_the_attempt_unless_the_user_is_patient(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], patient: bool, sleeps: int
) -> None:
    """An attempt from before does not count."""
    cover(client)
    answer = {"reference": "localhost:2/mirror/team/app:v1", "mirrorSet": "ImageDigestMirrorSet/m", "failure": "not-found"}
    outcome = {"tag": "v1", "result": "failed", "source": DEAD, "candidates": [answer]}
    event(client, outcome, "old")
    waits = Waits(lambda: None, lambda: event(client, outcome, "new", "2027-01-01T00:00:01Z"))
    assert retry.run(arguments(tmp_path / "kubeconfig", wait=50 if patient else None), waits.clock()) == 3
    out = capsys.readouterr().out
    assert "ns/app:v1  still failing  unreachable: " in out
    assert "; localhost:2/mirror/team/app:v1: not-found\n" in out
    assert waits.slept == sleeps


@pytest.mark.parametrize(
    ("path", "verb", "says"),
    [
        ("imagestreamimports", "create", "you may not import images into ns/app: no"),
        ("imagestreams/app", "patch", "you may not patch ns/app, so mirrorstream is not asked to try again: no"),
        ("imagestreams/app", "get", "no"),
    ],
)
def test_retry_without_the_right_is_one_line(
    simulator: Simulator, client: Client, run: Run, capsys: pytest.CaptureFixture[str], path: str, verb: str, says: str
) -> None:
    """It names what may not be done."""
    cover(client)
    fault = {"path": f"{path}$", "verb": verb, "action": {"status": 403, "reason": "Forbidden", "message": "no"}}
    simulator.server.faults.add(fault)
    assert run("retry", "-n", "ns", "app:v1") == 1
    captured = capsys.readouterr()
    assert captured.err == f"mirrorstream: {says}\n"
    assert not captured.out


@pytest.mark.parametrize(
    ("subject", "says"),
    [
        ("nope", 'imagestreams.image.openshift.io "nope" not found'),
        ("app:v9", "ns/app has no tag 'v9' in its spec"),
        ("app:", "'app:' is not STREAM[:TAG]"),
        ("app@sha256:x", "is not STREAM[:TAG]"),
        ("other/app", "'other/app' is not in namespace 'ns'"),
    ],
)
def test_retry_of_what_is_not_there(run: Run, capsys: pytest.CaptureFixture[str], subject: str, says: str) -> None:
    """Exit status 1 and one line."""
    assert run("retry", "-n", "ns", subject) == 1
    assert says in capsys.readouterr().err


def test_retry_where_nothing_fails(run: Run, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """A tag that is well is not put at risk."""
    heal(client)
    assert run("retry", "-n", "ns", "app") == 0
    assert "nothing fails in ns/app" in capsys.readouterr().out
    assert "annotations" not in client.get(f"{STREAMS}/app")["metadata"] or (
        "mirrorstream.github.io/retry" not in client.get(f"{STREAMS}/app")["metadata"]["annotations"]
    )


def test_what_a_tenant_writes_does_nothing_to_a_terminal(run: Run, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """Events, messages and annotations are of any content."""
    cover(client)
    evil = "\x1b]0;owned\x07\x1b[2Jevil\u202e"
    answer = {"reference": f"localhost:2/mirror/team/app:v1{evil}", "mirrorSet": evil, "failure": evil, "message": evil}
    event(client, {"tag": "v1", "result": "failed", "source": DEAD, "message": evil, "candidates": [answer]})
    event(client, {"tag": evil, "result": "failed"}, "e2")
    for arguments_ in (
        ["status", "-n", "ns"],
        ["status", "-n", "ns", "-o", "yaml"],
        ["missing", "-n", "ns"],
        ["explain", "ns/app"],
    ):
        run(*arguments_)
        captured = capsys.readouterr()
        assert "evil" in captured.out
        assert not set("\x1b\x07\u202e") & set(captured.out + captured.err)


def test_every_command_talks_to_the_api_server_only(run: Run, client: Client, simulator: Simulator) -> None:
    """No registry is asked by us, and no Secret is read: the platform does both."""
    global _watched  # noqa: PLW0603  an audit hook cannot be taken away again
    if not _watched:
        sys.addaudithook(_hook)
        _watched = True
    cover(client)
    seen = simulator.server.request_count
    _connected.clear()
    for arguments_ in (["status", "-n", "ns"], ["missing", "-A"], ["explain", "ns/app"], ["explain", DEAD]):
        run(*arguments_)
    mine = [address for address in _connected if isinstance(address, tuple)]
    assert mine
    assert {address[1] for address in mine if address[1] not in (1, 2)} == {simulator.server.server_address[1]}
    requests = [r for r in simulator.server.requests if r["number"] > seen and r["userAgent"] == "kubectl-mirrorstream"]
    assert requests
    assert {request["verb"] for request in requests} <= {"get", "list"}
    assert not [request for request in requests if "secret" in request["path"]]
