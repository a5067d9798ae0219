"""What streams claim: the references that their Local tags stand for, each with the digest that pods are served for it. Pure."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec
from mirrorstream.imagestream.failures import FailureClass, classify
from mirrorstream.imagestream.model import LOCAL, ImageStream, SpecTag, StatusTag, decode_imagestream, is_pending
from mirrorstream.imagestream.settled import TagItem
from mirrorstream.rules.references import MAXIMUM_LENGTH, Reference, is_digest, parse_or_none, suffix
from mirrorstream.text.times import seconds_of

REMEMBERED = 10_000
"""Parsed references that are kept; each is some hundred bytes."""
SETTLED, MAYBE_EARLIER, EARLIER = "", "maybe-earlier", "earlier"
"""Whether a claim's digest is an image of the tag's present `from`: it is, this is not known, it is not."""
HISTORIC = -1
"""In place of a spec tag's generation: the claim is to one of the history, not to `from`."""
SHARED = 256
"""How many different import settings of tags are shared; most tags of a cluster have one of a few."""


class Stream(msgspec.Struct, frozen=True, gc=False):
    """A stream that can be pulled from; `opted_out` if its annotation keeps the controller from importing it."""

    namespace: str
    name: str
    opted_out: bool = False

    @property
    def path(self) -> str:
        """Its repository in the internal registry."""
        return f"{self.namespace}/{self.name}"


class TagImport(msgspec.Struct, frozen=True, gc=False):
    """How a tag is imported, apart from what it brought; tags of which all of it is the same share one.

    `failure` is None while nothing is known against the import. `legacy` if the image is one architecture's where the source has a
    list: `architecture`'s, or the API server's if that is empty. `insecure` is whether the registry may fetch it without TLS; of a
    tag without an image, whether the allow-list takes its source for insecure.
    `failed_at` is in seconds since 1970, 0 where no import failed or nobody says when.
    """

    source_digest: str = ""
    legacy: bool = False
    architecture: str = ""
    insecure: bool = False
    failure: FailureClass | None = None
    generation: int = HISTORIC
    item_generation: int = 0
    failed_generation: int = 0
    failed_at: int = 0


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A tag's claim to a reference: pods that name it are served `digest`. There are as many as tags in a cluster.

    `repository` and `source_tag` are where the tag imports from (or, for a tag that does not import, where its item came from),
    `came_from` the repository of the item where it is not that. Without `digest` the tag has not been imported. Only the claim to
    `from` has a `standing` other than SETTLED.
    """

    stream: Stream
    tag: str
    repository: str
    source_tag: str
    tag_import: TagImport
    digest: str = ""
    came_from: str = ""
    standing: str = SETTLED

    @property
    def name(self) -> str:
        """`namespace/stream:tag`."""
        return f"{self.stream.namespace}/{self.stream.name}:{self.tag}"

    @property
    def source(self) -> str:
        """Where the tag imports from, normalised."""
        return self.repository + suffix(self.source_tag, self.tag_import.source_digest)

    @property
    def recorded(self) -> str:
        """The repository that its item came from."""
        return self.came_from or self.repository

    @property
    def is_of_from(self) -> bool:
        """Whether it is the claim to the tag's `from`, not to one of its history."""
        return self.tag_import.generation != HISTORIC

    @property
    def order(self) -> tuple[int, str, str]:
        """Among claims to one reference the least of these decides."""
        if self.standing == EARLIER:
            rank = 3
        elif not self.digest:
            rank = 2
        else:
            rank = 0 if self.standing == SETTLED else 1
        return (rank, self.stream.name, self.tag)


class ClaimKey(NamedTuple):
    """What references are compared by; `version` is the digest, as a node pulls, or else the tag."""

    repository: str
    version: str


Claims = dict[str, Claim | tuple[Claim, ...]]
"""The claims to one repository by version, never changed. Most versions are claimed once, and these have no tuple of their own."""


class StreamClaims(msgspec.Struct, frozen=True, gc=False):
    """All that the index knows of one stream: what it claims, by repository."""

    stream: Stream
    uid: str
    repositories: tuple[tuple[str, Claims], ...]

    def pairs(self) -> Iterator[tuple[ClaimKey, Claim]]:
        """Each claim with what it claims."""
        for repository, claims in self.repositories:
            for version in claims:
                for claim in claims_to(claims, version):
                    yield ClaimKey(repository, version), claim

    def items(self) -> dict[str, TagItem]:
        """The items of the tags that import, as `mirrorstream.imagestream.settled` follows them."""
        return {claim.tag: _tag_item(claim) for _, claim in self.pairs() if claim.is_of_from and claim.digest}


def claims_to(claims: Claims, version: str) -> tuple[Claim, ...]:
    """The claims to one version, the one that decides first."""
    found = claims.get(version, ())
    return found if isinstance(found, tuple) else (found,)


def _tag_item(claim: Claim) -> TagItem:
    found = claim.tag_import
    return TagItem(claim.source, found.generation, claim.digest, found.item_generation, found.failed_generation)


def claim_key(reference: Reference) -> ClaimKey:
    """What a reference is compared by."""
    return ClaimKey(reference.name, reference.digest or reference.tag)


@lru_cache(maxsize=REMEMBERED)
def _remembered(text: str) -> tuple[Reference, ClaimKey] | None:
    reference = parse_or_none(text)
    return (reference, claim_key(reference)) if reference else None


def parse_with_key(text: str) -> tuple[Reference, ClaimKey] | None:
    """What a pod names, and its `claim_key`; None if it is no reference. Clusters name the same images again and again."""
    return _remembered(text) if len(text) <= MAXIMUM_LENGTH else None


def parse_again(text: str) -> Reference | None:
    """The same without the key."""
    found = parse_with_key(text)
    return found[0] if found else None


def stream_claims(stream: ImageStream) -> StreamClaims:
    """What a stream's Local tags claim."""
    statuses = {status.tag: status for status in stream.status.tags or ()}
    reader = _Reader(Stream(stream.metadata.namespace, stream.metadata.name, stream.opted_out), _insecure(stream))
    found = (
        pair
        for tag in stream.spec_tags
        if tag.reference_policy.type == LOCAL and not tag.reference
        for pair in reader.claims(tag, statuses.get(tag.name))
    )
    return StreamClaims(reader.stream, stream.metadata.uid, by_repository(found))


def read_claims(raw: bytes) -> StreamClaims:
    """A stream's claims from its JSON; nothing else of it is kept. Raises msgspec.ValidationError."""
    return stream_claims(decode_imagestream(raw))


def by_repository(pairs: Iterable[tuple[ClaimKey, Claim]]) -> tuple[tuple[str, Claims], ...]:
    """Claims as StreamClaims has them; thousands of a stream's tags may claim the same reference, and are sorted in once."""
    found: dict[str, dict[str, list[Claim]]] = {}
    for key, claim in pairs:
        found.setdefault(key.repository, {}).setdefault(key.version, []).append(claim)
    return tuple(
        [
            (repository, {version: claims[0] if len(claims) == 1 else in_order(claims) for version, claims in versions.items()})
            for repository, versions in found.items()
        ]
    )


def in_order(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """Claims to one reference, the one that decides first."""
    return tuple(sorted(claims, key=lambda claim: claim.order))


_tag_import = lru_cache(maxsize=SHARED)(TagImport)


def _insecure(stream: ImageStream) -> Callable[[SpecTag, str], bool]:
    """Whether the internal registry fetches a digest of a tag without TLS (image-registry, `TagIsInsecure`).

    It goes by the stream's annotation, or by the import policy of one tag: of those that have the digest in their history the one
    that got it last, whichever tag the pod names. The parts of a manifest list belong to no tag: the annotation alone counts.
    """
    if stream.is_insecure:
        return lambda tag, digest: True
    allowed = {tag.name for tag in stream.spec_tags if tag.import_policy.is_pulled_insecurely}
    if not allowed:
        return lambda tag, digest: False
    last: dict[str, tuple[str, str]] = {}
    for status in stream.status.tags or ():
        for item in status.items or ():
            # The API server writes all times alike, in UTC.
            if item.image not in last or (item.created or "") > last[item.image][0]:
                last[item.image] = (item.created or "", status.tag)
    return lambda tag, digest: (last[digest][1] if digest in last else tag.name) in allowed


class _Reader:
    """Makes the claims of one stream. Equal texts are kept once: its tags name the same few repositories, tags and digests."""

    def __init__(self, stream: Stream, insecure: Callable[[SpecTag, str], bool]) -> None:
        """`insecure` says of a tag and a digest of its whether the registry may fetch it without TLS."""
        self.stream = stream
        self._insecure = insecure
        self._texts: dict[str, str] = {}

    def claims(self, tag: SpecTag, status: StatusTag | None) -> Iterator[tuple[ClaimKey, Claim]]:
        """A tag's keys with their claims: `from`, then the history from its newest item."""
        source = parse_or_none(tag.from_.name) if tag.importable and tag.from_ else None
        # An Image of an ImageStreamMapping may have any name: what is no digest can be pulled by nobody.
        history = [
            (item.image if is_digest(item.image) else "", parse_or_none(item.docker_image_reference))
            for item in (status.items if status else None) or ()
        ]
        claimed = self._from(tag, status, source, *(history[0] if history else ("", None))) if source else None
        seen = set()
        if source and claimed:
            key = self._key(source.name, source.digest or source.tag)
            seen.add(key)
            yield key, claimed
        for image, came_from in history:
            if not image or came_from is None:
                continue
            if claimed and claimed.digest == image and came_from.digest and came_from.name == claimed.recorded:
                claim = claimed
            else:
                claim = self._claim(tag, source or came_from, image, came_from)
            keys = [self._key(came_from.name, came_from.digest or came_from.tag)]
            if source:
                keys.append(self._key(source.name, image))
            for key in keys:
                if key not in seen:
                    seen.add(key)
                    yield key, claim

    def _from(
        self, tag: SpecTag, status: StatusTag | None, source: Reference, digest: str, came_from: Reference | None
    ) -> Claim | None:
        """The claim to `from` itself, with its newest item's digest; the index says if that is an image of the present `from`."""
        newest = status.newest if status else None
        failure = status.failure if status else None
        generation = tag.generation or 0
        if newest is None:
            kind = None
            if failure and not is_pending(tag, status):
                kind = classify(failure.reason, failure.message, (tag.from_.name if tag.from_ else "", str(source))).kind
            return self._claim(tag, source, failure=kind, generation=generation)
        if not digest:
            return None
        return self._claim(
            tag,
            source,
            digest,
            came_from,
            generation=generation,
            item_generation=newest.generation,
            failed_generation=failure.generation if failure else 0,
            failed_at=int(seconds_of(failure.last_transition_time if failure else None) or 0),
        )

    def _claim(
        self,
        tag: SpecTag,
        source: Reference,
        digest: str = "",
        came_from: Reference | None = None,
        *,
        failure: FailureClass | None = None,
        generation: int = HISTORIC,
        item_generation: int = 0,
        failed_generation: int = 0,
        failed_at: int = 0,
    ) -> Claim:
        same, legacy = self._same, tag.import_policy.is_legacy
        # The importer looks at the annotation only where `from` is no digest.
        architecture = tag.annotations.prefer_architecture if legacy and tag.annotations and not source.digest else ""
        insecure = self._insecure(tag, digest) or (not digest and tag.import_policy.insecure)
        return Claim(
            self.stream,
            same(tag.name),
            same(source.name),
            same(source.tag),
            _tag_import(
                same(source.digest),
                legacy,
                architecture,
                insecure,
                failure,
                generation,
                item_generation,
                failed_generation,
                failed_at,
            ),
            same(digest),
            same(came_from.name) if came_from and came_from.name != source.name else "",
        )

    def _key(self, repository: str, version: str) -> ClaimKey:
        return ClaimKey(self._same(repository), self._same(version))

    def _same(self, text: str) -> str:
        return self._texts.setdefault(text, text)
