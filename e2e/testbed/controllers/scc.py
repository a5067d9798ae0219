"""OpenShift's SecurityContextConstraints admission, as far as it matters to somebody who changes another's pod.

It admits a new pod, and each change of a pod's spec: the constraint must be usable by the pod's service account or by the
requester. A pod that an administrator created by a right of their own is refused to everybody without that right. Annotations name
the constraint each time, and whose it was. Upstream's kube-apiserver has no such plugin, so this is a webhook; it is asked about
namespaces with the label LABEL only.
"""

import base64
import http.server
import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from mirrorstream.kube.client import Client

from e2e.testbed.support.certificates import Authority, serving_context
from e2e.testbed.support.serving import EndableServer

Object = dict[str, Any]
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
NAME = "a-testbed-scc"
"""Of the configuration: API servers ask in the order of the names, and the platform's plugin comes before all webhooks."""
LABEL = {"testbed/scc": "imitated"}
OWN_RIGHT = "testbed/admitted-by-own-right"
"""An annotation on a new pod: it needs more than its account may, and its creator, an administrator, has that right."""
SCC, SUBJECT = "openshift.io/scc", "security.openshift.io/validated-scc-subject-type"
RESTRICTED, ANYUID = "restricted-v2", "anyuid"
ACCOUNT, USER = "serviceaccount", "user"
ADMINISTRATORS = "system:masters"
REFUSAL = "unable to validate against any security context constraint: []"


def admitted(request: Object) -> dict[str, str] | None:
    """The annotations that a pod gets at this request; empty where it is not looked at, None where it is refused.

    `request` is an AdmissionReview's. Only a change of the spec counts; Windows pods are exempt.
    """
    pod, old = request["object"], request.get("oldObject")
    spec = pod.get("spec") or {}
    if (spec.get("os") or {}).get("name") == "windows" or (old and (old.get("spec") or {}) == spec):
        return {}
    annotations = ((old or pod)["metadata"].get("annotations")) or {}
    administrator = ADMINISTRATORS in (request["userInfo"].get("groups") or [])
    if OWN_RIGHT in annotations:
        return {SCC: ANYUID, SUBJECT: USER} if administrator else None
    # An administrator may use every constraint, and is asked first at the creation: as the platform has it.
    return {SCC: RESTRICTED, SUBJECT: USER if administrator and not old else ACCOUNT}


def response(request: Object) -> Object:
    """What the API server is answered."""
    found = admitted(request)
    answer: Object = {"uid": request["uid"], "allowed": found is not None}
    if found is None:
        name = request["object"]["metadata"].get("name", "")
        status = {"code": 403, "reason": "Forbidden", "message": f'pods "{name}" is forbidden: {REFUSAL}'}
        return {**answer, "status": status}
    before = request["object"]["metadata"].get("annotations") or {}
    if found and any(before.get(key) != value for key, value in found.items()):
        patch = [{"op": "add", "path": "/metadata/annotations", "value": {**before, **found}}]
        answer |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
    return answer


class SecurityContextConstraints:
    """A context manager: the webhook, and its registration at a cluster. `client` is an administrator's."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._authority = Authority(folder, "scc-ca")
        self._server = EndableServer(("127.0.0.1", 0), _Handler)
        context = serving_context(self._authority.issue("scc", hosts=("localhost",)))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        bundle = base64.b64encode(self._authority.certificate.read_bytes()).decode()
        rule = {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
        webhook = {
            "name": "scc.testbed.example.com",
            "clientConfig": {"url": f"https://localhost:{self._server.server_address[1]}/", "caBundle": bundle},
            "rules": [rule],
            "namespaceSelector": {"matchLabels": LABEL},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        self._client.request("POST", CONFIGURATIONS, body={"metadata": {"name": NAME}, "webhooks": [webhook]})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()  # the registration goes with the cluster
        self._server.end()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer one review."""
        review = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])))
        body = msgspec.json.encode({**{k: review[k] for k in ("apiVersion", "kind")}, "response": response(review["request"])})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
