"""Several webhooks behind one port, as the Deployment's pods are behind the Service, asked by the API server."""

import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from e2e.testbed.backends import SIMULATOR
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.programs.hooks import registered
from e2e.testbed.programs.program import Webhook, running
from e2e.testbed.support.certificates import Authority
from e2e.testbed.support.forwarder import Backend, forwarding_to
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
SERVICE = "webhook"
PROBE_SECONDS = 1
"""How long a probe waits; a third of what config/base/webhook has, so that tests wait less."""


class Replicas:
    """See the module. Everything ends with `stack`."""

    def __init__(self, cluster: Cluster, ns: Namespace, folder: Path, stack: ExitStack) -> None:
        self._cluster, self._ns, self._folder, self._stack = cluster, ns, folder, stack
        self._authority = Authority(folder / "webhook-authority", "webhook-authority")
        self._backends: list[Backend] = []
        self._port = stack.enter_context(forwarding_to(self._backends))
        self._failed: dict[int, int] = {}

    def begin(self, program: Path | None = None) -> Webhook:
        """Start one more, not ready yet, with another kubeconfig than the usual one if need be."""
        kubeconfig, hosts = program or self._cluster.webhook, ("localhost", f"{SERVICE}.{self._ns.name}.svc")
        webhook = Webhook(kubeconfig, self._folder, {}, log_level="info", authority=self._authority, hosts=hosts)
        self._stack.callback(webhook.process.kill)
        self._backends.append((webhook.admission_port, partial(self._probe, webhook)))
        return webhook

    def join(self, webhook: Webhook) -> Webhook:
        """Wait until it is ready and gets its share; it must have ended with 0 at the end, unless it was killed."""
        self._stack.enter_context(running(webhook))
        self._stack.callback(webhook.process.send, signal.SIGCONT)  # before it is told to end
        wait_for("it gets its share", lambda: self._failed.get(webhook.port) == 0)
        return webhook

    def start(self, program: Path | None = None) -> Webhook:
        """Start one more, and wait for it."""
        return self.join(self.begin(program))

    def register(self, webhook: Webhook) -> None:
        """Have the API server ask them, from now on, about the namespace's pods.

        By a Service where there are some, as an installation does.
        """
        by_service = self._cluster.backend != SIMULATOR
        if by_service:
            spec = {"type": "ExternalName", "externalName": "localhost"}
            path = f"/api/v1/namespaces/{self._ns.name}/services"
            self._ns.client.request("POST", path, body={"metadata": {"name": SERVICE}, "spec": spec})
            self._stack.callback(self._ns.client.request, "DELETE", f"{path}/{SERVICE}")

        def lead(entry: Object) -> None:
            config = entry["clientConfig"]
            if by_service:
                del config["url"]
                where = {"namespace": self._ns.name, "name": SERVICE, "path": "/mutate-pods", "port": self._port}
                config["service"] = where
            else:
                config["url"] = f"https://localhost:{self._port}/mutate-pods"

        self._stack.enter_context(registered(webhook, self._ns.client, [self._ns.name], lead))

    def _probe(self, webhook: Webhook) -> bool:
        """A kubelet's probe: how often in a row it failed is what the port goes by."""
        try:
            ready = webhook.process.ended is None and webhook.get("/readyz", seconds=PROBE_SECONDS)[0] == 200
        except OSError:
            ready = False
        self._failed[webhook.port] = 0 if ready else self._failed.get(webhook.port, 0) + 1
        return ready

    def is_left_out(self, webhook: Webhook) -> bool:
        """Whether the port leads there no more."""
        return self._failed.get(webhook.port, 0) > 1

    def wait_left_out(self, webhook: Webhook) -> None:
        """Wait until it does not."""
        wait_for("the replica is left out", lambda: self.is_left_out(webhook))
