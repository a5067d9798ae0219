"""Behind a real kube-apiserver: current copies of what the platform's importer reads there, as openshift-apiserver keeps them."""

import contextlib
import threading
import time
from collections.abc import Callable

import msgspec
from mirrorstream.kube.client import ApiError, Client, ClientError
from mirrorstream.kube.informer import Change, Informer

from e2e.simulator import errors
from e2e.simulator.images.importer import CONFIG_MAPS, IMAGE_CONFIG, MIRROR_SETS, SECRETS
from e2e.simulator.images.limits import LIMIT_RANGES
from e2e.simulator.resources import Resource
from e2e.simulator.store import Object, Store

SYNC_SECONDS = 30.0
_ALL = ""
# Only a namespace's own secrets count, but which namespaces have streams is not known; config maps count in one namespace.
_FOLLOWED = ((IMAGE_CONFIG, _ALL), (SECRETS, _ALL), (LIMIT_RANGES, _ALL), (CONFIG_MAPS, "openshift-config"))


class Replicas:
    """Keeps the store's copies current until it is stopped. Kinds that the cluster does not serve have none."""

    def __init__(self, client: Client, store: Store) -> None:
        self._client, self._store = client, store
        self._lock = threading.Lock()
        self._refreshed = -1.0
        decode = msgspec.json.Decoder(Object).decode
        self._informers = [
            Informer(client, _path(kind, namespace), decode, self._keep(kind), name=kind.plural, optional=True)
            for kind, namespace in _FOLLOWED
        ]

    def start(self) -> None:
        """Copy everything once, then follow. Raises TimeoutError that names the kind that cannot be read."""
        end = time.monotonic() + SYNC_SECONDS
        for informer in self._informers:
            informer.start()
        for informer in self._informers:
            if not informer.synced.wait(max(0.0, end - time.monotonic())):
                raise TimeoutError(f"no {informer.name} from the API server: {informer.problem}")

    def refresh(self) -> None:
        """Read the mirror sets as they are now, once for all who ask meanwhile: recordings have imports right behind new rules.

        Raises a 503.
        """
        asked = time.monotonic()
        with self._lock:
            if self._refreshed >= asked:
                return
            began = time.monotonic()
            for kind in MIRROR_SETS:
                self._replace(kind, self._list(kind))
            self._refreshed = began

    def _list(self, kind: Resource) -> list[Object]:
        try:
            items: list[Object] = self._client.get(_path(kind, _ALL)).get("items") or []
        except ClientError as error:
            if isinstance(error, ApiError) and error.status == 404:
                return []
            raise errors.StatusError(503, "ServiceUnavailable", f"{kind.plural} cannot be read: {error}") from error
        return items

    def _replace(self, kind: Resource, items: list[Object]) -> None:
        keep = self._keep(kind)
        current = {item["metadata"]["name"]: item for item in items}
        for known in self._store.list(kind)[1]:
            if known["metadata"]["name"] not in current:
                keep(Change(("", known["metadata"]["name"]), known, None))
        for name, item in current.items():
            keep(Change(("", name), None, item))

    def stop(self) -> None:
        """End all copies."""
        for informer in self._informers:
            informer.stop()

    def _keep(self, kind: Resource) -> Callable[[Change[Object]], None]:
        store = self._store

        def keep(change: Change[Object]) -> None:
            namespace, name = change.key
            if change.new is None:
                with contextlib.suppress(errors.StatusError):  # a copy that was told to be deleted soon is gone already
                    store.delete(kind, namespace, name)
                return
            item = {key: value for key, value in change.new.items() if key not in ("kind", "apiVersion")}
            try:
                store.update(kind, namespace, name, lambda old: item)
            except errors.StatusError:
                store.create(kind, namespace, item)

        return keep


def _path(kind: Resource, namespace: str) -> str:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    return f"{root}/namespaces/{namespace}/{kind.plural}" if namespace else f"{root}/{kind.plural}"
