"""The mirror rules of a scenario, as objects of its own, or as the platform of a hosted cluster keeps them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
from mirrorstream.kube.client import ApiError, Client

from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
MIRROR_SETS = {
    "ImageContentSourcePolicy": ("operator.openshift.io/v1alpha1", "imagecontentsourcepolicies", "repositoryDigestMirrors"),
    "ImageDigestMirrorSet": ("config.openshift.io/v1", "imagedigestmirrorsets", "imageDigestMirrors"),
    "ImageTagMirrorSet": ("config.openshift.io/v1", "imagetagmirrorsets", "imageTagMirrors"),
}
CONTENT_SOURCES = "/apis/config.openshift.io/v1/imagedigestmirrorsets/cluster"
"""Where HyperShift keeps a HostedCluster's spec.imageContentSources."""


class MirrorSets(Protocol):
    """The rules that a scenario has made, by name; what is written is returned, to wait until nodes have it."""

    def create(self, name: str, kind: str, source: str, mirrors: list[str], *, never: bool) -> Object:
        """Add a rule with one source; `never`: nodes may not contact the source itself."""

    def change(self, name: str, mirrors: list[str]) -> Object:
        """Replace a rule's mirrors."""

    def remove(self, name: str) -> None:
        """Take a rule away."""

    def names(self) -> list[str]:
        """The rules that there are."""


@dataclass
class OwnObjects:
    """A mirror set for each rule, as administrators of most clusters make them."""

    client: Client
    _paths: dict[str, str] = field(default_factory=dict)

    def create(self, name: str, kind: str, source: str, mirrors: list[str], *, never: bool) -> Object:
        """POST an object of the kind."""
        version, plural, entries = MIRROR_SETS[kind]
        entry: Object = {"source": source, "mirrors": mirrors}
        if never:
            entry["mirrorSourcePolicy"] = "NeverContactSource"
        path = f"/apis/{version}/{plural}"
        body = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": {entries: [entry]}}
        made: Object = self.client.request("POST", path, body=body)
        self._paths[name] = f"{path}/{name}"
        return made

    def change(self, name: str, mirrors: list[str]) -> Object:
        """PUT the object."""
        path = self._paths[name]
        item = self.client.get(path)
        for entries in item["spec"].values():
            entries[0]["mirrors"] = mirrors
        written: Object = self.client.request("PUT", path, body=item)
        return written

    def remove(self, name: str) -> None:
        """DELETE the object."""
        self.client.request("DELETE", self._paths.pop(name))

    def names(self) -> list[str]:
        """The objects' names."""
        return list(self._paths)


@dataclass
class ContentSources:
    """Entries of one ImageDigestMirrorSet, which the platform writes with the account of `client`: there is nothing else.

    HyperShift copies a source and its mirrors from the HostedCluster, no `mirrorSourcePolicy`. Scenarios that need another kind
    of rule are skipped.
    """

    client: Client
    _entries: dict[str, Object] = field(default_factory=dict)

    def create(self, name: str, kind: str, source: str, mirrors: list[str], *, never: bool) -> Object:
        """Add an entry."""
        if kind != "ImageDigestMirrorSet" or never:
            pytest.skip("the platform of a hosted cluster makes digest mirrors only")
        entry = self._entries[name] = {"source": source, "mirrors": mirrors}
        return self._write(lambda entries: [*entries, entry])

    def change(self, name: str, mirrors: list[str]) -> Object:
        """Replace an entry."""
        before = self._entries[name]
        after = self._entries[name] = {**before, "mirrors": mirrors}
        return self._write(lambda entries: [after if entry == before else entry for entry in entries])

    def remove(self, name: str) -> None:
        """Remove an entry."""
        gone = self._entries.pop(name)
        self._write(lambda entries: [entry for entry in entries if entry != gone])

    def names(self) -> list[str]:
        """The names under which the scenario added entries."""
        return list(self._entries)

    def _write(self, change: Callable[[list[Object]], list[Object]]) -> Object:
        """Write the entries until there is no conflict; what is written."""

        def attempt() -> Object | None:
            item = self.client.get(CONTENT_SOURCES)
            item["spec"] = {"imageDigestMirrors": change(item["spec"].get("imageDigestMirrors") or [])}
            try:
                written: Object = self.client.request("PUT", CONTENT_SOURCES, body=item)
            except ApiError as error:
                if error.status != 409:
                    raise
                return None
            return written

        return wait_for("the HostedCluster's content sources are written", attempt)
