"""`mirrorstream check`, from the command line to the exit status, on a simulated cluster."""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.kube.client import Client
from mirrorstream_cli.commands.check import stopped_note
from mirrorstream_cli.progress import Progress

from e2e.testbed.registries.registry import Registry
from e2e.testbed.simulator.simulator import Simulator
from tests.cli.simulated import STREAMS, Run, configure, cover, fail
from tests.diagnose.builders import DIGEST, Object, asked

IMAGE_CONFIG = "/apis/config.openshift.io/v1/images/cluster"


@pytest.fixture
def mirror(client: Client) -> Iterator[Registry]:
    """A mirror of everything at the dead registry, which has the image of ns/app:v1."""
    with Registry() as found:
        found.store.put("mirror/team/app", "v1", "docker", "app")
        config = client.get(IMAGE_CONFIG)
        config["spec"] = {"registrySources": {"insecureRegistries": [found.host]}}
        client.request("PUT", IMAGE_CONFIG, body=config)
        spec = {"imageDigestMirrors": [{"source": "localhost:1", "mirrors": [f"{found.host}/mirror"]}]}
        path = "/apis/config.openshift.io/v1/imagedigestmirrorsets"
        client.request("POST", path, body={"metadata": {"name": "m"}, "spec": spec})
        yield found


def add(client: Client, name: str, *tags: Object, namespace: str = "ns") -> None:
    """Create a stream."""
    path = STREAMS.replace("/ns/", f"/{namespace}/")
    client.request("POST", path, body={"metadata": {"name": name}, "spec": {"tags": list(tags)}})


def tag(name: str, image: str, **more: Any) -> Object:
    """A spec tag."""
    return {"name": name, "from": {"kind": "DockerImage", "name": f"localhost:1/team/{image}"}, **more}


def test_what_the_mirrors_have_survives(run: Run, client: Client, mirror: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 0; a scheduled run of it tells nothing more."""
    before = client.get(f"{STREAMS}/app")
    assert run("check", "-n", "ns") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("Namespace ns: every tag survives without its source; 1 tag in 1 stream\n")
    assert captured.err == ""
    assert client.get(f"{STREAMS}/app") == before, "a dry run writes nothing"
    assert run("check", "-A", "-o", "json") == 0
    (found,) = json.loads(capsys.readouterr().out)["tags"]
    assert (found["fate"], found["through"]) == ("survives", f"{mirror.host}/mirror/team/app:v1")
    assert found["digest"].startswith("sha256:")


def test_what_they_lack_is_told_and_listed_for_oc_mirror(
    run: Run, client: Client, mirror: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 3; an image that no rule covers is included only with the administrator's option."""
    add(client, "other", tag("v2", "other:v2"), {"name": "far", "from": {"kind": "DockerImage", "name": "localhost:3/x:1"}})
    assert run("check", "-n", "ns", "-o", "yaml") == 3
    document = yaml.safe_load(capsys.readouterr().out)
    assert document["summary"]["tags"] == {"survives": 1, "lost": 2, "unknown": 0}
    assert {f"{t['stream']}:{t['tag']}": t["why"] for t in document["tags"]} == {
        "app:v1": "",
        "other:v2": "the mirror does not have it",
        "other:far": "no rule covers it",
    }
    assert run("check", "-n", "ns", "-o", "imageset") == 3
    captured = capsys.readouterr()
    assert yaml.safe_load(captured.out)["mirror"] == {"additionalImages": [{"name": "localhost:1/team/other:v2"}]}
    assert "left out: 1 that no rule is known to cover" in captured.err
    assert run("check", "-n", "ns", "-o", "imageset", "--unmirrored") == 3
    assert {"name": "localhost:3/x:1"} in yaml.safe_load(capsys.readouterr().out)["mirror"]["additionalImages"]


def test_who_may_not_import_is_told_so(
    run: Run, simulator: Simulator, mirror: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear line: nothing was checked."""
    fail(simulator, 403, "imagestreamimports")
    assert run("check", "-n", "ns") == 1
    assert capsys.readouterr() == ("", "mirrorstream: you may not import images into ns: not now\n")


def refused_in(namespace: str, status: int, simulator: Simulator, client: Client) -> None:
    """Make a namespace with a stream, whose imports the API server refuses."""
    client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
    add(client, "app", tag("v1", "app:v1"), namespace=namespace)
    fail(simulator, status, f"namespaces/{namespace}/imagestreamimports")


def test_one_namespace_may_be_forbidden(
    run: Run, simulator: Simulator, client: Client, mirror: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tags are not known, which is no success; it is asked once for all its tags at most per request under way."""
    refused_in("closed", 403, simulator, client)
    assert run("check", "-A", "-o", "json") == 3
    found = {t["namespace"]: (t["fate"], t["why"]) for t in json.loads(capsys.readouterr().out)["tags"]}
    assert found == {"ns": ("survives", ""), "closed": ("unknown", "you may not import images into closed: not now")}


def test_one_namespace_may_go_away(
    run: Run, simulator: Simulator, client: Client, mirror: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other namespaces' answers of many minutes are kept; if there is no other, it is an error."""
    refused_in("gone", 404, simulator, client)
    assert run("check", "-A", "-o", "json") == 3
    found = {t["namespace"]: (t["fate"], t["why"]) for t in json.loads(capsys.readouterr().out)["tags"]}
    assert found == {"ns": ("survives", ""), "gone": ("unknown", "there is no import of images in gone: not now")}
    assert run("check", "-n", "gone") == 1
    assert capsys.readouterr().err == "mirrorstream: there is no import of images in gone: not now\n"


@pytest.mark.parametrize(
    ("status", "message", "why"),
    [
        pytest.param(500, "broken", "the API server did not ask", id="a-broken-api-server"),
        pytest.param("reset", "", "the API server did not ask", id="a-connection-that-ends"),
        pytest.param(
            422,
            'spec.images[0].from.name: registry "h" not allowed by whitelist: "x"',
            "only an account that may create images",
            id="list",
        ),
    ],
)
def test_what_could_not_be_asked_is_not_known(
    run: Run, simulator: Simulator, mirror: Registry, capsys: pytest.CaptureFixture[str], status: int | str, message: str, why: str
) -> None:
    """Not that it is lost: the mirror may well have it."""
    action = {"reset": True} if status == "reset" else {"status": status, "reason": "x", "message": message}
    simulator.server.faults.add({"path": "imagestreamimports", "userAgent": "^kubectl-mirrorstream", "action": action})
    assert run("check", "-n", "ns", "-o", "json") == 3
    (found,) = json.loads(capsys.readouterr().out)["tags"]
    assert found["fate"] == "unknown"
    assert why in found["why"]


def test_rules_that_may_not_be_seen_are_an_error(
    run: Run, simulator: Simulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which mirrors are to be asked is not known then."""
    cover(client)
    fail(simulator, 403, "imagedigestmirrorsets")
    assert run("check", "-n", "ns") == 1
    assert "you may not list imagedigestmirrorsets" in capsys.readouterr().err


def test_a_namespace_that_does_not_exist_is_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of the pen must not look like a namespace where all survives."""
    assert run("check", "-n", "typo") == 1
    assert capsys.readouterr().err == "mirrorstream: there is no namespace 'typo'\n"


SAMPLES = """
apiVersion: v1
kind: List
items:
- kind: ImageStream
  apiVersion: image.openshift.io/v1
  metadata: {name: fresh}
  spec:
    tags:
    - {name: v1, from: {kind: DockerImage, name: "localhost:1/team/app:v1"}}
    - {name: v9, from: {kind: DockerImage, name: "localhost:1/team/app:v9"}}
    - {name: latest, from: {kind: ImageStreamTag, name: v9}}
"""


def test_streams_of_files_are_checked_before_they_are_on_the_cluster(
    run: Run, client: Client, mirror: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A newer release's samples; the dry runs are done in -n, and nothing is created there."""
    file = tmp_path / "samples.yaml"
    file.write_text(SAMPLES)
    assert run("check", "--file", str(file), "-n", "ns") == 3
    out = capsys.readouterr().out
    assert out.startswith("The files: 1 lost, 1 survives; 2 tags in 1 stream\n")
    assert "  ns/fresh:v9\n" in out
    assert "followed by:  latest" in out
    assert [stream["metadata"]["name"] for stream in client.get(STREAMS)["items"]] == ["app"]


def test_a_streams_own_namespace_counts_before_the_contexts(
    run: Run, client: Client, mirror: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And -n before both: a namespace may have other pull secrets, or not exist yet."""
    file = tmp_path / "samples.yaml"
    file.write_text(SAMPLES.replace("{name: fresh}", "{name: fresh, namespace: planned}"))
    assert run("check", "--file", str(file)) == 1
    assert capsys.readouterr().err == "mirrorstream: there is no namespace 'planned'\n"
    client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": "planned"}})
    for arguments, namespace in (([], "planned"), (["-n", "ns"], "ns")):
        assert run("check", "--file", str(file), "-o", "json", *arguments) == 3
        document = json.loads(capsys.readouterr().out)
        assert {t["namespace"] for t in document["tags"]} == {namespace}
        assert document["namespace"] is None


@pytest.mark.parametrize(("own", "excluded"), [("planned", True), ("ns", False)], ids=["of-an-excluded-namespace", "of-another"])
def test_a_stream_of_a_file_is_judged_by_its_own_namespace(
    run: Run, client: Client, mirror: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str], own: str, excluded: bool
) -> None:
    """And not by that of its dry runs."""
    configure(client, "controller: {namespaces: {include: [ns]}}")
    client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": "scratch"}})
    file = tmp_path / "samples.yaml"
    file.write_text(SAMPLES.replace("v9", "v1").replace("{name: fresh}", f"{{name: fresh, namespace: {own}}}"))
    assert run("check", "--file", str(file), "-n", "scratch", "-o", "json") == (3 if excluded else 0)
    tags = json.loads(capsys.readouterr().out)["tags"]
    assert {found["namespace"] for found in tags} == {"scratch"}
    assert {"controller.namespaces" in found["why"] for found in tags} == {excluded}


def test_an_observer_saves_nothing(run: Run, client: Client, mirror: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    """The mirrors are asked all the same: this is what it would save with `mode: active`."""
    configure(client, "mode: observe")
    assert run("check", "-n", "ns", "-o", "json") == 3
    (found,) = json.loads(capsys.readouterr().out)["tags"]
    through = f"{mirror.host}/mirror/team/app:v1"
    assert (found["fate"], found["through"]) == ("lost", through)
    assert found["why"] == f"{through} serves it, but mirrorstream observes only (mode: observe)"


def test_a_folder_is_read_and_other_kinds_are_left_out(
    run: Run, mirror: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped samples are a folder for each of them; the mirror rules are the cluster's."""
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "samples.yaml").write_text(SAMPLES.replace("v9", "v1"))
    (folder / "mirrors.yaml").write_text("{kind: ImageDigestMirrorSet, metadata: {name: m}}")
    (folder / "template.json").write_text('{"kind": "Deployment", "metadata": {"name": "x"}}')
    assert run("check", "-n", "ns", "--file", str(folder), "-o", "json") == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert "other kinds are left out: Deployment" in notes
    assert any("are not used, since the mirror rules are the cluster's: ImageDigestMirrorSet" in note for note in notes)


@pytest.mark.parametrize(
    ("status", "text", "arguments", "error"),
    [
        pytest.param(2, SAMPLES, ["-A"], "--file names the streams, so -A means nothing", id="all-namespaces"),
        pytest.param(1, "{kind: ImageStream, metadata: {name: [x]}}", ["-n", "ns"], "$.metadata.name", id="malformed"),
        pytest.param(1, "{metadata: {}}", ["-n", "ns"], "kind:", id="no-kind"),
    ],
)
def test_a_file_that_cannot_be_checked_is_named(
    run: Run,
    mirror: Registry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    status: int,
    text: str,
    arguments: list[str],
    error: str,
) -> None:
    """With what is wrong; exit status 2 for wrong usage."""
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert run("check", "--file", str(file), *arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert error in captured.err


@pytest.mark.parametrize("answered", [[0], [1], [0, 1], [0, 2], []])
def test_streams_of_one_name_may_be_stopped(answered: list[int]) -> None:
    """Files may have the same stream for two namespaces, which -n makes one."""
    checks = [asked(DIGEST), asked(DIGEST), dataclasses.replace(asked(DIGEST), namespace="zz")]
    args = argparse.Namespace(all_namespaces=True, context="my admin", kubeconfig=None)
    found = stopped_note(checks, [checks[index] for index in answered], args)
    first = "zz" if answered == [0, 1] else "ns"
    again = f"`mirrorstream check -A --from {first} --context 'my admin'` goes on"
    assert found == f"stopped: {len(answered)} of 3 tags were checked; {again}"


def test_ctrl_c_tells_what_is_known_and_how_to_go_on(
    run: Run,
    client: Client,
    mirror: Registry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`--from` begins with the first namespace that is not finished, in the order of their names."""
    client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": "zz"}})
    for number in range(100):
        add(client, f"s-{number}", tag("v1", "app:v1"), namespace="zz")

    def stop(progress: Progress, done: int, total: int, what: str) -> None:
        if done >= 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "count", stop)
        assert run("check", "-A", "-o", "json") == 130
    document = json.loads(capsys.readouterr().out)
    assert 1 <= len(document["tags"]) < 101
    assert document["summary"]["streams"] == len(document["tags"]), "of what was checked: each stream has one tag"
    first = "zz" if "ns" in {one["namespace"] for one in document["tags"]} else "ns"
    again = f"`mirrorstream check -A --from {first} --kubeconfig {tmp_path / 'kubeconfig'}` goes on"
    assert f"stopped: {len(document['tags'])} of 101 tags were checked; {again}" in document["notes"]
    add(client, "pushed", {"name": "v1"}, namespace="ns")
    assert run("check", "-A", "--from", "zz", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert {one["namespace"] for one in document["tags"]} == {"zz"}
    assert (document["summary"]["streams"], document["summary"]["skipped"]["pushed"]) == (100, 0), "not those of ns"
    assert run("check", "-A", "--from", "zzz") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--from zzz: no namespace from there on has an ImageStream\n" in captured.err
    assert run("check", "-n", "ns", "--from", "zz") == 2
    assert "--from names the first of several namespaces" in capsys.readouterr().err
