"""The simulator's generic half, and what of the image API no recording shows; kubectl is its judge where there is one."""

import base64
import http.server
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError, ApiUnreachable, Client, load_client

from e2e.testbed.registries.registry import Registry
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.waiting import wait_for

IS = "/apis/image.openshift.io/v1/namespaces/ns/imagestreams"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A cluster."""
    with Simulator() as found:
        yield found


@pytest.fixture
def client(simulator: Simulator, tmp_path: Path) -> Client:
    """A client of it."""
    return load_client(str(simulator.write_kubeconfig(tmp_path / "kubeconfig")), in_cluster=False, user_agent="test")


def test_kubectl_works_with_it(client: Client, tmp_path: Path) -> None:
    """create, get, apply, patch, describe, delete."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    (tmp_path / "stream.json").write_text(
        json.dumps({"apiVersion": "image.openshift.io/v1", "kind": "ImageStream", "metadata": {"name": "app"}, "spec": {}})
    )

    def kubectl(*arguments: str) -> str:
        command = ["kubectl", "--kubeconfig", str(tmp_path / "kubeconfig"), "--cache-dir", str(tmp_path / "cache"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "namespace.json").write_text(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}}))
    kubectl("create", "--validate=false", "-f", str(tmp_path / "namespace.json"))
    kubectl("-n", "ns", "apply", "--validate=false", "-f", str(tmp_path / "stream.json"))
    assert "unchanged" in kubectl("-n", "ns", "apply", "--validate=false", "-f", str(tmp_path / "stream.json"))
    kubectl("-n", "ns", "patch", "imagestream", "app", "--type=merge", "-p", '{"metadata":{"labels":{"a":"b"}}}')
    assert "app" in kubectl("-n", "ns", "get", "is", "-l", "a=b")
    assert "app" in kubectl("-n", "ns", "describe", "imagestream", "app")
    kubectl("-n", "ns", "delete", "imagestream", "app")
    assert "app" not in kubectl("-n", "ns", "get", "is", "--ignore-not-found")


def test_pages_come_from_one_moment_and_expire(client: Client) -> None:
    """Limit and continue; a compaction ends them."""
    for name in "abcde":
        client.request("POST", "/api/v1/namespaces/ns/configmaps", body={"metadata": {"name": name}})
    page = client.get("/api/v1/namespaces/ns/configmaps", {"limit": "2"})
    assert [item["metadata"]["name"] for item in page["items"]] == ["a", "b"]
    assert page["metadata"]["remainingItemCount"] == 3
    token = page["metadata"]["continue"]
    before = client.get("/api/v1/namespaces/ns/configmaps/d")
    client.request("DELETE", "/api/v1/namespaces/ns/configmaps/c")
    client.request("PUT", "/api/v1/namespaces/ns/configmaps/d", body={"metadata": {"name": "d"}, "data": {"a": "b"}})
    client.request("POST", "/api/v1/namespaces/ns/configmaps", body={"metadata": {"name": "cc"}})
    client.request("POST", "/api/v1/namespaces/other/configmaps", body={"metadata": {"name": "e"}})
    page = client.get("/api/v1/namespaces/ns/configmaps", {"limit": "9", "continue": token})
    assert [item["metadata"]["name"] for item in page["items"]] == ["c", "d", "e"]
    assert page["items"][1]["metadata"] == before["metadata"]
    client.request("POST", "/api/v1/namespaces/ns/configmaps", body={"metadata": {"name": "f"}})
    client.request("POST", "/simulator/compact")
    with pytest.raises(ApiError) as error:
        client.get("/api/v1/namespaces/ns/configmaps", {"continue": token})
    assert error.value.status == 410


def test_a_list_is_not_sent_as_a_watch(client: Client) -> None:
    """As an API server without the feature WatchList: a client has to list first."""
    query = {"watch": "1", "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    with pytest.raises(ApiError) as caught:
        client.watch(IS, query, read_timeout=5)
    assert caught.value.status == 422
    assert "unless the WatchList feature gate is enabled" in caught.value.message


def test_a_restored_backup_has_its_version_and_is_silent_to_later_watches(simulator: Simulator, client: Client) -> None:
    """As etcd and kube-apiserver: a watch from a version that is still to come gets neither events nor bookmarks until then."""
    path = "/api/v1/namespaces/ns/configmaps"

    def create(name: str) -> int:
        made = client.request("POST", path, body={"metadata": {"name": name}})
        return int(made["metadata"]["resourceVersion"])

    create("before")
    client.request("POST", "/simulator/back-up")
    for name in ("lost-1", "lost-2"):
        last = create(name)
    client.request("POST", "/simulator/restore")
    found = client.get(path)
    assert ([item["metadata"]["name"] for item in found["items"]], found["metadata"]["resourceVersion"]) == (
        ["before"],
        str(last - 2),
    )
    watch = client.watch(path, {"watch": "1", "resourceVersion": str(last), "timeoutSeconds": "20"}, read_timeout=20)
    assert [create(f"later-{number}") for number in range(3)] == [last - 1, last, last + 1]
    assert json.loads(next(iter(watch)))["object"]["metadata"]["name"] == "later-2"
    watch.close()


@pytest.mark.parametrize(
    ("selector", "found"),
    [("a=1", "x"), ("a!=1", "yz"), ("a in (1,2)", "xy"), ("a notin (1)", "yz"), ("a", "xy"), ("!a", "z"), ("a,b", "y")],
)
def test_label_selectors(client: Client, selector: str, found: str) -> None:
    """As lists and watches take them."""
    for name, labels in (("x", {"a": "1"}), ("y", {"a": "2", "b": "1"}), ("z", {})):
        client.request("POST", "/api/v1/namespaces/ns/configmaps", body={"metadata": {"name": name, "labels": labels}})
    items = client.get("/api/v1/namespaces/ns/configmaps", {"labelSelector": selector})["items"]
    assert "".join(item["metadata"]["name"] for item in items) == found


def test_faults_are_used_up(client: Client) -> None:
    """And one that is misspelt is an error."""
    client.request("POST", "/simulator/faults", body={"verb": "list", "path": "configmaps", "times": 1, "action": {"status": 500}})
    with pytest.raises(ApiError):
        client.get("/api/v1/configmaps")
    assert client.get("/api/v1/configmaps")["items"] == []
    client.request("POST", "/simulator/faults", body={"verb": "create", "action": {"loseAnswer": True}, "times": 1})
    with pytest.raises(ApiUnreachable):
        client.request("POST", "/api/v1/namespaces/ns/configmaps", body={"metadata": {"name": "a"}})
    assert len(client.get("/api/v1/configmaps")["items"]) == 1
    with pytest.raises(ApiError, match="unknown field of a fault: verbs"):
        client.request("POST", "/simulator/faults", body={"verbs": "list", "action": {}})


def test_what_the_platform_does_to_a_followed_tag(client: Client) -> None:
    """Adding a tag that follows another gives the other's item its generation: seen on the real API."""
    reference = {"name": "v1", "from": {"kind": "DockerImage", "name": "a.io/b/c:v1"}, "reference": True}
    client.request("POST", IS, body={"metadata": {"name": "app"}, "spec": {"tags": [reference]}})
    stream = client.get(f"{IS}/app")
    stream["spec"]["tags"].append({"name": "latest", "from": {"kind": "ImageStreamTag", "name": "v1"}})
    changed = client.request("PUT", f"{IS}/app", body=stream)
    assert [(t["tag"], t["items"][0]["generation"]) for t in changed["status"]["tags"]] == [("latest", 2), ("v1", 2)]


def test_a_stream_is_not_updated_without_its_version(client: Client) -> None:
    """An unconditional PUT of a stream is invalid."""
    client.request("POST", IS, body={"metadata": {"name": "app"}})
    with pytest.raises(ApiError, match="must be specified for an update"):
        client.request("PUT", f"{IS}/app", body={"metadata": {"name": "app"}})


class Webhook(http.server.BaseHTTPRequestHandler):
    """Adds a label to pods, or denies those called `bad`."""

    def do_POST(self) -> None:
        """Answer a review."""
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
        patch = [{"op": "add", "path": "/metadata/labels", "value": {"seen": review["operation"].lower()}}]
        response: dict[str, Any] = {"uid": review["uid"], "allowed": review["name"] != "bad"}
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
        data = json.dumps({"response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Say nothing."""


def test_pods_go_through_registered_webhooks(client: Client) -> None:
    """Patched, denied, and, with failurePolicy Ignore, let through when nobody answers."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    rules = [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]
    webhook = {"name": "w", "rules": rules, "failurePolicy": "Ignore", "timeoutSeconds": 3}
    webhook["clientConfig"] = {"url": f"http://127.0.0.1:{server.server_address[1]}/"}
    client.request("POST", path, body={"metadata": {"name": "w"}, "webhooks": [webhook]})
    pods = "/api/v1/namespaces/ns/pods"
    client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": "ns"}})
    wait_for("the default account", lambda: client.get("/api/v1/namespaces/ns/serviceaccounts")["items"])
    assert client.request("POST", pods, body={"metadata": {"name": "good"}})["metadata"]["labels"] == {"seen": "create"}
    with pytest.raises(ApiError, match="denied the request"):
        client.request("POST", pods, body={"metadata": {"name": "bad"}})
    server.shutdown()
    server.server_close()
    assert "labels" not in client.request("POST", pods, body={"metadata": {"name": "other"}})["metadata"]


def test_access_reviews_are_answered(client: Client) -> None:
    """By a ConfigMap that names who is denied."""
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    body = {
        "spec": {
            "user": "u",
            "resourceAttributes": {"namespace": "ns", "verb": "get", "resource": "imagestreams", "subresource": "layers"},
        }
    }
    assert client.request("POST", path, body=body)["status"]["allowed"]
    client.request("POST", "/api/v1/namespaces/ns/configmaps", body={"metadata": {"name": "denied"}, "data": {"x": "u"}})
    assert not client.request("POST", path, body=body)["status"]["allowed"]


def test_streams_can_be_there_as_they_are(client: Client) -> None:
    """A large cluster is made in seconds: nothing is imported, and what failed has failed."""
    condition = {"type": "ImportSuccess", "status": "False", "reason": "InternalError", "message": "refused", "generation": 2}
    spec = [{"name": "v1", "from": {"kind": "DockerImage", "name": "registry.example.com/app:v1"}, "generation": 2}]
    policies = {"importPolicy": {}, "referencePolicy": {"type": "Local"}}
    stream = {
        "metadata": {"name": "app", "namespace": "ns", "generation": 2},
        "spec": {"lookupPolicy": {"local": False}, "tags": [{**spec[0], **policies}]},
        "status": {"tags": [{"tag": "v1", "items": None, "conditions": [condition]}]},
    }
    client.request("POST", "/simulator/streams", body={"items": [stream]})
    found = client.get(f"{IS}/app")
    assert found["status"]["tags"] == stream["status"]["tags"]  # type: ignore[index]
    assert found["metadata"]["uid"]


def test_a_tag_is_imported_on_schedule_as_long_as_it_says_so(tmp_path: Path) -> None:
    """Also one that was there before it was scheduled; and no more once it is not."""
    with Registry() as registry:
        registry.put("app", "v1")
        insecure = {"registrySources": {"insecureRegistries": [registry.host]}}
        with Simulator(Settings(insecure, scheduled_interval=0.3)) as simulator:
            path = simulator.write_kubeconfig(tmp_path / "kubeconfig")
            client = load_client(str(path), in_cluster=False, user_agent="test")
            tag = {"name": "v1", "from": {"kind": "DockerImage", "name": f"{registry.host}/app:v1"}}
            client.request("POST", IS, body={"metadata": {"name": "app"}, "spec": {"tags": [tag]}})
            wait_for("it is imported", lambda: client.get(f"{IS}/app")["status"].get("tags"))

            def schedule(scheduled: bool) -> None:
                patch = [{"op": "add", "path": "/spec/tags/0/importPolicy/scheduled", "value": scheduled}]
                client.request("PATCH", f"{IS}/app", body=patch, content_type="application/json-patch+json")

            once = registry.requests["app"]
            schedule(True)
            wait_for("it is imported again and again", lambda: registry.requests["app"] >= once + 3)
            schedule(False)
            wait_for("it is left alone", lambda: _quiet(registry, 1.0))


def _quiet(registry: Registry, seconds: float) -> bool:
    """Whether nobody asks the registry for so long."""
    before = registry.requests["app"]
    time.sleep(seconds)
    return registry.requests["app"] == before
