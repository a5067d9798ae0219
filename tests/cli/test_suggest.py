"""`mirrorstream suggest`, from the command line to what `oc apply` takes, on a simulated cluster."""

import json
from typing import Any

import pytest
import yaml
from mirrorstream.diagnose.suggest import NAME
from mirrorstream.kube.client import Client
from mirrorstream_cli.reader import Reader

from e2e.testbed.infrastructure import ELSEWHERE, set_topology
from e2e.testbed.simulator.simulator import Simulator
from tests.cli.simulated import STREAMS, Run, cover, fail, heal

ITMS = "/apis/config.openshift.io/v1/imagetagmirrorsets"


@pytest.fixture
def scheduled(client: Client) -> None:
    """The tag is scheduled, a digest mirror covers it, and mirrorstream has healed it."""
    cover(client)
    stream = client.get(f"{STREAMS}/app")
    stream["spec"]["tags"][0]["importPolicy"] = {"scheduled": True}
    client.request("PUT", f"{STREAMS}/app", body=stream)
    heal(client)


@pytest.mark.usefixtures("scheduled")
def test_the_answer_can_be_applied(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Comments, then the objects; nothing on stderr."""
    assert run("suggest", "-n", "ns") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "#   ns/app:v1  from localhost:1/team/app:v1\n" in captured.out
    comments = [line for line in captured.out.split("---\n")[0].splitlines() if not line.startswith("# ")]
    assert comments == []
    documents = [document for document in yaml.safe_load_all(captured.out) if document]
    assert [document["kind"] for document in documents] == ["ImageDigestMirrorSet", "ImageTagMirrorSet"]
    assert {document["metadata"]["name"] for document in documents} == {NAME}
    entry = {"source": "localhost:1/team", "mirrors": ["localhost:2/mirror/team"]}
    assert documents[1]["spec"] == {"imageTagMirrors": [entry]}


@pytest.mark.usefixtures("scheduled")
@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_as_a_list(run: Run, simulator: Simulator, capsys: pytest.CaptureFixture[str], output: str, read: Any) -> None:
    """For programs, and for `oc apply`, too; the rest goes to stderr."""
    fail(simulator, 403, "infrastructures")
    assert run("suggest", "-n", "ns", "-o", output) == 0
    captured = capsys.readouterr()
    document = read(captured.out)
    assert (document["kind"], document["apiVersion"]) == ("List", "v1")
    assert [item["kind"] for item in document["items"]] == ["ImageDigestMirrorSet", "ImageTagMirrorSet"]
    assert "mirrorstream: Note: whether this is a hosted cluster, where nobody may create mirror sets, is not known" in captured.err


def test_nothing_to_suggest(run: Run, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 0, and a comment."""
    cover(client)
    assert run("suggest", "-A") == 0
    out = capsys.readouterr().out
    assert out.startswith("# Nothing to suggest: no scheduled tag is known to fail")
    assert [document for document in yaml.safe_load_all(out) if document] == []


@pytest.mark.usefixtures("scheduled")
def test_not_in_a_hosted_cluster(run: Run, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody may create one there."""
    set_topology(client, ELSEWHERE)
    assert run("suggest", "-n", "ns") == 0
    out = capsys.readouterr().out
    assert "# Nothing to suggest for these scheduled tags: in a hosted cluster" in out
    assert [document for document in yaml.safe_load_all(out) if document] == []


@pytest.mark.usefixtures("scheduled")
def test_who_may_not_see_where_the_control_plane_runs_is_told_so(
    run: Run, simulator: Simulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """The objects are printed with a note: what may not be read is neither a hosted cluster nor another one."""
    set_topology(client, ELSEWHERE)
    fail(simulator, 403, "infrastructures")
    assert run("suggest", "-n", "ns") == 0
    out = capsys.readouterr().out
    told = "# Note: whether this is a hosted cluster, where nobody may create mirror sets,\n# is not known\n"
    assert told in out
    assert [document["kind"] for document in yaml.safe_load_all(out) if document] == ["ImageDigestMirrorSet", "ImageTagMirrorSet"]


@pytest.mark.usefixtures("scheduled")
def test_who_may_not_create_them_is_told_so(run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An administrator can use the answer all the same. Scenarios ask a cluster that has RBAC."""
    monkeypatch.setattr(Reader, "may_create", lambda *_: False)
    assert run("suggest", "-n", "ns") == 0
    assert "# Note: you may not create ImageTagMirrorSets" in capsys.readouterr().out


def test_rules_that_may_not_be_seen_are_an_error(
    run: Run, simulator: Simulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """A suggestion made of half of them could hide the other half."""
    cover(client)
    fail(simulator, 403, "imagedigestmirrorsets")
    assert run("suggest", "-n", "ns") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "you may not list imagedigestmirrorsets" in captured.err


@pytest.mark.usefixtures("scheduled")
def test_status_tells_of_it_until_it_is_applied(run: Run, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """The tags, and the command that prints the way out."""
    assert run("status", "-n", "ns") == 0
    assert "Failing at each scheduled import" in capsys.readouterr().out
    run("suggest", "-n", "ns")
    for document in yaml.safe_load_all(capsys.readouterr().out):
        if document:
            plural = f"{document['kind'].lower()}s"
            client.request("POST", f"/apis/config.openshift.io/v1/{plural}", body=document)
    assert run("status", "-n", "ns") == 0
    assert "Failing at each scheduled import" not in capsys.readouterr().out
    assert run("suggest", "-n", "ns") == 0
    assert capsys.readouterr().out.startswith("# Nothing to suggest")
