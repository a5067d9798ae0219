"""A whole simulated cluster, to embed in a test or to run as a process."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from e2e.simulator import images
from e2e.simulator.api import Api, Target
from e2e.simulator.resources import Registry, core_kinds
from e2e.simulator.server import Server
from e2e.simulator.settings import Settings
from e2e.simulator.store import Store


class Simulator:
    """The API server, the platform's import controller and their store; a context manager that starts and stops them."""

    def __init__(self, settings: Settings | None = None, *, port: int = 0, without: tuple[str, ...] = ()) -> None:
        """`without` names resources or groups that this cluster does not serve. Raises OSError when the port is taken."""
        self.settings = settings or Settings()
        self.store = Store()
        registry = Registry()
        core_kinds(registry)
        self.controller = images.register(registry, self.store, self.settings)
        self.api = Api(self.store, registry)
        config = registry.find("config.openshift.io", "v1", "images")
        if config:
            body = {"metadata": {"name": "cluster"}, "spec": self.settings.image_config}
            target = Target(config, "")
            self.api.create(target, body, self.api.context(target))
        for name in without:
            registry.remove(name)
        self.server = Server(port, self.api)
        self.server.controls["import-controller"] = self.controller.control
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    @property
    def url(self) -> str:
        """Where the API server is."""
        return self.server.url

    def start(self) -> Self:
        """Serve, in threads."""
        self.controller.start()
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop everything."""
        self.controller.stop()
        self.server.stopping.set()
        self.store.drop_watches()
        self.server.shutdown()
        self.server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig for this cluster."""
        return write_kubeconfig(path, self.url)


def write_kubeconfig(path: Path, server: str) -> Path:
    """Write a kubeconfig for a server that asks for no credentials."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "simulator",
        "clusters": [{"name": "simulator", "cluster": {"server": server}}],
        "users": [{"name": "admin", "user": {}}],
        "contexts": [{"name": "simulator", "context": {"cluster": "simulator", "user": "admin", "namespace": "default"}}],
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path
