"""`explain --as-pod`: what the webhook would do, on files and on a cluster, in the same words as the audit annotation."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.cli import main
from mirrorstream.kube.client import load_client

from e2e.simulator.settings import Settings
from e2e.simulator.simulator import Simulator
from tests.webhook.builders import MIRROR_SET, REGISTRY, SOURCE, digest, imported, tag

V1 = f"{SOURCE}:v1"


def objects(*more: Any) -> str:
    """A file with a mirror set, a healed stream in `openshift`, and more."""
    entry, status = tag("v1", V1, imported(1))
    stream = {
        "kind": "ImageStream",
        "metadata": {"name": "app", "namespace": "openshift"},
        "spec": {"tags": [entry]},
        "status": {"dockerImageRepository": f"{REGISTRY}/openshift/app", "tags": [status]},
    }
    return yaml.safe_dump_all([MIRROR_SET, stream, *more])


def explain(path: Path, *arguments: str) -> int:
    """Run the command on a file."""
    return main(["explain", *arguments, "--as-pod", "-n", "team", "--file", str(path)])


def test_the_whole_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Read it as a user would."""
    path = tmp_path / "objects.yaml"
    path.write_text(objects())
    assert explain(path, V1) == 0
    assert capsys.readouterr().out == (
        f"{V1}  in a pod of team, as service account default\n"
        f"  Becomes: {REGISTRY}/openshift/app@{digest(1)}\n"
        "  Why:     the tag has this image (rewritten)\n"
        "  Tag:     openshift/app:v1\n"
        "Note: decided with the default configuration\n"
        "Note: files do not say whether the service account may pull: taken for granted\n"
    )


def test_programs_get_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the documented names; here with a signature policy in the way."""
    policy = {"kind": "ImagePolicy", "metadata": {"name": "signed", "namespace": "team"}, "spec": {"scopes": [SOURCE]}}
    path = tmp_path / "objects.yaml"
    path.write_text(objects(policy))
    assert explain(path, V1, "--service-account", "builder", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["pod"] == {
        "reference": V1,
        "namespace": "team",
        "serviceAccount": "builder",
        "result": "signature-policy",
        "reason": "ImagePolicy team/signed guards it, which would not see the internal registry's reference",
        "stream": "openshift/app:v1",
        "image": V1,
    }
    assert document["notes"] == ["decided with the default configuration"]


def test_on_a_cluster_the_right_to_pull_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the namespace's label counts."""
    entry, status = tag("v1", V1, imported(1))
    with Simulator(Settings(internal_registry=REGISTRY)) as simulator:
        kubeconfig = str(simulator.write_kubeconfig(tmp_path / "kubeconfig"))
        client = load_client(kubeconfig, in_cluster=False)
        streams = "/apis/image.openshift.io/v1/namespaces/openshift/imagestreams"
        for name in ("openshift", "team"):
            client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
        client.request("POST", "/apis/config.openshift.io/v1/imagedigestmirrorsets", body=MIRROR_SET)
        annotations = {"openshift.io/image.dockerRepositoryCheck": "x"}
        made = client.request("POST", streams, body={"metadata": {"name": "app", "annotations": annotations}, "spec": {}})
        made["spec"]["tags"], made["status"]["tags"] = [entry], [status]
        client.request("PUT", f"{streams}/app", body=made)
        made = client.get(f"{streams}/app")
        made["status"]["tags"] = [{**status, "items": [{**status["items"][0], "generation": 100}]}]
        client.request("PUT", f"{streams}/app/status", body=made)

        def answer() -> Any:
            assert main(["explain", V1, "--as-pod", "-n", "team", "--kubeconfig", kubeconfig, "-o", "json"]) == 0
            return json.loads(capsys.readouterr().out)["pod"]

        assert answer()["image"] == f"{REGISTRY}/openshift/app@{digest(1)}"
        denied = {"metadata": {"name": "denied"}, "data": {"user": "system:serviceaccount:team:default"}}
        client.request("POST", "/api/v1/namespaces/openshift/configmaps", body=denied)
        assert answer()["reason"] == "team/default may not get imagestreams/layers in openshift"
        label = {"metadata": {"labels": {"mirrorstream.github.io/rewrite": "disabled"}}}
        client.request("PATCH", "/api/v1/namespaces/team", body=label, content_type="application/merge-patch+json")
        assert answer()["result"] == "opted-out"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", V1, "--as-pod"], "--as-pod needs the pod's namespace"),
        (["explain", "team/Not-Valid", "--as-pod", "-n", "team"], "'team/Not-Valid' is not an image"),
        (["explain", V1, "--as-pod", "-n", "team", "--file", "/nowhere"], "/nowhere"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1."""
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["webhook"], "give one of: --tls-cert-file with --tls-key-file, --self-signed, --insecure"),
        (["webhook", "--self-signed", "--insecure"], "give one of: --tls-cert-file with --tls-key-file, --self-signed, --insecure"),
        (["webhook", "--self-signed"], "--self-signed and --webhook-configuration go together"),
        (["webhook", "--insecure", "--webhook-configuration", "x"], "--self-signed and --webhook-configuration go together"),
        (["webhook", "--tls-cert-file", "x"], "--tls-cert-file and --tls-key-file go together"),
        (["webhook", "--insecure", "--kubeconfig", "/nowhere"], "/nowhere"),
        (
            ["webhook", "--insecure", "--metrics-tls-cert-file", "x"],
            "--metrics-tls-cert-file and --metrics-tls-key-file go together",
        ),
    ],
)
def test_the_webhook_says_what_it_cannot_start_with(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit status 1."""
    assert main(arguments) == 1
    assert says in capsys.readouterr().err
