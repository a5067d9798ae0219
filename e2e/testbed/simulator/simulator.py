"""A whole simulated cluster, to embed in a test or to run as a process."""

import gc
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mirrorstream.kube.client import Client
from mirrorstream.kube.rest_config import RestConfig

from e2e.testbed.controllers.pull_secrets import PullSecrets
from e2e.testbed.infrastructure import infrastructure
from e2e.testbed.simulator import images, service_accounts
from e2e.testbed.simulator.api import Api, Target
from e2e.testbed.simulator.foreign import ReadThroughStore
from e2e.testbed.simulator.identity import FrontProxy
from e2e.testbed.simulator.images.streams import STREAMS
from e2e.testbed.simulator.registry_host import StoredHost, WatchedHost, image_config
from e2e.testbed.simulator.resources import Registry, core_kinds, signature_policies
from e2e.testbed.simulator.server import Server
from e2e.testbed.simulator.service_accounts import DefaultAccounts
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.store import Store
from e2e.testbed.support.certificates import Authority
from e2e.testbed.support.kubeconfig import write_kubeconfig


@dataclass(frozen=True)
class Aggregated:
    """A kube-apiserver in front: a client for it, the TLS that it expects, and the certificate that it shows."""

    client: Client
    context: ssl.SSLContext
    front_proxy: FrontProxy


class Simulator:
    """The API server, the platform's import controller and their store; a context manager that starts and stops them."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        port: int = 0,
        without: tuple[str, ...] = (),
        aggregated: Aggregated | None = None,
        pull_secrets: bool = False,
        authority: Authority | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`without` names resources or groups that this cluster does not serve; `aggregated` leaves it image.openshift.io only.

        `pull_secrets` gives service accounts theirs, as on the platform: pods are created with them, or too early.
        With an `authority` it speaks TLS, as the address that pods have of an API server does. `clock` is what scheduled imports
        go by.

        Raises OSError when the port is taken.
        """
        self.settings = settings or Settings()
        self.store = ReadThroughStore(aggregated.client) if aggregated else Store()
        registry = Registry()
        self._registry_host = WatchedHost(aggregated.client) if aggregated else StoredHost(self.store)
        self.controller = images.register(registry, self.store, self.settings, self._registry_host, clock)
        self.api = Api(self.store, registry)
        if not aggregated:
            core_kinds(registry)
            service_accounts.register(registry)
            self._configure(registry)
        for name in without:
            registry.remove(name)
        self._authority = authority
        if aggregated:
            self.server = Server(port, self.api, aggregated.context, aggregated.front_proxy)
        else:
            self.server = Server(port, self.api, _serving(authority) if authority else None)
        self._parts: list[PullSecrets | DefaultAccounts] = [] if aggregated else [DefaultAccounts(self.store)]
        if pull_secrets:
            self._parts.append(PullSecrets(self.client("pull-secrets")))
        self.server.controls["import-controller"] = self.controller.control
        self.server.controls["outage"] = self._outage
        self.server.controls["streams"] = self._fill
        self.server.controls["back-up"] = lambda body: self.store.back_up()
        self.server.controls["restore"] = lambda body: self.store.restore()
        self.server.controls["signature-policies"] = lambda body: signature_policies(registry, body["version"])

    def _configure(self, registry: Registry) -> None:
        """Create what the platform configures."""
        config = image_config(self.settings.image_config, self.settings.internal_registry)
        for plural, made in (("images", config), ("infrastructures", infrastructure())):
            kind = registry.find("config.openshift.io", "v1", plural)
            assert kind, "a core kind"
            target = Target(kind, "")
            self.api.create(target, made, self.api.context(target))

    def _fill(self, body: Any) -> None:
        """Store the streams in `{"items": […]}` whole, status included, as if they had been there for long."""
        for item in body["items"]:
            self.store.create(STREAMS, item["metadata"]["namespace"], item)
        # They stay: a collection that walks through them all would delay every request.
        gc.collect()
        gc.freeze()

    @property
    def url(self) -> str:
        """Where the API server is."""
        return self.server.url

    def start(self) -> Self:
        """Serve, in threads."""
        self._registry_host.start()
        self.controller.start()
        self._serve()
        for part in self._parts:
            part.start()
        return self

    def _serve(self) -> None:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def _outage(self, body: Any) -> None:
        """Serve nothing for `{"seconds": N}`; what is stored stays, or, with `"restore": true`, goes back to the backup."""
        seconds = float(body["seconds"])

        def be_away() -> None:
            self.server.shutdown()
            self.server.end()
            if body.get("restore"):
                self.store.restore()
            self.server.stopping.wait(seconds)
            self.server.come_back()
            self._serve()

        threading.Thread(target=be_away, daemon=True).start()

    def stop(self) -> None:
        """Stop everything."""
        for part in self._parts:
            part.stop()
        self.controller.stop()
        self.server.stopping.set()
        self.store.drop_watches()
        self.server.shutdown()
        self.server.end()
        self._registry_host.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def client(self, user_agent: str) -> Client:
        """An administrator's client of this cluster."""
        trusted = str(self._authority.certificate) if self._authority else None
        return Client(lambda: RestConfig(self.url, ca_file=trusted), user_agent=user_agent)

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig for this cluster."""
        return write_kubeconfig(path, self.url, authority=self._authority.certificate if self._authority else None)


def _serving(authority: Authority) -> ssl.SSLContext:
    pair = authority.issue("simulator", hosts=("localhost",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context
