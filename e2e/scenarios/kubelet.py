"""What happens by itself on a cluster with nodes: mirrorstream's pods start, become ready, and end; certificates are issued.

`deployed.py` runs what one `kubectl apply` made. This follows whatever is applied, rolled out and deleted, as long as it lasts.
"""

import contextlib
import datetime
import signal
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mirrorstream.kube.client import MERGE_PATCH, ApiError, Client

from e2e.forwarder import Backend, forwarding_to
from e2e.scenarios.deployed import HOOKS, NAMESPACE, Pod, lead_service_here
from e2e.scenarios.issuers import SECRETS, ServiceCA

Object = dict[str, Any]
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
LOOK_SECONDS = 0.1


class Kubelet:
    """A context manager: a thread that keeps processes, and what the API server knows of them, in line with the pods there are."""

    def __init__(self, client: Client, folder: Path, server: str) -> None:
        self.client, self._folder, self._server = client, folder, server
        self._running: dict[str, Pod] = {}
        self._ready: dict[str, bool] = {}
        self._ending: list[Pod] = []
        self._service = contextlib.ExitStack()
        self._backends: list[Backend] = []
        self._port = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped.set()
        self._thread.join()
        self._service.close()
        for pod in [*self._running.values(), *self._ending]:
            pod.process.kill()

    def check(self) -> None:
        """Raise what went wrong in the thread, if anything did."""
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                self._look()
            except ApiError as error:
                if error.status not in (404, 409, 422):  # something was deleted or changed meanwhile
                    self._failure = error
            except Exception as error:  # noqa: BLE001  told by check()
                self._failure = error

    def _look(self) -> None:
        pods = {pod["metadata"]["uid"]: pod for pod in self.client.get(PODS)["items"]}
        for uid in self._running.keys() - pods.keys():
            self._end(uid)
        self._ending = [pod for pod in self._ending if pod.process.ended is None]
        if not pods:
            return
        self._issue()
        for uid, pod in pods.items():
            if uid not in self._running:
                self._running[uid] = Pod(self.client, pod, self._folder, self._server)
        self._lead_to_webhooks()
        for uid in pods:
            self._tell(uid)

    def _end(self, uid: str) -> None:
        """Take a deleted pod out of its Service, and tell it to end: it goes on for as long as it likes."""
        self._ready.pop(uid, None)
        pod = self._running.pop(uid)
        self._find_backends()
        pod.process.send(signal.SIGTERM)
        self._ending.append(pod)

    def _find_backends(self) -> None:
        self._backends[:] = [(pod.port("admission"), pod.ready) for pod in self._running.values() if pod.component == "webhook"]

    def _issue(self) -> None:
        """Be OpenShift's service CA."""
        issuer = ServiceCA(self.client, self._folder)
        missing = issuer.wanted().keys() - {secret["metadata"]["name"] for secret in self.client.get(SECRETS)["items"]}
        hook = self.client.get(f"{HOOKS}/mirrorstream")
        asked = issuer.injected(hook["metadata"].get("annotations") or {})
        if asked and (missing or not hook["webhooks"][0]["clientConfig"].get("caBundle")):
            issuer.issue()

    def _lead_to_webhooks(self) -> None:
        """Have the API server find the webhook's Service on this machine, whatever was applied meanwhile."""
        self._find_backends()
        if not self._backends:
            return
        if not self._port:
            self._port = self._service.enter_context(forwarding_to(self._backends))
        lead_service_here(self.client, self._port)

    def _tell(self, uid: str) -> None:
        """Say in the pod's status whether it is ready."""
        pod = self._running[uid]
        try:
            ready = pod.ready()
        except OSError:
            ready = False
        if ready == self._ready.get(uid, False):
            return
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now}
        status = {"phase": "Running", "startTime": now, "conditions": [condition]}
        self.client.request("PATCH", f"{PODS}/{pod.name}/status", body={"status": status}, content_type=MERGE_PATCH)
        self._ready[uid] = ready
