"""The commands from the command line to the exit status, on a simulated cluster, in this process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.kube.client import Client, ConfigurationError
from mirrorstream_cli.commands import status

from e2e.testbed.simulator.simulator import Simulator
from tests.cli.simulated import DEAD, STREAMS, Run, Waits, arguments, configure, cover, event, fail, heal

_connected: list[Any] = []
_watched = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        _connected.append(arguments[1])


def test_a_tag_without_a_mirror_is_told_and_does_not_count(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not mirrorstream's; `missing` counts it, since it is what is to be mirrored."""
    assert run("status", "-n", "ns") == 0
    assert "1 unmirrored" in capsys.readouterr().out
    assert run("missing", "-n", "ns", "-o", "json") == 3
    assert [image["state"] for image in json.loads(capsys.readouterr().out)["images"]] == ["missing"]


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
    """As for kubectl; `-A` means all."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    cover(client)
    client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": "default"}})
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
    assert run("status", "--context", "other") == 1
    assert capsys.readouterr().err == "mirrorstream: there is no namespace 'elsewhere'\n"
    assert run("status", "--context", "nope") == 1
    assert "nope" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "missing"])
def test_a_namespace_that_does_not_exist_is_an_error(run: Run, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """A slip of the pen must not look like a namespace where all is well."""
    assert run(command, "-n", "typo") == 1
    assert capsys.readouterr() == ("", "mirrorstream: there is no namespace 'typo'\n")


def test_whether_an_empty_namespace_exists_may_be_hidden(
    run: Run, simulator: Simulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then it is said that nobody knows."""
    client.request("DELETE", f"{STREAMS}/app")
    assert run("status", "-n", "ns") == 0
    assert "Note" not in capsys.readouterr().out
    fail(simulator, 403, "namespaces/ns$")
    assert run("status", "-n", "ns") == 0
    assert "Note: you may not get namespace 'ns', so whether it exists is not known\n" in capsys.readouterr().out


def test_the_image_set_is_not_for_tenants_to_choose(run: Run, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """Anybody can have a tag fail; what no rule covers is taken in only if the administrator says so."""
    for flags, images in (([], None), (["--unmirrored"], [{"name": DEAD}])):
        assert run("missing", "-A", "-o", "imageset", *flags) == 3
        captured = capsys.readouterr()
        assert yaml.safe_load(captured.out)["mirror"].get("additionalImages") == images
        assert ("left out: 1 that no rule" in captured.err) is (not flags)
    cover(client, "localhost:1/else")
    assert run("missing", "-n", "ns", "-o", "imageset") == 3
    left_out = (
        "mirrorstream: left out: 1 that no rule is known to cover, so that any tenant could have named it (--unmirrored); "
        "-o yaml names them\n"
    )
    assert capsys.readouterr().err.startswith(left_out)


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
        assert "  ns/app:v1  through localhost:2\n" in capsys.readouterr().out
    else:
        assert waits.slept >= 60


def test_status_does_not_wait_for_what_waiting_does_not_help(client: Client, tmp_path: Path) -> None:
    """Nobody is kept for five minutes by a tag that no mirror covers."""
    waits = Waits()
    assert status.run(arguments(tmp_path / "kubeconfig", wait=300), waits.clock()) == 0
    assert waits.slept == 0


@pytest.mark.parametrize("failing", [500, 503, 429, "reset"])
def test_status_outlives_an_api_server_that_is_away(
    simulator: Simulator, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], failing: int | str
) -> None:
    """Once it has answered; a script that waits for five minutes is not ended by one request."""
    cover(client)
    waits = Waits(lambda: fail(simulator, failing), simulator.server.faults.clear, lambda: heal(client))
    assert status.run(arguments(tmp_path / "kubeconfig", wait=60), waits.clock()) == 0
    out = capsys.readouterr().out
    assert "1 healed" in out
    assert "could not be asked" not in out


def test_status_says_that_its_answer_is_an_old_one(
    simulator: Simulator, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the API server is still away at the end; without a first answer there is nothing to tell."""
    cover(client)
    waits = Waits(lambda: fail(simulator, 503))
    assert status.run(arguments(tmp_path / "kubeconfig", wait=30), waits.clock()) == 3
    says = "Note: the API server did not answer at the end; this is the state of 30s before: not now\n"
    assert says in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="not now"):
        status.run(arguments(tmp_path / "kubeconfig", wait=30), Waits().clock())


def test_status_does_not_wait_for_an_observer(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And does not say that it retries."""
    cover(client)
    configure(client, "mode: observe")
    waits = Waits()
    assert status.run(arguments(tmp_path / "kubeconfig", wait=300), waits.clock()) == 3
    assert waits.slept == 0
    out = capsys.readouterr().out
    assert "Failing (mirrorstream observes only (mode: observe))\n" in out
    assert "mirrorstream retries" not in out


@pytest.mark.parametrize("subject", [DEAD, "ns/app:v1"])
def test_explain_obeys_the_controllers_configuration(
    run: Run, client: Client, capsys: pytest.CaptureFixture[str], subject: str
) -> None:
    """Otherwise the answer would be that of another installation; where it cannot be read, that is said."""
    cover(client)
    defaults = "Note: decided with the default configuration, since the ConfigMap of mirrorstream's configuration cannot be read\n"
    assert run("explain", subject) == 0
    out = capsys.readouterr().out
    assert "and records localhost:1/team/app@DIGEST" in out
    assert defaults in out
    configure(client, "controller: {recordedReference: mirror}")
    assert run("explain", subject) == 0
    out = capsys.readouterr().out
    assert "and records localhost:2/mirror/team/app@DIGEST" in out
    assert defaults not in out
    path = "/api/v1/namespaces/mirrorstream/configmaps/mirrorstream-config"
    client.request("PUT", path, body={**client.get(path), "data": {"config.yaml": "mirrors: {tagsThroughDigestMirrors: false}"}})
    assert run("explain", subject) == 0
    out = capsys.readouterr().out
    assert "The controller has nothing to import it through." in out
    assert "a digest mirror, and mirrors.tagsThroughDigestMirrors is off" in out


def test_explain_does_not_claim_that_there_is_no_rule(
    run: Run, simulator: Simulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a kind of mirror set may not be listed; what Events say is told all the same."""
    cover(client)
    answer = {"reference": "localhost:2/mirror/team/app:v1", "mirrorSet": "ImageDigestMirrorSet/m", "failure": "not-found"}
    event(client, {"tag": "v1", "result": "failed", "source": DEAD, "candidates": [answer]})
    fail(simulator, 403, "imagedigestmirrorsets")
    assert run("explain", "ns/app:v1") == 0
    out = capsys.readouterr().out
    assert "localhost:2/mirror/team/app:v1  not-found" in out
    assert "  Mirror rules: you have no permission to list them\n" in out
    for claim in ("Rule: none", "nothing to import it through", "A node pulls from"):
        assert claim not in out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_is_an_error(client: Client, tmp_path: Path, encoding: str) -> None:
    """A terminal or a pipe may know few characters: those it does not know are replaced."""
    cover(client)
    answer = {"reference": "localhost:2/中:v1", "mirrorSet": "m", "failure": "unknown", "message": "läuft nicht …"}
    event(client, {"tag": "v1", "result": "failed", "source": DEAD, "candidates": [answer]})
    for more in ([], ["-o", "yaml"]):
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "mirrorstream"),
                "status",
                "-n",
                "ns",
                "--kubeconfig",
                str(tmp_path / "kubeconfig"),
                *more,
            ],
            env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, b"Traceback" in done.stderr) == (3, False), done
        if more:
            (tag,) = yaml.safe_load(done.stdout.decode(encoding))["tags"]
            assert tag["tried"]["candidates"][0]["reference"] == "localhost:2/中:v1"


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
        assert "evil" in captured.out or arguments_[0] == "missing"
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
