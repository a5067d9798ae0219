"""Pods as workloads and tools make them, on a real API server: controllers, kubectl, server-side apply, other webhooks."""

import base64
import json
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.kube.client import ApiError, Client, load_client

from e2e.scenarios.conftest import Hook, Kubectl, Start
from e2e.testbed.audit import AuditLog
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.installation import with_token
from e2e.testbed.programs.hooks import configuration
from e2e.testbed.programs.installed import healed, settled
from e2e.testbed.roles import account_with
from e2e.testbed.support.certificates import Authority, serving_context
from e2e.testbed.support.serving import EndableServer
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.workloads import images, originals

Object = dict[str, Any]


@pytest.fixture
def app(authorized: Cluster, ns: Namespace, start: Start) -> tuple[str, str]:
    """A healed tag: the reference that users write, and what a pod is to get."""
    ns.allow_pulls()
    return healed(ns, start)


def pods_of(ns: Namespace, label: str) -> list[Object]:
    """The pods with `app=LABEL`."""
    found: list[Object] = ns.client.get(f"/api/v1/namespaces/{ns.name}/pods", {"labelSelector": f"app={label}"}).get("items") or []
    return found


def template(source: str, **spec: Any) -> Object:
    """A pod template with one container."""
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c0", "image": source}], **spec}}


def workload(kind: str, source: str) -> tuple[str, Object]:
    """Where a workload is posted to, and the object."""
    metadata = {"name": "web"}
    selecting = {"selector": {"matchLabels": {"app": "web"}}, "template": template(source)}
    job = {"template": template(source, restartPolicy="Never")}
    return {
        "Deployment": ("apps/v1/deployments", {"metadata": metadata, "spec": {"replicas": 2, **selecting}}),
        "StatefulSet": ("apps/v1/statefulsets", {"metadata": metadata, "spec": {"serviceName": "web", "replicas": 1, **selecting}}),
        "DaemonSet": ("apps/v1/daemonsets", {"metadata": metadata, "spec": selecting}),
        "Job": ("batch/v1/jobs", {"metadata": metadata, "spec": job}),
        "CronJob": ("batch/v1/cronjobs", {"metadata": metadata, "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}}}),
    }[kind]


@pytest.mark.parametrize(("kind", "count"), [("Deployment", 2), ("StatefulSet", 1), ("Job", 1), ("CronJob", 1)])
def test_pods_of_a_workload(kind: str, count: int, ns: Namespace, app: tuple[str, str], hook: Hook, kubectl: Kubectl) -> None:
    """Pods are rewritten, templates are not: nothing fights over what the user applied."""
    source, wanted = app
    hook()
    settled(ns, source, wanted)
    path, body = workload(kind, source)
    ns.make(path, body)
    if kind == "CronJob":
        assert kubectl("create", "job", "now", "--from=cronjob/web").returncode == 0
    wait_for("its pods", lambda: len(pods_of(ns, "web")) == count)
    pods = pods_of(ns, "web")
    assert [images(pod) for pod in pods] == [[wanted]] * count
    assert [originals(pod) for pod in pods] == [{"c0": source}] * count
    group, _, plural = path.rpartition("/")
    stored = ns.client.get(f"/apis/{group}/namespaces/{ns.name}/{plural}/web")
    assert source in json.dumps(stored["spec"])
    assert wanted not in json.dumps(stored["spec"])


def test_kubectl_set_image_and_rollout(ns: Namespace, app: tuple[str, str], hook: Hook, kubectl: Kubectl) -> None:
    """A new image of a Deployment makes new pods, which are looked at like the first ones."""
    source, wanted = app
    hook()
    settled(ns, source, wanted)
    ns.make(*workload("Deployment", "example.com/first:v1"))
    wait_for("the first pods", lambda: len(pods_of(ns, "web")) == 2)
    done = kubectl("set", "image", "deployment/web", f"c0={source}")
    assert done.returncode == 0, done.stderr
    wait_for("a pod with the new image", lambda: any(images(pod) == [wanted] for pod in pods_of(ns, "web")))


def test_kubectl_debug_gets_the_internal_registrys_image(ns: Namespace, app: tuple[str, str], hook: Hook, kubectl: Kubectl) -> None:
    """An ephemeral container, through the subresource, and another one; the pod's own containers stay."""
    source, wanted = app
    webhook = hook()
    settled(ns, source, wanted)
    ns.pod("app", "example.com/other:v1")
    for number in (1, 2):
        done = kubectl("debug", "app", f"--image={source}", f"--container=debugger-{number}", "--attach=false", "--", "true")
        assert done.returncode == 0, done.stderr
        pod = ns.client.get(f"/api/v1/namespaces/{ns.name}/pods/app")
        assert [container["image"] for container in pod["spec"]["ephemeralContainers"]] == [wanted] * number
        assert images(pod) == ["example.com/other:v1"]
    reviews = webhook.metric("mirrorstream_webhook_reviews_total")
    assert kubectl("label", "pod", "app", "a=b").returncode == 0
    assert webhook.metric("mirrorstream_webhook_reviews_total") == reviews


@pytest.mark.parametrize("server_side", [False, True], ids=["client-side", "server-side"])
@pytest.mark.parametrize("kind", ["Pod", "Deployment"])
def test_applying_again_changes_nothing(
    kind: str, server_side: bool, ns: Namespace, app: tuple[str, str], hook: Hook, kubectl: Kubectl, tmp_path: Path
) -> None:
    """`kubectl diff` finds nothing, a second apply changes nothing: GitOps tools do not loop, and no container restarts."""
    source, wanted = app
    hook()
    settled(ns, source, wanted)
    if kind == "Pod":
        document: Object = {"apiVersion": "v1", "kind": "Pod", **template(source)}
        document["metadata"]["name"] = "web"
    else:
        document = {"apiVersion": "apps/v1", "kind": "Deployment", **workload("Deployment", source)[1]}
    manifest = tmp_path / "web.yaml"
    manifest.write_text(yaml.safe_dump(document), encoding="utf-8")
    how = ("--server-side", "--field-manager", "gitops") if server_side else ()
    wait_for("the namespace has its account", lambda: ns.pod("seen", source, dry_run=True))
    done = kubectl("apply", *how, "-f", str(manifest))
    assert done.returncode == 0, done.stderr
    pods = wait_for("its pods", lambda: pods_of(ns, "web"))
    assert images(pods[0]) == [wanted]
    difference = kubectl("diff", *how, "-f", str(manifest))
    assert (difference.returncode, difference.stdout) == (0, ""), difference
    version = pods_of(ns, "web")[0]["metadata"]["generation"]
    again = kubectl("apply", *how, "-f", str(manifest))
    assert again.returncode == 0, again.stderr
    after = pods_of(ns, "web")[0]
    assert (images(after), after["metadata"]["generation"], originals(after)) == ([wanted], version, {"c0": source})


def test_image_volumes_generated_names_and_many_containers(ns: Namespace, app: tuple[str, str], hook: Hook) -> None:
    """An image that is mounted, a pod that has no name yet, and one with forty containers."""
    source, wanted = app
    webhook = hook()
    settled(ns, source, wanted)
    mounted = ns.pod("mounted", source, volumes=[{"name": "model", "image": {"reference": source}}])
    assert mounted["spec"]["volumes"][0]["image"]["reference"] == wanted
    assert originals(mounted) == {"c0": source, "volume/model": source}
    generated = ns.pod("", source, metadata={"generateName": "app-"})
    assert images(generated) == [wanted]
    many = ns.pod("many", *([source, "example.com/other:v1"] * 20))
    assert images(many) == [wanted, "example.com/other:v1"] * 20
    assert len(originals(many)) == 20
    assert webhook.metric("mirrorstream_webhook_reviews_total", outcome="failed") == 0


def test_a_dry_run_shows_the_outcome_and_makes_nothing(ns: Namespace, app: tuple[str, str], hook: Hook, kubectl: Kubectl) -> None:
    """`kubectl run --dry-run=server` is how people look."""
    source, wanted = app
    hook()
    settled(ns, source, wanted)
    done = kubectl("run", "app", f"--image={source}", "--dry-run=server", "-o", "jsonpath={.spec.containers[0].image}")
    assert (done.returncode, done.stdout) == (0, wanted), done.stderr
    assert not ns.client.get(f"/api/v1/namespaces/{ns.name}/pods").get("items")


def test_the_audit_log_says_what_was_done_with_each_image_and_why(
    authorized: Cluster, ns: Namespace, app: tuple[str, str], hook: Hook, tmp_path: Path
) -> None:
    """kube-apiserver's own log, for a pod that a user of the namespace makes."""
    source, wanted = app
    hook()
    settled(ns, source, wanted)
    assert isinstance(authorized.log, AuditLog)
    log, mark = authorized.log, authorized.log.mark()
    token = account_with(ns.client, ns.name, "user", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}])
    kubeconfig = with_token(tmp_path / "user.kubeconfig", authorized.kubeconfig, token)
    user = load_client(str(kubeconfig), in_cluster=False, user_agent="tenant")
    body = {"metadata": {"name": "app"}, "spec": template(source)["spec"]}
    wait_for("the role is in force", lambda: _created(user, f"/api/v1/namespaces/{ns.name}/pods", body))
    who = f"system:serviceaccount:{ns.name}:user"

    def audited() -> str | None:
        made = [e for e in log.entries(mark) if e["user"]["username"] == who and e["responseStatus"]["code"] == 201]
        return made[0]["annotations"]["pods.mirrorstream.github.io/images"] if made else None

    text = wait_for("the request is in the log", audited)
    expected = {
        "name": "c0",
        "image": source,
        "result": "rewritten",
        "reason": "the tag has this image",
        "stream": f"{ns.name}/app:v1",
        "way": "registry",
    }
    assert json.loads(text) == [expected]
    user.close()


def _created(user: Client, path: str, body: Object) -> bool:
    try:
        user.request("POST", path, body=body)
    except ApiError as error:
        if error.status != 403:
            raise
        return False
    return True


@pytest.mark.parametrize("prefix", ["kube-ms", "openshift-ms"])
def test_the_platforms_namespaces_are_never_asked_about(
    prefix: str, authorized: Cluster, ns: Namespace, app: tuple[str, str], hook: Hook
) -> None:
    """By the configuration's CEL conditions: the API server does not even ask."""
    source, wanted = app
    with authorized.namespace(prefix) as platform:
        webhook = hook(platform)
        settled(ns, source, wanted)
        before = webhook.metric("mirrorstream_webhook_reviews_total")
        assert images(platform.pod("app", source)) == [source]
        assert webhook.metric("mirrorstream_webhook_reviews_total") == before
        assert images(ns.pod("app", source)) == [wanted]


def test_a_webhook_that_hangs_delays_a_pod_by_three_seconds_at_most(ns: Namespace, app: tuple[str, str], hook: Hook) -> None:
    """By the configuration's timeout; and the pod is made as it is."""
    source, wanted = app
    webhook = hook()
    settled(ns, source, wanted)
    webhook.process.send(signal.SIGSTOP)
    try:
        began = time.monotonic()
        pod = ns.pod("app", source)
        waited = time.monotonic() - began
    finally:
        webhook.process.send(signal.SIGCONT)
    assert images(pod) == [source]
    assert waited > 2
    settled(ns, source, wanted)


@contextmanager
def injector(folder: Path, image: str) -> Iterator[Object]:
    """A mutating webhook as service meshes have one: it adds a container; its entry in a configuration."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            names = [container["name"] for container in review["request"]["object"]["spec"]["containers"]]
            response: Object = {"uid": review["request"]["uid"], "allowed": True}
            if "sidecar" not in names:
                patch = [{"op": "add", "path": "/spec/containers/-", "value": {"name": "sidecar", "image": image}}]
                response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
            body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
            pass

    authority = Authority(folder / "injector", "injector-authority")
    context: ssl.SSLContext = serving_context(authority.issue("injector", hosts=("localhost",)))
    server = EndableServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {
            "name": "injector.example.com",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "url": f"https://localhost:{server.server_address[1]}/",
                "caBundle": base64.b64encode(authority.certificate.read_bytes()).decode(),
            },
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "sideEffects": "None",
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_another_webhook_puts_in_after_us_is_rewritten_too(
    ns: Namespace, app: tuple[str, str], hook: Hook, tmp_path: Path
) -> None:
    """ReinvocationPolicy IfNeeded: a sidecar with an image of ours, injected after our turn."""
    source, wanted = app
    hook()
    settled(ns, source, wanted)
    with injector(tmp_path, source) as entry:
        entry["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}
        with configuration(ns.client, entry, f"zz-{ns.name}"):
            wait_for("it injects its sidecar", lambda: len(images(ns.pod("seen", source, dry_run=True))) == 2)
            pod = ns.pod("app", source)
            assert images(pod) == [wanted, wanted]
            assert originals(pod) == {"c0": source, "sidecar": source}
