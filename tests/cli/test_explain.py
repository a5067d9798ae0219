"""`mirrorstream explain`: offline on files, on a cluster, and what it says when something is wrong."""

import json
import re
from pathlib import Path

import pytest
import yaml
from mirrorstream_cli.commands.explain import is_reference
from mirrorstream_cli.main import main

from e2e.testbed.simulator.simulator import Simulator

SETS = """
kind: ImageDigestMirrorSet
metadata: {name: redhat}
spec: {imageDigestMirrors: [{source: registry.redhat.io, mirrors: ["mirror.example.com:5000/redhat", "NO HOST"]}]}
---
kind: List
items:
- kind: ImageTagMirrorSet
  metadata: {name: tags}
  spec: {imageTagMirrors: [{source: registry.redhat.io, mirrors: [blocked.example.com]}]}
- kind: Image
  metadata: {name: cluster}
  spec: {registrySources: {blockedRegistries: [blocked.example.com]}}
---
kind: ImageStream
metadata: {name: httpd, namespace: openshift}
spec:
  tags:
  - {name: "2.4", from: {kind: DockerImage, name: "registry.redhat.io/ubi9/httpd-24:latest"}}
  - {name: latest, from: {kind: ImageStreamTag, name: "2.4"}}
status:
  tags:
  - tag: "2.4"
    conditions:
    - {type: ImportSuccess, status: "False", reason: InternalError, message: refused, lastTransitionTime: "2027-01-01T00:00:00Z"}
"""
DIGEST = f"sha256:{'a' * 64}"
IMAGE = "registry.redhat.io/ubi9/httpd-24:latest"


@pytest.fixture
def sets(tmp_path: Path) -> str:
    """A file with rules and a stream."""
    path = tmp_path / "sets.yaml"
    path.write_text(SETS)
    return str(path)


def test_the_whole_answer_for_an_image(sets: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Read it as a user would."""
    assert main(["explain", IMAGE, "--file", sets]) == 0
    assert capsys.readouterr().out == (
        "registry.redhat.io/ubi9/httpd-24:latest\n"
        "  Rule: registry.redhat.io  (ImageDigestMirrorSet/redhat, ImageTagMirrorSet/tags)\n"
        "  A node pulls from, in this order:\n"
        "    1. blocked.example.com/ubi9/httpd-24:latest  ImageTagMirrorSet/tags, blocked: not contacted\n"
        "    2. registry.redhat.io/ubi9/httpd-24:latest   the source\n"
        "  If its import fails, the controller imports through, in this order:\n"
        "    1. mirror.example.com:5000/redhat/ubi9/httpd-24:latest  ImageDigestMirrorSet/redhat\n"
        "  and records registry.redhat.io/ubi9/httpd-24@DIGEST\n"
        "  Skipped mirrors:\n"
        "    - blocked.example.com/ubi9/httpd-24:latest  ImageTagMirrorSet/tags: blocked.example.com is blocked\n"
        "    - NO HOST                                   ImageDigestMirrorSet/redhat: NO HOST in place of registry.redhat.io does"
        " not make a valid reference\n"
        "\n"
        "Parts of the mirror rules that cannot be used:\n"
        "  ImageDigestMirrorSet/redhat: spec.imageDigestMirrors[0].mirrors[1]: 'NO HOST' is not a registry host with an optional"
        " repository\n"
    )


def test_a_stream_shows_the_state_of_its_tags(sets: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Importable tags only."""
    assert main(["explain", "openshift/httpd", "--file", sets]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"openshift/httpd:2.4  from {IMAGE}\n  State: the import fails since 2027-01-01T00:00:00Z\n")
    assert "    failure:      refused\n" in out
    assert out.count("refused") == 1
    assert "latest  from" not in out


@pytest.mark.parametrize("name", [None, "", "NO IMAGE"])
def test_a_tag_that_names_no_image_costs_only_itself(name: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are explained, and a note says what is wrong with which; asked for alone, it is an error."""
    path = tmp_path / "objects.yaml"
    tags = [
        {"name": "odd", "from": {"kind": "DockerImage", "name": name}},
        {"name": "2", "from": {"kind": "DockerImage", "name": IMAGE}},
    ]
    stream = {"kind": "ImageStream", "metadata": {"name": "app", "namespace": "web"}, "spec": {"tags": tags}}
    path.write_text(json.dumps(stream))
    assert main(["explain", "web/app", "--file", str(path), "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [found["stream"] for found in document["explanations"]] == ["web/app:2"]
    says = f"web/app:odd is not explained, since its from names no image: {name or ''!r}: invalid reference format"
    assert says in document["notes"]
    assert main(["explain", "web/app:odd", "--file", str(path)]) == 1
    assert capsys.readouterr().err == f"mirrorstream: {says}\n"
    stream["spec"] = {"dockerImageRepository": "NO IMAGE", "tags": tags[1:]}
    path.write_text(json.dumps(stream))
    assert main(["explain", "web/app", "--file", str(path)]) == 0
    assert "web/app is not explained, since its spec.dockerImageRepository names no image: 'NO IMAGE'" in capsys.readouterr().out


@pytest.mark.parametrize("insecure", [True, False])
def test_a_whole_repository_is_judged_as_the_stream_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], insecure: bool
) -> None:
    """An insecure one also matches entries of allowedRegistriesForImport for port 80."""
    path = tmp_path / "objects.json"
    config = {"allowedRegistriesForImport": [{"domainName": "quay.example.com", "insecure": True}]}
    annotations = {"openshift.io/image.insecureRepository": str(insecure).lower()}
    stream = {
        "kind": "ImageStream",
        "metadata": {"name": "app", "namespace": "web", "annotations": annotations},
        "spec": {"dockerImageRepository": "quay.example.com/team/app"},
    }
    items = [stream, {"kind": "Image", "metadata": {"name": "cluster"}, "spec": config}]
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    assert main(["explain", "web/app", "--file", str(path), "-o", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["explanations"]
    assert found["importAllowed"] is insecure


@pytest.mark.parametrize(
    ("reference", "fails"),
    [("x.example.net:5000/foo:1", True), (f"x.example.net:5000/foo@sha256:{'a' * 64}", False), ("x.example.net/foo:1", False)],
    ids=["tag", "not-for-digests", "both-mirrors-are-valid"],
)
def test_a_mirror_that_makes_no_reference_has_a_nodes_pull_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reference: str, fails: bool
) -> None:
    """A node gives up at it, though another mirror is fine; the controller goes on with that one."""
    path = tmp_path / "objects.yaml"
    mirrors = ["m.example.com:5000", "m.example.com"]
    spec = {"imageTagMirrors": [{"source": "*.example.net", "mirrors": mirrors}]}
    path.write_text(json.dumps({"kind": "ImageTagMirrorSet", "metadata": {"name": "wild"}, "spec": spec}))
    why = "m.example.com:5000 in place of *.example.net does not make a valid reference"
    assert main(["explain", reference, "--file", str(path)]) == 0
    out = capsys.readouterr().out
    assert (f"  A node's pull fails: {why}. The controller skips this mirror.\n" in out) is fails
    assert ("A node pulls from" not in out) is fails
    assert main(["explain", reference, "--file", str(path), "-o", "json"]) == 0
    (explanation,) = json.loads(capsys.readouterr().out)["explanations"]
    assert explanation["pullFailure"] == (why if fails else "")
    assert (explanation["pullSources"] == []) is fails
    assert "m.example.com" in explanation["candidates"][-1]["reference"]


@pytest.mark.parametrize(
    "mirror", ["https://m.example.com", "m.example.com/Team", "m.example.com/a:tag", f"m.example.com/a@{DIGEST}"]
)
def test_a_mirror_that_is_none_has_a_nodes_pull_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str], mirror: str) -> None:
    """It was left out when the rules were read, and nodes are given it all the same; a scheme costs them every image."""
    path = tmp_path / "objects.yaml"
    spec = {"repositoryDigestMirrors": [{"source": "quay.io/team", "mirrors": [mirror, "good.example.com/team"]}]}
    path.write_text(json.dumps({"kind": "ImageContentSourcePolicy", "metadata": {"name": "old"}, "spec": spec}))
    loads = not mirror.startswith("https:")
    why = f"{mirror} in place of quay.io/team does not make a valid reference"
    if not loads:
        why = (
            f"it cannot load registries.conf with {mirror!r} of ImageContentSourcePolicy/old, and pulls no image without that file"
        )
    assert main(["explain", f"quay.io/team/app@{DIGEST}", "--file", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"  A node's pull fails: {why}. The controller skips this mirror.\n" in out
    assert f"    1. good.example.com/team/app@{DIGEST}  ImageContentSourcePolicy/old\n" in out
    assert f"    - {mirror}  ImageContentSourcePolicy/old: {why}\n" in out
    assert main(["explain", "other.example.com/app:1", "--file", str(path)]) == 0
    assert ("A node pulls from" in (out := capsys.readouterr().out)) is loads
    assert (f"A node's pull fails: {why}. The controller skips only this.\n" in out) is not loads


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_programs_get_a_document(sets: str, capsys: pytest.CaptureFixture[str], output: str) -> None:
    """With the documented names."""
    assert main(["explain", "openshift/httpd:2.4", "--file", sets, "-o", output]) == 0
    out = capsys.readouterr().out
    document = json.loads(out) if output == "json" else yaml.safe_load(out)
    (explanation,) = document["explanations"]
    assert set(explanation) == {
        "reference", "scope", "objects", "pullSources", "pullFailure", "candidates", "skippedMirrors", "refused", "importAllowed",
        "stream", "state", "tag",
    }  # fmt: skip
    assert explanation["candidates"] == [
        {
            "reference": "mirror.example.com:5000/redhat/ubi9/httpd-24:latest",
            "insecure": False,
            "mirrorSet": "ImageDigestMirrorSet/redhat",
            "recordedAs": "registry.redhat.io/ubi9/httpd-24@DIGEST",
        }
    ]
    assert explanation["skippedMirrors"][0]["mirrorSet"] == "ImageTagMirrorSet/tags"
    assert document["warnings"][0]["field"] == "spec.imageDigestMirrors[0].mirrors[1]"


@pytest.mark.parametrize(
    ("arguments", "content", "says"),
    [
        ([IMAGE], "a: [", "not valid YAML"),
        ([IMAGE], "- a", "document 1: expected an object, found list"),
        ([IMAGE], "metadata: {}", "document 1: kind: expected the kind of an object, found None"),
        (["openshift/nope"], "kind: Template", "no ImageStream openshift/nope; other kinds are left out: Template; `oc process"),
        ([IMAGE], "kind: ImageTagMirrorSet", "document 1: metadata: expected a mapping in ImageTagMirrorSet"),
        (["quay.io/Bad:x"], SETS, "'quay.io/Bad:x': repository name must be lowercase"),
        (["openshift/nope"], SETS, "the files have no ImageStream openshift/nope"),
        (["openshift/httpd:9"], SETS, "has no tag '9' that imports an image"),
        (["openshift/httpd:"], SETS, "'openshift/httpd:' is neither an image"),
        (["jenkins"], SETS, "is neither an image (with its registry's host) nor NAMESPACE/STREAM[:TAG]"),
    ],
)
def test_an_error_is_one_line_and_exit_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], content: str, says: str
) -> None:
    """It names the file and the field."""
    path = tmp_path / "objects.yaml"
    path.write_text(content)
    assert main(["explain", *arguments, "--file", str(path)]) == 1
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


@pytest.mark.parametrize("arguments", [[], ["explain"], ["nonsense"], ["controller", "--metrics-port", "x"]])
def test_wrong_usage_is_exit_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As everywhere."""
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "usage: mirrorstream" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--kubeconfig", "/nowhere"], ["--config", "/nowhere"]])
def test_the_controller_says_what_it_cannot_read(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit status 1."""
    assert main(["controller", *arguments]) == 1
    assert "/nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("subject", "reference"),
    [
        ("quay.io/a/b", True),
        ("localhost/x", True),
        ("host:1/x", True),
        ("a@sha256:x", True),
        ("busybox:1", True),
        ("openshift/jenkins:2", False),
    ],
)
def test_what_is_an_image_and_what_a_stream(subject: str, reference: bool) -> None:
    """A registry's host, or a digest."""
    assert is_reference(subject) is reference


def test_on_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same answer, and a kind that may not be listed is said."""
    with Simulator() as simulator:
        kubeconfig = str(simulator.write_kubeconfig(tmp_path / "kubeconfig"))
        simulator.server.faults.add(
            {"path": "imagetagmirrorsets", "action": {"status": 403, "reason": "Forbidden", "message": "no"}}
        )
        assert main(["explain", IMAGE, "--kubeconfig", kubeconfig]) == 0
        out = capsys.readouterr().out
        assert out.startswith(
            f"{IMAGE}\n  Mirror rules: you have no permission to list them\n\n"
            "Note: you may not list imagetagmirrorsets.config.openshift.io"
        )
        assert main(["explain", IMAGE, "--kubeconfig", kubeconfig, "-o", "json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["rulesKnown"] is False
        (found,) = document["explanations"]
        assert (found["pullSources"], found["candidates"], found["refused"], found["importAllowed"]) == ([], [], None, None)
        assert main(["explain", "openshift/nope", "--kubeconfig", kubeconfig]) == 1
        assert 'imagestreams.image.openshift.io "nope" not found' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("subject", "hint"), [("httpd:2.4", True), ("busybox@sha256:" + "a" * 64, False), ("docker.io/library/httpd:2.4", False)]
)
def test_a_stream_without_its_namespace_is_hinted_at(
    sets: str, capsys: pytest.CaptureFixture[str], subject: str, hint: bool
) -> None:
    """It is an image of Docker Hub to every tool, and seldom what was meant."""
    assert main(["explain", subject, "--file", sets]) == 0
    says = f"Note: {subject} was taken for an image of docker.io; a stream's tag is NAMESPACE/{subject}\n"
    assert (says in capsys.readouterr().out) is hint


DATA = Path(__file__).parents[1] / "data" / "explain"
SEARCH = DATA / "search-registries.yaml"


@pytest.mark.parametrize("subject", ["busybox:latest", f"busybox@sha256:{'a' * 64}", f"library/busybox@sha256:{'a' * 64}"])
def test_a_name_without_a_registry_is_looked_for_where_nodes_do(
    subject: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Image config's list takes the place of docker.io, and all of it is told, in its order."""
    assert main(["explain", subject, "--file", str(SEARCH)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"quay.io/{subject}\n")
    assert f"Note: a node looks for {subject} in quay.io/{subject} (containerRuntimeSearchRegistries of the Image config)" in out
    assert "docker.io" not in out
    two = tmp_path / "two.yaml"
    two.write_text(SEARCH.read_text().replace("[quay.io]", "[registry.access.redhat.com, docker.io]"))
    assert main(["explain", subject, "--file", str(two), "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    hub = f"docker.io/{subject}" if subject.startswith("library/") else f"docker.io/library/{subject}"
    red_hat = f"registry.access.redhat.com/{subject}"
    assert [found["reference"] for found in document["explanations"]] == [red_hat, hub]
    assert f"in {red_hat}, then {hub} (" in document["notes"][0]


@pytest.mark.parametrize("subject", ["quay.io/busybox:latest", "docker.io/busybox:latest", "localhost/busybox:1"])
def test_a_name_with_a_registry_is_looked_for_there(subject: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the list is."""
    assert main(["explain", subject, "--file", str(SEARCH)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(subject.partition("/")[0])
    assert "looks for" not in out


@pytest.mark.parametrize(
    ("subject", "file", "failure"),
    [
        ("web/a:403", "not-found-in-a-page.yaml", "HTTP 403"),
        ("web/a:404", "not-found-in-a-page.yaml", "HTTP 404"),
        ("web/a:other404", "not-found-in-a-page.yaml", "HTTP 404"),
        ("web/a:1", "not-a-registry.yaml", "HTTP 404 Not Found"),
    ],
)
def test_what_is_no_registry_said_nothing_about_the_image(
    subject: str, file: str, failure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its page says: the mirrors are tried."""
    assert main(["explain", subject, "--file", str(DATA / file)]) == 0
    out = capsys.readouterr().out
    assert "finds it in no mirror yet, and retries (not-a-registry)\n" in out
    assert f"failure:      no registry answered: {failure}\n" in out
    assert f"  1. mirror.example.com:5000/up/{subject.removeprefix('web/')}" in out


def test_the_reference_is_told_that_is_recorded_for_this_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a source that times out it is the mirror's, and without a failure the source's."""
    text = (DATA / "not-a-registry.yaml").read_text()
    timed_out = tmp_path / "timed-out.yaml"
    timed_out.write_text(re.sub(r'endpoint .*Found\)"', 'net/http: TLS handshake timeout"', text))
    for subject, recorded in (("web/a:1", "mirror.example.com:5000/up/a"), ("registry.example.org/a:1", "registry.example.org/a")):
        assert main(["explain", subject, "--file", str(timed_out)]) == 0
        assert f"  and records {recorded}@DIGEST\n" in capsys.readouterr().out
