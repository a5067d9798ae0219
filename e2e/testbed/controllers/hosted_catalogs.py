"""What a management cluster's platform does in each hosted cluster's namespace: a stream of catalogs, and what follows its tags.

The operator owns the stream `catalogs`: it compares the spec with the wanted one at each new generation, and updates it when they
differ. The catalogs' Deployments have image triggers: a tag that points elsewhere rolls one out.
"""

import copy
from collections import Counter
from typing import Any

from mirrorstream.kube.client import ApiError, Client

from e2e.testbed.controllers.watching import Watcher
from e2e.testbed.streams import IMAGE_API, tag

Object = dict[str, Any]
STREAM = "catalogs"
CATALOGS = ("certified-operators", "community-operators", "redhat-operators")
"""The tags; each is a manifest list that is kept whole, imported on schedule."""
POLICY = {"scheduled": True, "importMode": "PreserveOriginal"}


class HostedCatalogs:
    """The operator of every hosted cluster's namespace, and the platform's image triggers, for one catalog source."""

    def __init__(self, client: Client, source: str) -> None:
        """`source` is the registry and the prefix of the catalogs' repositories."""
        self._client = client
        self.tags = [tag(name, f"{source}/{name}-index:v4.20", importPolicy=POLICY) for name in CATALOGS]
        self._watcher = Watcher(client, f"{IMAGE_API}/imagestreams", self._on_event)
        self.observed: dict[str, int] = {}
        """The generation of each namespace's stream that was reconciled last."""
        self.reconciled: Counter[str] = Counter()
        """How often each namespace's stream was reconciled."""
        self.updates = 0
        """How often a stream's spec was not the wanted one."""
        self.images: dict[tuple[str, str], str] = {}
        """What each Deployment runs, by namespace and tag."""
        self.rollouts = 0
        """How often a Deployment that ran an image got another one."""

    def start(self) -> None:
        """Follow the streams."""
        self._watcher.start()

    def stop(self) -> None:
        """End."""
        self._watcher.stop()

    def add(self, namespace: str) -> None:
        """A hosted cluster is created."""
        self._client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
        body = {"metadata": {"name": STREAM}, "spec": {"lookupPolicy": {"local": True}, "tags": self.tags}}
        self._client.request("POST", self._path(namespace).removesuffix(f"/{STREAM}"), body=body)

    def remove(self, namespace: str) -> None:
        """A hosted cluster is deleted."""
        self._client.request("DELETE", f"/api/v1/namespaces/{namespace}")

    def _on_event(self, kind: str, stream: Object) -> None:
        namespace = stream["metadata"]["namespace"]
        if stream["metadata"]["name"] != STREAM:
            return
        if kind == "DELETED":
            self.observed.pop(namespace, None)
            self.reconciled.pop(namespace, None)
            self.images = {key: image for key, image in self.images.items() if key[0] != namespace}
            return
        if self.observed.get(namespace) != stream["metadata"]["generation"]:
            self._reconcile(namespace, stream)
        for entry in (stream.get("status") or {}).get("tags") or []:
            self._trigger((namespace, entry["tag"]), entry.get("items") or [])

    def _reconcile(self, namespace: str, stream: Object) -> None:
        """Make the spec the wanted one, as controller-runtime's CreateOrUpdate does."""
        self.reconciled[namespace] += 1
        self.observed[namespace] = stream["metadata"]["generation"]
        spec = copy.deepcopy(stream["spec"])
        spec["lookupPolicy"] = {"local": True}
        known = {entry["name"]: entry for entry in spec.setdefault("tags", [])}
        for wanted in self.tags:
            if wanted["name"] in known:
                known[wanted["name"]].update(wanted)
            else:
                spec["tags"].append(wanted)
        if spec == stream["spec"]:
            return
        self.updates += 1
        try:
            self._client.request("PUT", self._path(namespace), body={**stream, "spec": spec})
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            # The change that came before brings its own event.
            self.observed.pop(namespace, None)

    def _path(self, namespace: str) -> str:
        return f"{IMAGE_API}/namespaces/{namespace}/imagestreams/{STREAM}"

    def _trigger(self, key: tuple[str, str], items: list[Object]) -> None:
        if items:
            before, self.images[key] = self.images.get(key), items[0]["dockerImageReference"]
            self.rollouts += before not in (None, self.images[key])
