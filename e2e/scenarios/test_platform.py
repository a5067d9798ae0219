"""The cluster that scenarios run on behaves as OpenShift does, whichever back end it is: without this the others prove nothing."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import JSON_PATCH, ApiError, Client

from e2e.scenarios.conftest import Kubelet
from e2e.testbed.backends import EXISTING, Choice
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.controllers.pull_secrets import name_now, token_for
from e2e.testbed.controllers.scc import OWN_RIGHT, SCC, SUBJECT
from e2e.testbed.streams import IMAGE_API, tag
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
NO_IMAGE = f"sha256:{0:064}"


def test_the_internal_registry_comes_and_goes_without_any_change_of_a_stream(own_cluster: Callable[..., Cluster]) -> None:
    """status.dockerImageRepository is computed at each read from the Image config; no resourceVersion tells of it."""
    cluster = own_cluster()
    host = cluster.registry_host
    with cluster.namespace() as ns:
        named = f"{cluster.host('good')}/any/app"
        ns.create("own", tag("v1", ns.source("app:v1")))
        ns.create("named", tag("v1", ns.source("app:v1")), dockerImageRepository=named)
        for name in ("own", "named"):
            ns.wait_failed(name, "v1")

        def shown() -> list[str]:
            return [ns.get(name)["status"]["dockerImageRepository"] for name in ("own", "named")]

        with_registry = [f"{host}/{ns.name}/own", f"{host}/{ns.name}/named"]
        assert shown() == with_registry
        wait_for("the whole repository has been tried", lambda: _checked(ns.get("named")))
        before = [stream["metadata"]["resourceVersion"] for stream in ns.streams()]
        with cluster.registry_absent():
            wait_for("there is no registry", lambda: shown() == ["", named])
        wait_for("the registry is back", lambda: shown() == with_registry)
        assert [stream["metadata"]["resourceVersion"] for stream in ns.streams()] == before


def _checked(stream: dict[str, dict[str, dict[str, str]]]) -> bool:
    return "openshift.io/image.dockerRepositoryCheck" in (stream["metadata"].get("annotations") or {})


def test_an_image_of_a_stream_is_shown_as_it_is_stored(ns: Namespace) -> None:
    """Whoever asks for an ImageStreamImage sees the reference of the first importer; a tag shows its own stream's."""
    digest = ns.put("good", "first:v1", seed=ns.name)
    assert ns.put("good", "second:v1", seed=ns.name) == digest
    for name in ("first", "second"):
        ns.create(name, tag("v1", f"{ns.mirror()}/{name}:v1", referencePolicy={"type": "Source"}))
        ns.wait_healed(name, "v1", digest)

    def shown(kind: str, name: str) -> Object:
        found: Object = ns.client.get(f"{IMAGE_API}/namespaces/{ns.name}/{kind}/{name}")
        return found

    stored = shown("imagestreamimages", f"second@{digest}")
    assert stored["image"]["dockerImageReference"] == f"{ns.mirror()}/first@{digest}"
    assert shown("imagestreamtags", "second:v1")["image"]["dockerImageReference"] == f"{ns.mirror()}/second@{digest}"
    assert stored["metadata"]["creationTimestamp"] == stored["image"]["metadata"]["creationTimestamp"]
    assert shown("imagestreamimages", f"second@{digest[7:20]}")["image"] == stored["image"]
    for name, said in (
        (f"second@{NO_IMAGE}", f'imagestreamimage.image.openshift.io "second@{NO_IMAGE}" not found'),
        (f"none@{NO_IMAGE}", 'imagestreamimages.image.openshift.io "none" not found'),
        ("second", "ImageStreamImages must be retrieved with <name>@<id>"),
    ):
        with pytest.raises(ApiError, match=re.escape(said)):
            shown("imagestreamimages", name)


def test_a_pod_gets_the_pull_secret_that_its_account_has_at_that_moment(cluster: Cluster, chosen: Choice) -> None:
    """A new account has none at first, then one without a token, and a moment later a usable one."""
    if chosen.platform:
        pytest.skip("the platform's own controllers take as long as they take")
    with cluster.namespace(secrets_after=(3600, 0.5)) as ns:
        early = ns.pod("early", "example.com/app:v1", early=True)
        assert not early["spec"].get("imagePullSecrets")
        name_now(ns.client, ns.name)
        pod = ns.pod("late", "example.com/app:v1")
        (entry,) = pod["spec"]["imagePullSecrets"]
        assert entry["name"].startswith("default-dockercfg-")
        assert not ns.client.get(f"/api/v1/namespaces/{ns.name}/pods/early")["spec"].get("imagePullSecrets")


def test_an_accounts_pull_secret_holds_a_token_of_it(ns: Namespace) -> None:
    """With a long name, too: the secret's is cut, the token is the account's."""
    account = "very-long-service-account-name-of-some-application-team"
    ns.make("serviceaccounts", {"metadata": {"name": account}})
    pod = ns.pod("app", "example.com/app:v1", serviceAccountName=account)
    (entry,) = pod["spec"]["imagePullSecrets"]
    assert re.fullmatch(r"very-long-service-account-name-of-some-[0-9a-f]{8}-dockercfg-[a-z0-9]{5}", entry["name"])
    secret = ns.client.get(f"/api/v1/namespaces/{ns.name}/secrets/{entry['name']}")
    review = {"spec": {"token": token_for(ns.cluster.registry_host, secret)}}
    user = ns.client.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=review)["status"]["user"]
    assert user["username"] == f"system:serviceaccount:{ns.name}:{account}"


def test_a_pod_of_an_administrators_own_right_can_be_changed_by_nobody_else(cluster: Cluster, tmp_path: Path) -> None:
    """SecurityContextConstraints admission looks at each change of a pod's spec, and writes down what it found."""
    if cluster.backend == EXISTING:
        pytest.skip("it has the platform's own admission")
    with cluster.namespace(scc=True) as ns:
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "update", "patch"]}]
        account = ns.account("other", rules, tmp_path)
        ns.pod("usual", "example.com/app:v1")
        ns.pod("own-right", "example.com/app:v1", metadata={"annotations": {OWN_RIGHT: "true"}})
        ns.pod("windows", "example.com/app:v1", metadata={"annotations": {OWN_RIGHT: "true"}}, os={"name": "windows"})
        path = f"/api/v1/namespaces/{ns.name}/pods"
        patch = [{"op": "replace", "path": "/spec/containers/0/image", "value": "example.com/app:v2"}]

        def change(client: Client, name: str) -> dict[str, str]:
            answer = client.request("PATCH", f"{path}/{name}", body=patch, content_type=JSON_PATCH)
            assert answer["spec"]["containers"][0]["image"] == "example.com/app:v2"
            return answer["metadata"].get("annotations") or {}

        wait_for("the role is in force", lambda: _may_read(account, f"{path}/usual"))
        before = ns.client.get(f"{path}/usual")["metadata"]["annotations"]
        after = change(account, "usual")
        assert {before[SCC], after[SCC]} == {"restricted-v2"}
        assert (before[SUBJECT], after[SUBJECT]) == ("user", "serviceaccount")
        with pytest.raises(ApiError, match="unable to validate against any security context constraint") as refused:
            change(account, "own-right")
        assert refused.value.status == 403
        assert change(ns.client, "own-right")[SCC] == "anyuid"
        assert SCC not in change(account, "windows")


def _may_read(client: Client, path: str) -> bool:
    try:
        return bool(client.get(path))
    except ApiError as error:
        if error.status != 403:
            raise
        return False


def test_a_pod_hangs_until_its_image_is_one_that_can_be_pulled(ns: Namespace, kubelet: Kubelet) -> None:
    """What scenarios about hanging pods stand on is the same with a real kubelet and without: reasons, and what follows a patch."""
    kubelet(ns)
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    ns.pod("app", ns.source("app:v1"), f"{ns.source('app')}@{digest}")
    path = f"/api/v1/namespaces/{ns.name}/pods/app"

    def waiting() -> Object:
        statuses = (ns.client.get(path).get("status") or {}).get("containerStatuses") or [{}]
        found: Object = (statuses[0].get("state") or {}).get("waiting") or {}
        return found

    wait_for("it is backed off", lambda: waiting().get("reason") == "ImagePullBackOff")
    assert waiting()["message"].startswith(f'Back-off pulling image "{ns.source("app:v1")}"')
    assert ns.client.get(path)["status"]["phase"] == "Pending"
    patch = [{"op": "replace", "path": "/spec/containers/0/image", "value": f"{ns.source('app')}@{digest}"}]
    ns.client.request("PATCH", path, body=patch, content_type=JSON_PATCH)
    wait_for("it runs", lambda: ns.client.get(path)["status"]["phase"] == "Running")
    status = ns.client.get(path)["status"]
    assert [entry["imageID"].rpartition("@")[2] for entry in status["containerStatuses"]] == [digest] * 2
    assert [entry["restartCount"] for entry in status["containerStatuses"]] == [0, 0]


def test_a_pod_pulls_from_the_internal_registry_with_its_secret_only(ns: Namespace, chosen: Choice, kubelet: Kubelet) -> None:
    """A pod from before its account had a secret hangs for good; one from before the secret was filled runs at a later try."""
    if chosen.platform:
        pytest.skip("the platform's own controllers take as long as they take")
    digest = ns.cluster.put("good", f"{ns.name}/app", "v1")
    ns.create("app", tag("v1", ns.source("app:v1", "good"), importPolicy={"insecure": True}))
    ns.wait_healed("app", "v1", digest)
    ns.allow_pulls(everybody=True)
    reference = f"{ns.get('app')['status']['dockerImageRepository']}@{digest}"
    with ns.cluster.namespace(secrets_after=(1, 3)) as other:
        kubelet(other, back_off=0.5)
        path = f"/api/v1/namespaces/{other.name}/pods"

        def phase(name: str) -> str:
            return str((other.client.get(f"{path}/{name}").get("status") or {}).get("phase"))

        def reason(name: str) -> str:
            (status,) = (other.client.get(f"{path}/{name}").get("status") or {}).get("containerStatuses") or [{}]
            return str(((status.get("state") or {}).get("waiting") or {}).get("reason"))

        other.pod("without", reference, early=True)
        accounts = f"/api/v1/namespaces/{other.name}/serviceaccounts/default"
        wait_for("the secret is named", lambda: other.client.get(accounts).get("imagePullSecrets"))
        assert other.pod("empty", reference, early=True)["spec"]["imagePullSecrets"]
        wait_for("it hangs", lambda: reason("empty") in ("ErrImagePull", "ImagePullBackOff"))
        wait_for("it runs", lambda: phase("empty") == "Running")
        assert reason("without") in ("ErrImagePull", "ImagePullBackOff")
        other.pod("with", reference)
        wait_for("it runs, too", lambda: phase("with") == "Running")
