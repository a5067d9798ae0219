"""The internal registry's name: the Image config's `status.internalRegistryHostname`, which an operator writes on a cluster."""

import msgspec
from mirrorstream.kube.client import Client
from mirrorstream.kube.informer import Change, Informer

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.images.importer import IMAGE_CONFIG
from e2e.testbed.simulator.store import Object, Store

CONFIGS = "/apis/config.openshift.io/v1/images"
SYNC_SECONDS = 10.0


class _Status(msgspec.Struct, rename="camel"):
    internal_registry_hostname: str = ""


class _Config(msgspec.Struct):
    status: _Status | None = None


_CONFIG = msgspec.json.Decoder(_Config)


def image_config(spec: Object, host: str) -> Object:
    """The Image config `cluster`; `host` is the internal registry's, empty without one."""
    config = {"apiVersion": "config.openshift.io/v1", "kind": "Image", "metadata": {"name": "cluster"}, "spec": spec}
    return {**config, "status": {"internalRegistryHostname": host}} if host else config


class StoredHost:
    """Read in the simulator's own store, each time."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self) -> str:
        """The name at this moment; empty without a registry."""
        try:
            config = self._store.get(IMAGE_CONFIG, "", "cluster")
        except errors.StatusError:
            return ""
        return str((config.get("status") or {}).get("internalRegistryHostname") or "")

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""


class WatchedHost:
    """Watched on the kube-apiserver in front: streams are read often, and must not wait for a second request each time."""

    def __init__(self, client: Client) -> None:
        self._informer = Informer(client, CONFIGS, _CONFIG.decode, _ignore, name="image-config", optional=True)

    def __call__(self) -> str:
        """The name as last seen; empty without a registry."""
        config = self._informer.get(("", "cluster"))
        return config.status.internal_registry_hostname if config and config.status else ""

    def start(self) -> None:
        """Watch, and wait for the first list."""
        self._informer.start()
        self._informer.settled.wait(SYNC_SECONDS)

    def stop(self) -> None:
        """End the watch."""
        self._informer.stop()


def _ignore(change: Change[_Config]) -> None:
    """Nothing follows from a change: the name is read when it is needed."""
