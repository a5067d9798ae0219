"""The test bed's service accounts get pull secrets as the platform's do: late, named before they are filled, long names cut."""

import base64
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError, Client

from e2e.testbed.controllers.pull_secrets import (
    FILLED_AFTER,
    NAMED_AFTER,
    fnv1a,
    has_pull_secret,
    is_filled,
    name_now,
    named_secret,
    secret_prefix,
    token_for,
)
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.waiting import wait_for

HOST = "image-registry.test:5000"
CONFIG = "/apis/config.openshift.io/v1/images/cluster"
Object = dict[str, Any]


@pytest.fixture
def client() -> Iterator[Client]:
    """An administrator of a cluster with an internal registry."""
    with Simulator(Settings(internal_registry=HOST), pull_secrets=True) as simulator:
        yield simulator.client("test")


def make(client: Client, namespace: str, **annotations: str) -> None:
    """Create a namespace."""
    metadata = {"name": namespace, "annotations": annotations}
    client.request("POST", "/api/v1/namespaces", body={"metadata": metadata})


def account(client: Client, namespace: str, name: str = "default") -> Object:
    """A service account once it is there."""
    found: list[Object] = wait_for(
        f"account {name}",
        lambda: [
            item
            for item in client.get(f"/api/v1/namespaces/{namespace}/serviceaccounts")["items"]
            if item["metadata"]["name"] == name
        ],
    )
    return found[0]


def named(client: Client, namespace: str) -> Object:
    """The account's secret, once the account names it and it is there."""
    secret = wait_for("the secret is named", lambda: named_secret(account(client, namespace, "default")))

    def there() -> Object | None:
        secrets = client.get(f"/api/v1/namespaces/{namespace}/secrets")["items"]
        return next((found for found in secrets if found["metadata"]["name"] == secret), None)

    found: Object = wait_for("the secret is there", there)
    return found


def pod(client: Client, namespace: str, **spec: Any) -> Object:
    """Create a pod."""
    body = {"metadata": {"generateName": "p-"}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}
    made: Object = client.request("POST", f"/api/v1/namespaces/{namespace}/pods", body=body)
    return made


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        pytest.param("default", "default-dockercfg-", id="short"),
        pytest.param("a" * 47, "a" * 47 + "-dockercfg-", id="47-letters-stay"),
        pytest.param("a" * 48, "a" * 38 + f"-{fnv1a('a' * 48):08x}-dockercfg-", id="48-letters-are-cut"),
    ],
)
def test_the_secrets_name(name: str, prefix: str) -> None:
    """At most 38 letters and a hash of the account's name."""
    assert secret_prefix(name) == prefix


@pytest.mark.parametrize(("text", "value"), [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)])
def test_the_hash(text: str, value: int) -> None:
    """FNV-1a of 32 bits, by its authors' test vectors."""
    assert fnv1a(text) == value


def test_an_account_names_its_secret_before_it_is_filled(client: Client) -> None:
    """A pod of that moment has the name; the content is for the registry, with a token of the account."""
    make(client, "team", **{NAMED_AFTER: "0", FILLED_AFTER: "5"})
    secret = named(client, "team")
    assert secret["type"] == "kubernetes.io/dockercfg"
    assert not is_filled(secret)
    assert pod(client, "team")["spec"]["imagePullSecrets"] == [{"name": secret["metadata"]["name"]}]
    wait_for("it is filled", partial(has_pull_secret, client, "team"))
    filled = named(client, "team")
    content = json.loads(base64.b64decode(filled["data"][".dockercfg"]))
    assert {host: list(entry) for host, entry in content.items()} == {HOST: ["auth"]}, "as the platform writes it"
    review = {"spec": {"token": token_for(HOST, filled)}}
    status = client.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=review)["status"]
    assert status["user"]["username"] == "system:serviceaccount:team:default"


def test_a_pod_before_the_secret_is_named_never_gets_it(client: Client) -> None:
    """Admission copies the list of that moment; what a pod names itself it keeps."""
    make(client, "team", **{NAMED_AFTER: "3600"})
    account(client, "team")
    early = pod(client, "team")
    assert "imagePullSecrets" not in early["spec"]
    assert early["spec"]["serviceAccountName"] == "default"
    name_now(client, "team")
    named(client, "team")
    assert "imagePullSecrets" not in client.get(f"/api/v1/namespaces/team/pods/{early['metadata']['name']}")["spec"]
    assert pod(client, "team")["spec"]["imagePullSecrets"]
    assert pod(client, "team", imagePullSecrets=[{"name": "own"}])["spec"]["imagePullSecrets"] == [{"name": "own"}]


def test_a_pod_of_an_account_that_is_not_there_is_refused(client: Client) -> None:
    """As kube-apiserver's plugin says it."""
    make(client, "team")
    account(client, "team")
    with pytest.raises(ApiError, match='service account team/other: serviceaccount "other" not found') as refused:
        pod(client, "team", serviceAccountName="other")
    assert refused.value.status == 403


def test_every_account_gets_one_however_many_come_at_once(client: Client) -> None:
    """Also when somebody else changes the account in between, and when its list is overwritten afterwards."""
    make(client, "team")
    path = "/api/v1/namespaces/team/serviceaccounts"
    names = [f"account-{number}" for number in range(20)]
    for name in names:
        client.request("POST", path, body={"metadata": {"name": name}})
        label = {"metadata": {"labels": {"a": "b"}}}
        client.request("PATCH", f"{path}/{name}", body=label, content_type="application/merge-patch+json")
    for name in [*names, "default"]:
        wait_for(f"{name} has its secret", partial(has_pull_secret, client, "team", name))
    secret = named_secret(account(client, "team", names[0]))
    without = {"imagePullSecrets": None}
    client.request("PATCH", f"{path}/{names[0]}", body=without, content_type="application/merge-patch+json")
    wait_for("it is named again", lambda: named_secret(account(client, "team", names[0])) == secret)
    assert len(client.get("/api/v1/namespaces/team/secrets")["items"]) == len(names) + 1


def test_without_an_internal_registry_there_are_none_until_it_appears(client: Client) -> None:
    """They are for that registry."""
    config = client.get(CONFIG)
    client.request("PUT", f"{CONFIG}/status", body={**config, "status": {}})
    make(client, "without")
    account(client, "without")
    make(client, "other", **{NAMED_AFTER: "0"})
    account(client, "other")
    assert not client.get("/api/v1/secrets")["items"]
    client.request("PUT", f"{CONFIG}/status", body={**client.get(CONFIG), "status": {"internalRegistryHostname": HOST}})
    for namespace in ("without", "other"):
        wait_for("they have their secrets", partial(has_pull_secret, client, namespace))
