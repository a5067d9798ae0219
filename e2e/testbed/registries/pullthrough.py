"""What the internal registry finds for a stream's tag or digest, and where it fetches it: it stores nothing itself.

It asks the mirrors that mirror sets name, digest mirrors first, and then what the tag's item names. It takes every mirror for
insecure; the item's own registry only if the tag or the Image config makes it insecure.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mirrorstream.kube.client import ApiError, Client, ClientError
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_reference

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.foreign import ReadThroughStore
from e2e.testbed.simulator.images.fetch import Access, Fetcher, Manifest
from e2e.testbed.simulator.images.importer import IMAGE_CONFIG, MIRROR_SETS, registry_credentials, trusted_authorities
from e2e.testbed.simulator.images.registry_errors import RegistryError

Object = dict[str, Any]
T = TypeVar("T")
STREAMS = "/apis/image.openshift.io/v1/namespaces/{}/imagestreams/{}"
RULES_SECONDS = 1.0
"""How old mirror sets, the Image config and pull secrets may be: one pull asks several times."""


class RefusedError(Exception):
    """What the registry answers instead: a status and an error code of the distribution API."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class _Rules:
    """The cluster's configuration for one namespace, read at `at` (monotonic)."""

    at: float
    policy: MirrorPolicy
    credentials: dict[str, tuple[str, str]]
    authorities: str
    insecure_hosts: frozenset[str]
    """Whole hosts only: paths and `*.domain` mean nothing to it."""

    def places(self, repository: str, digest: str, *, insecure: bool) -> Iterator[tuple[str, str, Access]]:
        """Host, path and access of each place to ask for a digest, in order."""
        wanted = f"{repository}@{digest}"
        for candidate in self.policy.import_candidates(wanted):
            yield self._place(candidate.reference, insecure=True)
        source = self.policy.pull_sources(wanted)[-1]
        if not source.blocked:
            host = source.reference.partition("/")[0]
            yield self._place(source.reference, insecure=insecure or host in self.insecure_hosts)

    def _place(self, reference: str, *, insecure: bool) -> tuple[str, str, Access]:
        parsed = parse_reference(reference)
        return parsed.host, parsed.path, Access(insecure, self.credentials.get(parsed.host), self.authorities)


@dataclass(frozen=True)
class Item:
    """A tag's item: its digest, the repository that it came from, and whether its tag allows that to be insecure."""

    digest: str
    repository: str
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
        stream = self._stream(namespace, name)
        digest, item = self._find(namespace, name, stream, reference)

        def fetch(host: str, path: str, access: Access) -> Manifest:
            return self._fetcher.manifest(host, path, digest, access)

        return self._fetch(namespace, [item], digest, fetch, "MANIFEST_UNKNOWN", "manifest unknown")

    def blob(self, namespace: str, name: str, digest: str) -> bytes:
        """A blob, from wherever one of the stream's items came from. Raises RefusedError."""
        found = {item.repository: item for item in reversed(items(self._stream(namespace, name)))}

        def fetch(host: str, path: str, access: Access) -> bytes:
            return self._fetcher.blob(host, path, digest, access)

        wanted = list(reversed(found.values()))
        return self._fetch(namespace, wanted, digest, fetch, "BLOB_UNKNOWN", "blob unknown to registry")

    def has(self, namespace: str, name: str, reference: str) -> bool:
        """Whether a stream knows a tag or digest."""
        try:
            self._find(namespace, name, self._stream(namespace, name), reference)
        except RefusedError:
            return False
        return True

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

    def _find(self, namespace: str, name: str, stream: Object, reference: str) -> tuple[str, Item]:
        """The digest that a reference means, and the item that it belongs to."""
        unknown = RefusedError(404, "MANIFEST_UNKNOWN", "manifest unknown")
        if not reference.startswith("sha256:"):
            newest = [item for tag in _status_tags(stream) if tag["tag"] == reference for item in items(stream, tag)[:1]]
            if not newest or not newest[0].digest:
                raise unknown
            return newest[0].digest, newest[0]
        for item in items(stream):
            if item.digest == reference:
                return reference, item
        layers = self._get(STREAMS.format(namespace, name) + "/layers", unknown)
        for item in items(stream):
            if reference in ((layers.get("images") or {}).get(item.digest) or {}).get("manifests", ()):
                return reference, item
        raise unknown

    def _fetch(
        self, namespace: str, found: list[Item], digest: str, get: Callable[[str, str, Access], T], code: str, text: str
    ) -> T:
        """What the first place gives that has it; the first error that is none of its absence, else that it is unknown."""
        rules = self._read_rules(namespace)
        failure: RegistryError | None = None
        for item in found:
            for place in rules.places(item.repository, digest, insecure=item.insecure):
                try:
                    return get(*place)
                except RegistryError as error:
                    if error.code not in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN"):
                        failure = failure or error
        if failure:
            raise RefusedError(500, "UNKNOWN", f"unknown error: {failure}")
        raise RefusedError(404, code, text)

    def _read_rules(self, namespace: str) -> _Rules:
        with self._lock:
            known = self._rules.get(namespace)
        if known and time.monotonic() - known.at < RULES_SECONDS:
            return known
        try:
            config = self._store.get(IMAGE_CONFIG, "", "cluster")
            objects = [{**item, "kind": kind.kind} for kind in MIRROR_SETS for item in self._store.list(kind)[1]]
            rules = _Rules(
                time.monotonic(),
                MirrorPolicy.from_objects([*objects, {**config, "kind": "Image"}]),
                registry_credentials(self._store, namespace),
                trusted_authorities(self._store, config.get("spec") or {}),
                frozenset(((config.get("spec") or {}).get("registrySources") or {}).get("insecureRegistries") or ()),
            )
        except errors.StatusError as error:
            raise RefusedError(500, "UNKNOWN", f"unknown error: {error}") from error
        with self._lock:
            self._rules[namespace] = rules
        return rules


def items(stream: Object, *tags: Object) -> list[Item]:
    """The items of some of a stream's tags (default: all), the newest of each tag first."""
    policies = {tag["name"]: tag.get("importPolicy") or {} for tag in (stream.get("spec") or {}).get("tags") or []}
    return [
        Item(
            item.get("image") or "",
            parse_reference(item["dockerImageReference"]).name,
            bool((policies.get(tag["tag"]) or {}).get("insecure")),
        )
        for tag in tags or _status_tags(stream)
        for item in tag.get("items") or []
    ]


def _status_tags(stream: Object) -> list[Object]:
    return (stream.get("status") or {}).get("tags") or []
