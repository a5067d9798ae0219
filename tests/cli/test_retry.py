"""`retry` from the command line to the exit status, on a simulated cluster."""

from pathlib import Path

import pytest
from mirrorstream.commands import retry
from mirrorstream.kube.client import Client

from e2e.simulator.simulator import Simulator
from tests.cli.simulated import DEAD, STREAMS, Run, Waits, arguments, cover, event, heal


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
