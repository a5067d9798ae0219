"""`explain --as-pod`: what the webhook would do, on files and on a cluster, in the same words as the audit annotation."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.kube.client import ApiError, load_client
from mirrorstream_cli.main import main

from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.simulator import Simulator
from tests.webhook.builders import MIRROR_SET, REGISTRY, SOURCE, digest, image_config, imported, tag

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
    return yaml.safe_dump_all([MIRROR_SET, image_config(), stream, *more])


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
        "  Way:     registry\n"
        "  Tag:     openshift/app:v1\n"
        "Note: decided with the default configuration\n"
        "Note: files do not say whether the service account may pull, and has its pull secret: taken for granted\n"
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
        "way": "",
        "other": f"digest: ImagePolicy team/signed would not check {SOURCE}@{digest(1)} as it checks {V1}",
    }
    assert document["notes"][0] == "decided with the default configuration"


def test_on_a_cluster_the_right_to_pull_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the namespace's label counts."""
    entry, status = tag("v1", V1, imported(1))
    with Simulator(Settings(internal_registry=REGISTRY)) as simulator:
        kubeconfig = str(simulator.write_kubeconfig(tmp_path / "kubeconfig"))
        client = load_client(kubeconfig, in_cluster=False)
        streams = "/apis/image.openshift.io/v1/namespaces/openshift/imagestreams"
        for name in ("openshift", "team"):
            client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
        account = {"metadata": {"name": "builder"}, "imagePullSecrets": [{"name": "builder-dockercfg-x7k2p"}]}
        client.request("POST", "/api/v1/namespaces/team/serviceaccounts", body=account)
        client.request("POST", "/apis/config.openshift.io/v1/imagedigestmirrorsets", body=MIRROR_SET)
        annotations = {"openshift.io/image.dockerRepositoryCheck": "x"}
        made = client.request("POST", streams, body={"metadata": {"name": "app", "annotations": annotations}, "spec": {}})
        made["spec"]["tags"], made["status"]["tags"] = [entry], [status]
        client.request("PUT", f"{streams}/app", body=made)
        made = client.get(f"{streams}/app")
        made["status"]["tags"] = [{**status, "items": [{**status["items"][0], "generation": 100}]}]
        client.request("PUT", f"{streams}/app/status", body=made)

        def answer() -> Any:
            of_pod = ["--as-pod", "-n", "team", "--service-account", "builder"]
            assert main(["explain", V1, *of_pod, "--kubeconfig", kubeconfig, "-o", "json"]) == 0
            return json.loads(capsys.readouterr().out)["pod"]

        assert answer()["image"] == f"{REGISTRY}/openshift/app@{digest(1)}"
        denied = {"metadata": {"name": "denied"}, "data": {"user": "system:serviceaccount:team:builder"}}
        client.request("POST", "/api/v1/namespaces/openshift/configmaps", body=denied)
        assert answer()["reason"] == "team/builder may not get imagestreams/layers of the stream in openshift"
        label = {"metadata": {"labels": {"mirrorstream.github.io/rewrite": "disabled"}}}
        client.request("PATCH", "/api/v1/namespaces/team", body=label, content_type="application/merge-patch+json")
        assert answer()["result"] == "opted-out"


class Answers:
    """An API server's answers by path: a document, or the status that it refuses with."""

    server = "https://api"

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers

    def get(self, path: str) -> Any:
        """As the client's."""
        found = self._answers.get(path, 404)
        if isinstance(found, int):
            raise ApiError(found, "Forbidden" if found == 403 else "NotFound", f"{path} is refused")
        return found

    def request(self, method: str, path: str, **more: Any) -> Any:
        """Lists, whose further pages are at `PATH?TOKEN`, and access reviews."""
        if method == "GET":
            token = more.get("params", {}).get("continue")
            return more["decode"](json.dumps(self.get(f"{path}?{token}" if token else path)).encode())
        if isinstance(answer := self._answers.get(path, {"status": {"allowed": True}}), int):
            raise ApiError(answer, "Forbidden", f"{path} is refused")
        return more["decode"](json.dumps(answer).encode())


STREAMS = "/apis/image.openshift.io/v1/namespaces/{}/imagestreams"
MIRROR_SETS = "/apis/config.openshift.io/v1/imagedigestmirrorsets"
CONTROLLER = "/apis/apps/v1/namespaces/mirrorstream/deployments/mirrorstream-controller"
CONFIG = "/api/v1/namespaces/mirrorstream/configmaps/mirrorstream-config"
NAMESPACE = "/api/v1/namespaces/team"
ACCOUNT = "/api/v1/namespaces/team/serviceaccounts/default"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def cluster(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
    """A cluster with a healed stream in `openshift`, an internal registry, and other answers."""
    documents = list(yaml.safe_load_all(objects()))
    found = {
        MIRROR_SETS: {"items": [documents[0]]},
        "/apis/config.openshift.io/v1/images": {"items": [documents[1]]},
        STREAMS.format("openshift"): {"items": [documents[2]]},
        STREAMS.format("team"): {"items": []},
        NAMESPACE: {"metadata": {}},
        ACCOUNT: {"imagePullSecrets": [{"name": "default-dockercfg-x7k2p"}]},
        CONFIG: {"data": {"config.yaml": ""}},
    }
    client = Answers({**found, **answers})
    monkeypatch.setattr("mirrorstream_cli.commands.explain_as_pod.load_client", lambda kubeconfig, context, user_agent: client)


def asked(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, Any, str]:
    """Exit status, document and error of explain on the cluster."""
    status = main(["explain", V1, "--as-pod", "-n", "team", "-o", "json", *more])
    captured = capsys.readouterr()
    return status, json.loads(captured.out) if captured.out else None, captured.err


def test_it_decides_with_the_clusters_own_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The ConfigMap that the webhook reads, or a file that is given; without either the default, and that is said."""
    by_registry, by_digest = f"{REGISTRY}/openshift/app@{digest(1)}", f"{SOURCE}@{digest(1)}"
    only_digest = "webhook: {serveFrom: [digest]}"
    cluster(monkeypatch, **{CONFIG: {"data": {"config.yaml": only_digest}}})
    status, document, _ = asked(capsys)
    assert (status, document["pod"]["image"], document["pod"]["way"], document["notes"]) == (0, by_digest, "digest", [])
    path = tmp_path / "config.yaml"
    path.write_text("webhook: {serveFrom: [registry]}")
    assert asked(capsys, "--config", str(path))[1]["pod"]["image"] == by_registry
    path.write_text("webhook: {serveFrom: [registry, registry]}")
    status, _, error = asked(capsys, "--config", str(path))
    assert (status, error.count("\n")) == (1, 1)
    assert "webhook.serveFrom: each way at most once" in error
    cluster(monkeypatch, **{CONFIG: 403})
    _, document, _ = asked(capsys)
    assert document["notes"] == [
        "decided with the default configuration, since the ConfigMap of mirrorstream's configuration cannot be read"
    ]


def test_lists_are_read_to_their_last_page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The stream that decides may be anywhere in them."""
    path = STREAMS.format("openshift")
    streams = list(yaml.safe_load_all(objects()))[2:]
    cluster(monkeypatch, **{path: {"metadata": {"continue": "next"}, "items": []}, f"{path}?next": {"items": streams}})
    assert asked(capsys)[1]["pod"]["result"] == "rewritten"


def test_the_namespaces_label_decides(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It may opt out. Without the right to read it nobody can tell, and without the namespace there is no pod."""
    cluster(monkeypatch, **{NAMESPACE: {"metadata": {"labels": {"mirrorstream.github.io/rewrite": "disabled"}}}})
    assert asked(capsys)[1]["pod"]["result"] == "opted-out"
    cluster(monkeypatch, **{NAMESPACE: 403})
    status, document, error = asked(capsys)
    assert (status, document) == (1, None)
    assert "you may not get namespace team, whose label may opt out" in error
    cluster(monkeypatch, **{NAMESPACE: 404})
    status, document, error = asked(capsys)
    assert (status, document, error.count("\n")) == (1, None, 1)


def test_the_accounts_own_pull_secrets_decide(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An account that has none yet; and one that the caller may not read, which is said."""
    cluster(monkeypatch, **{ACCOUNT: {}, REVIEWS: {"status": {"allowed": True}}})
    assert asked(capsys)[1]["pod"]["way"] == "registry", "anybody may pull there"
    cluster(monkeypatch, **{ACCOUNT: {}, REVIEWS: {"status": {"allowed": False}}})
    assert asked(capsys)[1]["pod"]["result"] == "pull-secrets"
    cluster(monkeypatch, **{ACCOUNT: 403})
    _, document, _ = asked(capsys)
    assert document["pod"]["way"] == "registry"
    assert document["notes"] == [
        f"whether service account default has its pull secret is not known, and taken for granted: {ACCOUNT} is refused"
    ]


@pytest.mark.parametrize("letters", [47, 48, 63])
def test_a_pull_secret_that_is_taken_for_granted_is_one_of_the_account(
    letters: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Also where the platform shortens the account's name in it: in files, and where the caller may not read the account."""
    account = ["--service-account", "a" * letters]
    cluster(monkeypatch, **{ACCOUNT.replace("default", "a" * letters): 403})
    assert asked(capsys, *account)[1]["pod"]["way"] == "registry"
    path = tmp_path / "objects.yaml"
    path.write_text(objects())
    assert asked(capsys, *account, "--file", str(path))[1]["pod"]["way"] == "registry"


@pytest.mark.parametrize("versions", [("v1",), ("v1alpha1",), ("v1", "v1alpha1"), ()], ids=str)
@pytest.mark.parametrize("path", ["clusterimagepolicies", "namespaces/team/imagepolicies"])
def test_signature_policies_count_in_the_version_that_the_cluster_has(
    versions: tuple[str, ...], path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second only before OpenShift 4.20, both where they are served together, and none where there are no such kinds."""
    policies = {"items": [{"metadata": {"name": "signed"}, "spec": {"scopes": [SOURCE]}}]}
    cluster(monkeypatch, **{f"/apis/config.openshift.io/{version}/{path}": policies for version in versions})
    status, document, _ = asked(capsys)
    assert status == 0
    assert document["pod"]["result"] == ("signature-policy" if versions else "rewritten")


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        pytest.param(STREAMS.format("team"), "list imagestreams in team", id="streams"),
        pytest.param(STREAMS.format("openshift"), "list imagestreams in openshift", id="shared-streams"),
        pytest.param(MIRROR_SETS, "list imagedigestmirrorsets.config.openshift.io", id="mirror-sets"),
        pytest.param(
            "/apis/config.openshift.io/v1/namespaces/team/imagepolicies",
            "list imagepolicies.config.openshift.io in team",
            id="policies",
        ),
        pytest.param(REVIEWS, "create subjectaccessreviews", id="access"),
    ],
)
def test_what_the_caller_may_not_read_is_never_taken_for_none(
    path: str, missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It cannot tell, says which right is missing, and exits 1."""
    cluster(monkeypatch, **{path: 403})
    status, document, error = asked(capsys)
    assert (status, document, error.count("\n")) == (1, None, 1)
    assert f"cannot tell what the webhook would do: you may not {missing}" in error


@pytest.mark.parametrize(
    ("status", "arguments", "says"),
    [
        (2, ["explain", V1, "--as-pod"], "--as-pod needs the pod's namespace"),
        (1, ["explain", "team/Not-Valid", "--as-pod", "-n", "team"], "'team/Not-Valid' is not an image"),
        (1, ["explain", V1, "--as-pod", "-n", "team", "--file", "/nowhere"], "/nowhere"),
    ],
)
def test_what_is_wrong_is_one_line(status: int, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, and 2 for wrong usage."""
    assert main(arguments) == status
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
        (
            ["webhook", "--insecure", "--metrics-tls-cert-file", "x"],
            "--metrics-tls-cert-file and --metrics-tls-key-file go together",
        ),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage: one line, exit status 2."""
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_the_webhook_says_what_it_cannot_start_with(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit status 1."""
    assert main(["webhook", "--insecure", "--kubeconfig", "/nowhere"]) == 1
    assert "/nowhere" in capsys.readouterr().err


def test_the_configuration_is_the_one_that_the_controller_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under OLM, users keep theirs in a ConfigMap of another name, and the default one stays in its place."""
    volumes = [{"name": "tmp", "emptyDir": {}}, {"name": "configuration", "configMap": {"name": "mine"}}]
    deployment = {"spec": {"template": {"spec": {"volumes": volumes}}}}
    mine = {CONFIG.replace("mirrorstream-config", "mine"): {"data": {"config.yaml": "webhook: {serveFrom: [digest]}"}}}
    cluster(monkeypatch, **{CONTROLLER: deployment, **mine})
    assert asked(capsys)[1]["pod"]["way"] == "digest"
    mine = {CONFIG.replace("mirrorstream-config", "mine"): {"data": {"config.yaml": "webhook: {serveFrom: [nowhere]}"}}}
    cluster(monkeypatch, **{CONTROLLER: deployment, **mine})
    assert "ConfigMap mine: webhook.serveFrom" in asked(capsys)[2]
    cluster(monkeypatch, **{CONTROLLER: 403})
    assert asked(capsys)[1]["notes"] == [
        "you may not get Deployment mirrorstream-controller: the configuration is taken to be in ConfigMap mirrorstream-config"
    ]
