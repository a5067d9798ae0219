"""Which tag an image belongs to: an index of the streams by every reference that their Local tags stand for.

A pure structure that is told of each stream's old and new entries; the answer depends on the streams as they are, never on the
order in which they came.
"""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import msgspec
from mirrorstream.failures import FailureClass, classify
from mirrorstream.imagestreams import ImageStream, SpecTag, StatusTag, decode_imagestream, is_pending
from mirrorstream.references import MAXIMUM_LENGTH, Reference, ReferenceError, parse_reference

REMEMBERED = 10_000
"""Parsed references that are kept; each is some hundred bytes."""


class StreamName(msgspec.Struct, frozen=True, gc=False):
    """A stream that can be pulled from; `repository` is its `status.dockerImageRepository`."""

    namespace: str
    name: str
    repository: str


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A tag's claim to a reference: pods that name it are served `digest` of the stream's repository.

    `source` is where the tag imports from (or, for a tag that does not import, where its item came from). Without `digest` the
    tag has not been imported; then `failure` says why, or is None while nothing is known. `served_from` is set, for a tag whose
    import fails, to the repository of its newest item where that is not the source's own.
    """

    stream: StreamName
    tag: str
    source: str
    digest: str = ""
    failure: FailureClass | None = None
    served_from: str = ""
    opted_out: bool = False
    """Whether the stream's annotation keeps the controller from importing it."""

    @property
    def name(self) -> str:
        """`namespace/stream:tag`."""
        return f"{self.stream.namespace}/{self.stream.name}:{self.tag}"

    @property
    def target(self) -> str:
        """What a pod is pointed at: the digest, or the tag that is still to come."""
        return f"{self.stream.repository}@{self.digest}" if self.digest else f"{self.stream.repository}:{self.tag}"

    @property
    def order(self) -> tuple[bool, str, str]:
        """Among claims to one reference the least of these decides."""
        return (not self.digest, self.stream.name, self.tag)


class StreamClaims(msgspec.Struct, frozen=True, gc=False):
    """All that the index knows of one stream."""

    stream: StreamName
    claims: tuple[tuple[str, Claim], ...]


def claim_key(reference: Reference) -> str:
    """What references are compared by: `name@digest`, as a node pulls, or `name:tag`."""
    return f"{reference.name}@{reference.digest}" if reference.digest else f"{reference.name}:{reference.tag}"


def parse(text: str) -> Reference | None:
    """The reference in `text`, or None if there is none."""
    try:
        return parse_reference(text)
    except ReferenceError:
        return None


_remembered = lru_cache(maxsize=REMEMBERED)(parse)


def parse_again(text: str) -> Reference | None:
    """The same for what pods name: clusters name the same images again and again."""
    return _remembered(text) if len(text) <= MAXIMUM_LENGTH else None


def stream_claims(stream: ImageStream) -> StreamClaims:
    """What a stream's Local tags claim; nothing without an internal registry."""
    named = StreamName(stream.metadata.namespace, stream.metadata.name, stream.status.docker_image_repository)
    if not named.repository:
        return StreamClaims(named, ())
    statuses = {status.tag: status for status in stream.status.tags or ()}
    found = (
        pair
        for tag in stream.spec_tags
        if tag.reference_policy.type == "Local" and not tag.reference
        for pair in _tag_claims(named, tag, statuses.get(tag.name), stream.opted_out)
    )
    return StreamClaims(named, tuple(found))


def read_claims(raw: bytes) -> StreamClaims:
    """A stream's claims from its JSON; nothing else of it is kept. Raises msgspec.ValidationError."""
    return stream_claims(decode_imagestream(raw))


def _tag_claims(stream: StreamName, tag: SpecTag, status: StatusTag | None, opted_out: bool) -> Iterator[tuple[str, Claim]]:
    """Keys with their claims, the strongest first: `from`, then the history from its newest item."""
    source = parse(tag.from_.name) if tag.importable and tag.from_ else None
    claimed = _source_claim(stream, tag, status, source, opted_out) if source else None
    seen = set()
    if source and claimed:
        # Of many equal texts and claims one is kept: there are as many as tags in the cluster.
        key = claimed.source if not source.digest else claim_key(source)
        seen.add(key)
        yield key, claimed
    for item in (status.items if status else None) or ():
        came_from = parse(item.docker_image_reference)
        # What was pushed, or tagged from another stream, is the internal registry's own already.
        if not item.image or came_from is None or came_from.name == stream.repository:
            continue
        if claimed and claimed.digest == item.image and not claimed.served_from:
            claim = claimed
        else:
            claim = Claim(stream, tag.name, str(source or came_from), item.image)
        keys = [claim_key(came_from)]
        if source:
            keys.append(f"{source.name}@{item.image}")
        for key in keys:
            if key not in seen:
                seen.add(key)
                yield key, claim


def _source_claim(stream: StreamName, tag: SpecTag, status: StatusTag | None, source: Reference, opted_out: bool) -> Claim | None:
    """The claim to `from` itself: its newest item's digest, unless that item is known to belong to an earlier `from`."""
    newest = status.newest if status else None
    failure = status.failure if status else None
    text = str(source)
    if newest is None or is_pending(tag, status):
        # A spec that was just changed: the item, if there is one, is what the tag was before.
        kind = None
        if failure and not is_pending(tag, status):
            kind = classify(failure.reason, failure.message, (tag.from_.name if tag.from_ else "", text)).kind
        return Claim(stream, tag.name, text, failure=kind, opted_out=opted_out)
    if not newest.image:
        return None
    came_from = parse(newest.docker_image_reference)
    elsewhere = came_from.name if failure and came_from and came_from.name != source.name else ""
    return Claim(stream, tag.name, text, newest.image, served_from=elsewhere)


class Index:
    """Claims by namespace and reference; read from many threads while one changes it.

    Each entry is replaced as a whole, so a reader sees a reference's claims before or after a change, never between.
    """

    def __init__(self) -> None:
        self._namespaces: dict[str, dict[str, tuple[Claim, ...]]] = {}
        self._hosts: Counter[str] = Counter()
        self.version = 0
        """Another number after each change."""

    def apply(self, old: StreamClaims | None, new: StreamClaims | None) -> None:
        """Take over a stream that appeared, changed or went away.

        What is new comes first: no reader may find nothing where there was something before and is something after.
        """
        if new is not None:
            self._add(new)
        if old is not None:
            self._remove(old)
        self.version += 1

    def _add(self, entry: StreamClaims) -> None:
        entries = self._namespaces.setdefault(entry.stream.namespace, {})
        for key, claims in _by_key(entry).items():
            entries[key] = tuple(sorted((*entries.get(key, ()), *claims), key=_order))
        if host := _host(entry.stream.repository):
            self._hosts[host] += 1

    def _remove(self, entry: StreamClaims) -> None:
        entries = self._namespaces.get(entry.stream.namespace, {})
        for key, claims in _by_key(entry).items():
            gone = Counter(claims)
            left = []
            for claim in entries.get(key, ()):
                if gone[claim]:
                    gone[claim] -= 1
                else:
                    left.append(claim)
            if left:
                entries[key] = tuple(left)
            else:
                del entries[key]
        if not entries:
            self._namespaces.pop(entry.stream.namespace, None)
        if host := _host(entry.stream.repository):
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]

    def find(self, namespace: str, key: str) -> tuple[Claim, ...]:
        """The claims to a reference (by its `claim_key`) in a namespace, the one that decides first."""
        entries = self._namespaces.get(namespace)
        return entries.get(key, ()) if entries else ()

    def is_internal(self, host: str) -> bool:
        """Whether `host[:port]` is the internal registry's."""
        return host in self._hosts

    def references(self) -> int:
        """How many references are claimed, counted once for each namespace."""
        return sum(len(entries) for entries in list(self._namespaces.values()))


def _by_key(entry: StreamClaims) -> dict[str, list[Claim]]:
    """A stream's claims by reference: thousands of its tags may claim the same one, and are sorted in once."""
    found: dict[str, list[Claim]] = {}
    for key, claim in entry.claims:
        found.setdefault(key, []).append(claim)
    return found


def _order(claim: Claim) -> tuple[bool, str, str]:
    return claim.order


def _host(repository: str) -> str:
    return repository.partition("/")[0]
