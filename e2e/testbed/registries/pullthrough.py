"""What the internal registry finds for a stream's tag or digest, and where it fetches it: it stores nothing itself.

It asks the mirrors that mirror sets name, and then what the tag's item names. It takes every mirror for insecure; the item's own
registry only if the tag's import policy or the stream's annotation allows it. It does not read registrySources of the Image config.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mirrorstream.kube.client import ApiError, Client, ClientError
from mirrorstream.rules.references import parse_or_none, parse_reference

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.foreign import ReadThroughStore
from e2e.testbed.simulator.images.fetch import Access, Fetcher, Manifest
from e2e.testbed.simulator.images.importer import IMAGE_CONFIG, MIRROR_SETS, registry_credentials, trusted_authorities
from e2e.testbed.simulator.images.registry_errors import RegistryError
from e2e.testbed.simulator.images.streams import INSECURE_ANNOTATION

Object = dict[str, Any]
T = TypeVar("T")
STREAMS = "/apis/image.openshift.io/v1/namespaces/{}/imagestreams/{}"
IMAGES = "/apis/image.openshift.io/v1/images"
ENTRIES = {"repositoryDigestMirrors": False, "imageDigestMirrors": True, "imageTagMirrors": True}
"""The lists of entries in mirror sets; whether an entry has the mirrors of those before it, too."""
RULES_SECONDS = 1.0
"""How old mirror sets, the Image config and pull secrets may be: one pull asks several times."""


class RefusedError(Exception):
    """What the registry answers instead: a status and an error code of the distribution API."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def unknown_manifest() -> RefusedError:
    """What is said of a tag or digest that a stream has not."""
    return RefusedError(404, "MANIFEST_UNKNOWN", "manifest unknown")


@dataclass(frozen=True)
class _Rules:
    """The cluster's configuration for one namespace, read at `at` (monotonic)."""

    at: float
    mirror_sets: tuple[Object, ...]
    credentials: dict[str, tuple[str, str]]
    authorities: str

    def places(self, repository: str, *, insecure: bool) -> Iterator[tuple[str, str, Access]]:
        """Host, path and access of each place to ask for an image of a repository, in order."""
        for mirror in mirrors_of(self.mirror_sets, repository):
            yield self._place(mirror, insecure=True)
        yield self._place(repository, insecure=insecure)

    def _place(self, repository: str, *, insecure: bool) -> tuple[str, str, Access]:
        parsed = parse_reference(repository)
        return parsed.host, parsed.path, Access(insecure, self.credentials.get(parsed.host), self.authorities)


def mirrors_of(mirror_sets: Iterable[Object], repository: str) -> list[str]:
    """A repository at all mirrors of all kinds of sets whose source encloses it, each once; none if one is no valid reference.

    An entry of an ImageDigestMirrorSet or ImageTagMirrorSet has the mirrors of the entries before it, too. A source with a wildcard
    is compared as it is written.
    """
    found: list[str] = []
    for item in mirror_sets:
        spec = item.get("spec") or {}
        for field, adds_up in ENTRIES.items():
            so_far: list[str] = []
            for entry in spec.get(field) or []:
                source = entry["source"]
                so_far = [*(so_far if adds_up else ()), *(entry.get("mirrors") or [])]
                if repository == source or repository.startswith(f"{source}/"):
                    found += [mirror + repository[len(source) :] for mirror in so_far]
    parsed = [parse_or_none(text) for text in found]
    return list(dict.fromkeys(each.name for each in parsed if each)) if all(parsed) else []


@dataclass(frozen=True)
class Item:
    """A tag's item: the tag, its digest, the repository that it came from, when, and whether its tag says that it is insecure."""

    tag: str
    digest: str
    repository: str
    created: str
    insecure: bool


class PullThrough:
    """Reads streams and fetches images; safe to use from many threads. `seconds` bounds each request to another registry."""

    def __init__(self, client: Client, seconds: float) -> None:
        self._client = client
        self._store = ReadThroughStore(client)
        self._fetcher = Fetcher(seconds)
        self._rules: dict[str, _Rules] = {}
        self._lock = threading.Lock()

    def tags(self, namespace: str, name: str) -> list[str]:
        """The tags of a stream that have an item. Raises RefusedError."""
        return sorted(tag["tag"] for tag in _status_tags(self._stream(namespace, name)) if tag.get("items"))

    def manifest(self, namespace: str, name: str, reference: str) -> Manifest:
        """The manifest of a tag's newest item, or of a digest in the stream's history. Raises RefusedError."""
        digest, repository, insecure = self._find(namespace, name, self._stream(namespace, name), reference)
        self._get(f"{IMAGES}/{digest}", unknown_manifest())

        def fetch(host: str, path: str, access: Access) -> Manifest:
            return self._fetcher.manifest(host, path, digest, access)

        try:
            return self._fetch(namespace, repository, fetch, insecure=insecure)
        except RegistryError as error:
            message = f"unable to pull manifest from {repository}@{digest}: {error}"
            raise RefusedError(404, "OPENSHIFT_PULLTHROUGH_MANIFEST", message) from error

    def blob(self, namespace: str, name: str, digest: str) -> bytes:
        """A blob, from wherever one of the stream's items came from. Raises RefusedError."""

        def fetch(host: str, path: str, access: Access) -> bytes:
            return self._fetcher.blob(host, path, digest, access)

        for repository, insecure in blob_places(self._stream(namespace, name)):
            try:
                return self._fetch(namespace, repository, fetch, insecure=insecure)
            except RegistryError:
                continue  # the platform's logs it only, too
        raise RefusedError(404, "BLOB_UNKNOWN", "blob unknown to registry")

    # Parts.

    def _stream(self, namespace: str, name: str) -> Object:
        found: Object = self._get(STREAMS.format(namespace, name), RefusedError(404, "NAME_UNKNOWN", "name unknown"))
        return found

    def _get(self, path: str, missing: RefusedError) -> Any:
        try:
            return self._client.get(path)
        except ClientError as error:
            if isinstance(error, ApiError) and error.status == 404:
                raise missing from error
            raise RefusedError(500, "UNKNOWN", f"unknown error: {error}") from error

    def _find(self, namespace: str, name: str, stream: Object, reference: str) -> tuple[str, str, bool]:
        """The digest that a reference means, the repository of the item that it belongs to, and whether that may be insecure."""
        found, digest, tag = items(stream), reference, ""
        if not reference.startswith("sha256:"):
            newest = next((item for item in found if item.tag == reference), None)
            if not newest or not newest.digest:
                raise unknown_manifest()
            digest, tag = newest.digest, reference
        same = [item for item in found if item.digest == digest]
        # A part of a list is no item: no tag makes it insecure, whatever its list is.
        policy = next((item for item in same if item.tag == tag), None) or max(same, key=lambda item: item.created, default=None)
        insecure = is_insecure(stream) or (policy is not None and policy.insecure)
        if not same:
            layers = self._get(STREAMS.format(namespace, name) + "/layers", unknown_manifest()).get("images") or {}
            same = [item for item in found if digest in ((layers.get(item.digest) or {}).get("manifests") or ())]
        if not same:
            raise unknown_manifest()
        return digest, same[-1].repository, insecure

    def _fetch(self, namespace: str, repository: str, get: Callable[[str, str, Access], T], *, insecure: bool) -> T:
        """What the first place gives that has it. Raises the RegistryError of the first place that was asked."""
        first: RegistryError | None = None
        for place in self._read_rules(namespace).places(repository, insecure=insecure):
            try:
                return get(*place)
            except RegistryError as error:
                first = first or error
        assert first
        raise first

    def _read_rules(self, namespace: str) -> _Rules:
        with self._lock:
            known = self._rules.get(namespace)
        if known and time.monotonic() - known.at < RULES_SECONDS:
            return known
        try:
            config = self._store.get(IMAGE_CONFIG, "", "cluster")
            rules = _Rules(
                time.monotonic(),
                tuple(item for kind in MIRROR_SETS for item in self._store.list(kind)[1]),
                registry_credentials(self._store, namespace),
                trusted_authorities(self._store, config.get("spec") or {}),
            )
        except errors.StatusError as error:
            raise RefusedError(500, "UNKNOWN", f"unknown error: {error}") from error
        with self._lock:
            self._rules[namespace] = rules
        return rules


def items(stream: Object) -> list[Item]:
    """The items of a stream's tags, the newest of each tag first."""
    policies = {tag["name"]: tag.get("importPolicy") or {} for tag in (stream.get("spec") or {}).get("tags") or []}
    return [
        Item(
            tag["tag"],
            item.get("image") or "",
            parse_reference(item["dockerImageReference"]).name,
            item["created"],
            bool((policies.get(tag["tag"]) or {}).get("insecure")),
        )
        for tag in _status_tags(stream)
        for item in tag.get("items") or []
    ]


def blob_places(stream: Object) -> list[tuple[str, bool]]:
    """The repositories that a blob of a stream may be in, each with whether it may be insecure: those of the newest items first.

    A registry is insecure for all repositories there if it is for one; secure ones come first.
    """
    found = items(stream)
    newest = [item for index, item in enumerate(found) if index == 0 or found[index - 1].tag != item.tag]
    older = [item for item in found if item not in newest]
    places: dict[str, bool] = {}
    for group in (newest, older):
        hosts = {parse_reference(item.repository).host for item in group if item.insecure or is_insecure(stream)}
        repositories = {item.repository: parse_reference(item.repository).host in hosts for item in group}
        for repository, insecure in sorted(repositories.items(), key=lambda found: found[::-1]):
            places.setdefault(repository, insecure)
    return list(places.items())


def is_insecure(stream: Object) -> bool:
    """Whether a stream's annotation makes all that it has insecure."""
    return ((stream["metadata"].get("annotations") or {}).get(INSECURE_ANNOTATION)) == "true"


def _status_tags(stream: Object) -> list[Object]:
    return (stream.get("status") or {}).get("tags") or []
