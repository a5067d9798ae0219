"""Behind a real kube-apiserver: what the platform's importer reads there is read there, each time, and is never stale."""

from typing import Any

from mirrorstream.kube.client import ApiError, Client, ClientError

from e2e.testbed.access import is_allowed
from e2e.testbed.simulator import errors
from e2e.testbed.simulator.images.importer import CONFIG_MAPS, IMAGE_CONFIG, MIRROR_SETS, SECRETS
from e2e.testbed.simulator.images.limits import LIMIT_RANGES
from e2e.testbed.simulator.store import Kind, Object, Store

FOREIGN = frozenset({IMAGE_CONFIG, *MIRROR_SETS, SECRETS, CONFIG_MAPS, LIMIT_RANGES})


class ReadThroughStore(Store):
    """A store that has image.openshift.io's objects, and reads foreign ones from the kube-apiserver in front."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client

    def get(self, resource: Kind, namespace: str, name: str) -> Object:
        """An object. Raises a 404, or a 503 when a foreign one cannot be read."""
        if resource not in FOREIGN:
            return super().get(resource, namespace, name)
        found: Object | None = self._read(resource, f"{_path(resource, namespace)}/{name}")
        if found is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return found

    def list(self, resource: Kind, namespace: str = "") -> tuple[int, list[Object]]:
        """The version of the moment and the objects; none of a kind that the cluster does not serve. Raises a 503 as `get`."""
        if resource not in FOREIGN:
            return super().list(resource, namespace)
        found = self._read(resource, _path(resource, namespace)) or {}
        return self.version, found.get("items") or []

    def may_create(self, resource: Kind, user: str, groups: tuple[str, ...]) -> bool:
        """What kube-apiserver says. Raises a 503 when it cannot be asked."""
        attributes = {"verb": "create", "group": resource.group, "resource": resource.plural}
        try:
            return is_allowed(self._client, {"user": user, "groups": list(groups), "resourceAttributes": attributes})
        except ClientError as error:
            raise errors.StatusError(503, "ServiceUnavailable", f"rights cannot be asked for: {error}") from error

    def _read(self, resource: Kind, path: str) -> Any:
        try:
            return self._client.get(path)
        except ClientError as error:
            if isinstance(error, ApiError) and error.status == 404:
                return None
            raise errors.StatusError(503, "ServiceUnavailable", f"{resource.plural} cannot be read: {error}") from error


def _path(resource: Kind, namespace: str) -> str:
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    return f"{root}/namespaces/{namespace}/{resource.plural}" if namespace else f"{root}/{resource.plural}"
