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

from e2e.kubeconfig import write_kubeconfig
from e2e.simulator import images
from e2e.simulator.api import Api, Target
from e2e.simulator.foreign import ReadThroughStore
from e2e.simulator.identity import FrontProxy
from e2e.simulator.images.streams import STREAMS
from e2e.simulator.resources import Registry, core_kinds
from e2e.simulator.server import Server
from e2e.simulator.settings import Settings
from e2e.simulator.store import Store


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`without` names resources or groups that this cluster does not serve; `aggregated` leaves it image.openshift.io only.

        `clock` is what scheduled imports go by.

        Raises OSError when the port is taken.
        """
        self.settings = settings or Settings()
        self.store = ReadThroughStore(aggregated.client) if aggregated else Store()
        registry = Registry()
        self.controller = images.register(registry, self.store, self.settings, clock)
        self.api = Api(self.store, registry)
        if not aggregated:
            core_kinds(registry)
            self._configure(registry)
        for name in without:
            registry.remove(name)
        if aggregated:
            self.server = Server(port, self.api, aggregated.context, aggregated.front_proxy)
        else:
            self.server = Server(port, self.api)
        self.server.controls["import-controller"] = self.controller.control
        self.server.controls["outage"] = self._outage
        self.server.controls["streams"] = self._fill

    def _configure(self, registry: Registry) -> None:
        """Create the Image config."""
        kind = registry.find("config.openshift.io", "v1", "images")
        assert kind, "a core kind"
        target = Target(kind, "")
        self.api.create(target, {"metadata": {"name": "cluster"}, "spec": self.settings.image_config}, self.api.context(target))

    def _fill(self, body: Any) -> None:
        """Store the streams in `{"items": […]}` whole, status included, as if they had been there for long."""
        for item in body["items"]:
            self.store.create(STREAMS, item["metadata"]["namespace"], item)
        # They stay: a collection that walks through them all would hold up every request meanwhile.
        gc.collect()
        gc.freeze()

    @property
    def url(self) -> str:
        """Where the API server is."""
        return self.server.url

    def start(self) -> Self:
        """Serve, in threads."""
        self.controller.start()
        self._serve()
        return self

    def _serve(self) -> None:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def _outage(self, body: Any) -> None:
        """Serve nothing for `{"seconds": N}`; what is stored stays."""
        seconds = float(body["seconds"])

        def be_away() -> None:
            self.server.shutdown()
            self.server.end()
            self.server.stopping.wait(seconds)
            self.server.come_back()
            self._serve()

        threading.Thread(target=be_away, daemon=True).start()

    def stop(self) -> None:
        """Stop everything."""
        self.controller.stop()
        self.server.stopping.set()
        self.store.drop_watches()
        self.server.shutdown()
        self.server.end()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig for this cluster."""
        return write_kubeconfig(path, self.url)
