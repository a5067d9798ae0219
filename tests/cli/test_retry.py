"""`retry` from the command line to the exit status, on a simulated cluster."""

from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import Client, ConfigurationError
from mirrorstream_cli.commands import retry

from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.waiting import wait_for
from tests.cli.simulated import DEAD, MIRRORED, STREAMS, Run, Waits, arguments, configure, cover, event, fail, heal
from tests.diagnose.builders import DIGEST


@pytest.mark.parametrize("patient", [False, True])
def test_retry_tells_of_the_heal(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], patient: bool) -> None:
    """The annotation is what the controller sees."""
    cover(client)
    waits = Waits(lambda: None, lambda: heal(client))
    assert retry.run(arguments(tmp_path / "kubeconfig", wait=300 if patient else None), waits.clock()) == 0
    assert capsys.readouterr().out == "ns/app:v1  healed  through localhost:2\n"
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


def _repository(client: Client, *tags: str) -> None:
    """A stream of a whole repository; with `tags`, one that was listed through a mirror."""
    if not tags:
        client.request(
            "POST", STREAMS, body={"metadata": {"name": "repo"}, "spec": {"dockerImageRepository": "localhost:1/team/app"}}
        )
        wait_for("it is checked", lambda: client.get(f"{STREAMS}/repo")["metadata"].get("annotations"))
        return
    stream = client.get(f"{STREAMS}/repo")
    item = {"created": "2027-01-01T00:00:00Z", "dockerImageReference": f"localhost:1/team/app@{DIGEST}", "image": DIGEST}
    stream["status"]["tags"] = [{"tag": name, "items": [{**item, "generation": 1}]} for name in tags]
    client.request("PUT", f"{STREAMS}/repo/status", body=stream)


@pytest.mark.parametrize(
    ("listed", "exit_status", "says"),
    [
        ((), 3, "ns/repo  still failing  unknown: the platform's import of the repository left no tag; "),
        (("a", "b"), 0, "ns/repo:a  imported  localhost:1/team/app@"),
    ],
    ids=["in-vain", "listed"],
)
def test_retry_of_a_whole_repository_tells_its_tags(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], listed: tuple[str, ...], exit_status: int, says: str
) -> None:
    """It is no longer one entry once it has tags; whatever happens there is a line."""
    cover(client)
    _repository(client)
    waits = Waits(lambda: None, *([lambda: _repository(client, *listed)] if listed else []))
    assert retry.run(arguments(tmp_path / "kubeconfig", subject="repo"), waits.clock()) == exit_status
    out = capsys.readouterr().out
    assert out.startswith(says)
    assert out.count("ns/repo") == max(1, len(listed))


def _drop_tag(client: Client, stream: bool = False) -> None:
    if stream:
        client.request("DELETE", f"{STREAMS}/app")
        return
    found = client.get(f"{STREAMS}/app")
    found["spec"]["tags"] = []
    client.request("PUT", f"{STREAMS}/app", body=found)


def test_a_tag_that_is_deleted_meanwhile_is_said(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was imported, so it is no success."""
    cover(client)
    waits = Waits(lambda: _drop_tag(client))
    assert retry.run(arguments(tmp_path / "kubeconfig"), waits.clock()) == 3
    assert capsys.readouterr().out == "ns/app:v1  no longer in the spec\n"
    assert waits.slept == 1


def test_a_stream_that_is_deleted_meanwhile_is_an_error(run: Run, client: Client, tmp_path: Path) -> None:
    """One line, as for one that never was."""
    cover(client)
    waits = Waits(lambda: _drop_tag(client, stream=True))
    with pytest.raises(ConfigurationError, match='"app" not found'):
        retry.run(arguments(tmp_path / "kubeconfig"), waits.clock())


OUTCOME = {
    "tag": "v1",
    "result": "failed",
    "source": DEAD,
    "candidates": [{"reference": MIRRORED, "mirrorSet": "ImageDigestMirrorSet/m", "failure": "not-found"}],
}


def test_an_attempt_during_the_platforms_import_is_no_outcome(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import may last long, and the backoff continues: only what follows the request counts."""
    cover(client)
    request = Client.request

    def slow(self: Client, method: str, path: str, **more: Any) -> Any:
        answer = request(self, method, path, **more)
        if path.endswith("imagestreamimports"):
            event(client, OUTCOME, "earlier")
        return answer

    monkeypatch.setattr(Client, "request", slow)
    waits = Waits(lambda: None, lambda: None, lambda: event(client, OUTCOME, "asked-for", "2027-01-01T00:00:01Z"))
    assert retry.run(arguments(tmp_path / "kubeconfig"), waits.clock()) == 3
    assert waits.slept == 3


def test_an_attempt_that_ran_when_it_was_asked_for_another_is_no_outcome(client: Client, tmp_path: Path) -> None:
    """It ends after the request, but began before it: only what was planned under the annotation counts."""
    cover(client)
    ran = {**OUTCOME, "asked": ""}

    def asked_for() -> None:
        annotation = client.get(f"{STREAMS}/app")["metadata"]["annotations"]["mirrorstream.github.io/retry"]
        event(client, {**OUTCOME, "asked": annotation}, "asked-for", "2027-01-01T00:00:01Z")

    waits = Waits(lambda: event(client, ran, "ran"), lambda: None, asked_for)
    assert retry.run(arguments(tmp_path / "kubeconfig"), waits.clock()) == 3
    assert waits.slept == 3


def test_a_heal_between_two_reads_is_seen(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An attempt that imported the tag does not end the waiting while the tag still looks failing."""
    cover(client)
    served = {**OUTCOME, "result": "imported", "candidates": [{"reference": MIRRORED, "mirrorSet": "m"}]}
    waits = Waits(lambda: event(client, served), lambda: heal(client))
    assert retry.run(arguments(tmp_path / "kubeconfig"), waits.clock()) == 0
    assert capsys.readouterr().out == "ns/app:v1  healed  through localhost:2\n"
    assert waits.slept == 2


@pytest.mark.parametrize("status", [500, 503, 429, "reset"])
def test_retry_outlives_an_api_server_that_is_away(
    simulator: Simulator, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int | str
) -> None:
    """The control plane is busiest when everything fails at once."""
    cover(client)
    waits = Waits(
        lambda: fail(simulator, status),
        simulator.server.faults.clear,
        lambda: heal(client),
    )
    assert retry.run(arguments(tmp_path / "kubeconfig"), waits.clock()) == 0
    assert capsys.readouterr().out == "ns/app:v1  healed  through localhost:2\n"


def test_retry_asks_again_when_the_request_is_lost(simulator: Simulator, client: Client, tmp_path: Path) -> None:
    """The request to mirrorstream is one that may be repeated."""
    cover(client)
    fail(simulator, 503, "imagestreams/app$", "patch", times=2)
    waits = Waits(lambda: None, lambda: None, lambda: heal(client))
    assert retry.run(arguments(tmp_path / "kubeconfig"), waits.clock()) == 0
    assert "mirrorstream.github.io/retry" in client.get(f"{STREAMS}/app")["metadata"]["annotations"]


def test_what_was_seen_before_the_api_server_went_away_is_told(
    simulator: Simulator, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that it is not how everything stands now."""
    cover(client)
    waits = Waits(lambda: fail(simulator, 503))
    assert retry.run(arguments(tmp_path / "kubeconfig"), waits.clock()) == 3
    out = capsys.readouterr().out
    assert out.startswith("ns/app:v1  still failing  ")
    assert "Note: the API server did not answer at the end; this is the state of 60s before: not now\n" in out


@pytest.mark.parametrize(("moves", "exit_status"), [(True, 0), (False, 3)])
def test_a_well_tag_whose_import_did_not_end_is_not_called_well(
    simulator: Simulator, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], moves: bool, exit_status: int
) -> None:
    """That it was well before says nothing of the import that was asked for."""
    cover(client)
    heal(client)
    fail(simulator, 504, "imagestreamimports$", "create")

    def import_again() -> None:
        stream = client.get(f"{STREAMS}/app")
        for tag in (stream["spec"]["tags"][0], stream["status"]["tags"][0]["items"][0]):
            tag["generation"] += 1
        client.request("PUT", f"{STREAMS}/app/status", body=stream)

    waits = Waits(lambda: None, *([import_again] if moves else []))
    assert retry.run(arguments(tmp_path / "kubeconfig"), waits.clock()) == exit_status
    out = capsys.readouterr().out
    if moves:
        assert out.startswith("ns/app:v1  healed  through localhost:2\n")
        assert waits.slept == 2
    else:
        assert out.startswith("ns/app:v1  not imported again  the platform's own import did not end\n")
        assert waits.slept >= 60
    assert "Note: the platform's own import did not end: not now\n" in out


def test_nobody_waits_for_an_observer(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It heals nothing, so there is nothing to wait for; the platform's import is made all the same."""
    cover(client)
    configure(client, "mode: observe")
    waits = Waits()
    assert retry.run(arguments(tmp_path / "kubeconfig", wait=300), waits.clock()) == 3
    assert waits.slept == 0
    out = capsys.readouterr().out
    assert "; mirrorstream observes only (mode: observe)\n" in out
    assert "mirrorstream.github.io/retry" not in (client.get(f"{STREAMS}/app")["metadata"].get("annotations") or {})
