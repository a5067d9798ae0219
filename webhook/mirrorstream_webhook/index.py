"""Which tag an image belongs to: an index of the streams by every reference that their Local tags stand for.

A pure structure that is told of each stream's old and new entries; the answer depends on the streams as they are, never on the
order in which they came. The one exception is what no stream says itself: whether a tag's image was imported from its present
`from` (see `mirrorstream.imagestream.settled`).
"""

import msgspec
from mirrorstream.imagestream.settled import UNKNOWN, StreamItems, follow

from mirrorstream_webhook.claims import (
    EARLIER,
    MAYBE_EARLIER,
    Claim,
    ClaimKey,
    Claims,
    StreamClaims,
    by_repository,
    claims_to,
    in_order,
)


class Index:
    """Claims by namespace and reference; read from many threads while one changes it.

    Each entry is replaced as a whole, so a reader sees a stream's claims before or after a change, never between.
    """

    def __init__(self) -> None:
        self._namespaces: dict[str, dict[str, tuple[Claims, ...]]] = {}
        """By namespace and repository: what each stream claims of it, the streams' own."""
        self._unsettled: dict[str, tuple[StreamClaims, StreamItems]] = {}
        """Of the streams that have an item which is not settled, by path: their entry as it is in the index. They are few."""
        self.version = 0
        """Another number after each change."""

    def apply(self, old: StreamClaims | None, new: StreamClaims | None) -> None:
        """Take over a stream that appeared, changed or went away.

        What is new comes first: no reader may find nothing where there was something before and is something after.
        """
        indexed, before = self._unsettled.get(old.stream.path, (old, None)) if old else (None, None)
        if old is not None and before is None:
            before = StreamItems(old.uid, old.items(), {})
        if new is not None:
            self._unsettled_of(new, before)
            self._add(self._unsettled.get(new.stream.path, (new,))[0])
        elif old is not None:
            self._unsettled.pop(old.stream.path, None)
        if indexed is not None:
            self._remove(indexed)
        self.version += 1

    def _unsettled_of(self, new: StreamClaims, before: StreamItems | None) -> None:
        """Keep `new` as it goes into the index, if one of its items is not settled under the present `from`."""
        items = follow(before, new.uid, new.items())
        if not items.unsettled:
            self._unsettled.pop(new.stream.path, None)
            return
        standing = {tag: MAYBE_EARLIER if found == UNKNOWN else EARLIER for tag, found in items.unsettled.items()}
        pairs = (
            # A digest that pods name is what it is, whatever `from` was.
            (key, msgspec.structs.replace(claim, standing=standing[claim.tag]))
            if claim.is_of_from and claim.tag in standing and key.version != claim.digest
            else (key, claim)
            for key, claim in new.pairs()
        )
        entry = msgspec.structs.replace(new, repositories=by_repository(pairs))
        self._unsettled[new.stream.path] = (entry, items)

    def _add(self, entry: StreamClaims) -> None:
        for name, claims in entry.repositories:
            repositories = self._namespaces.setdefault(entry.stream.namespace, {})
            repositories[name] = (*repositories.get(name, ()), claims)

    def _remove(self, entry: StreamClaims) -> None:
        for name, claims in entry.repositories:
            repositories = self._namespaces[entry.stream.namespace]
            left = list(repositories[name])
            left.remove(claims)
            if left:
                repositories[name] = tuple(left)
            else:
                del repositories[name]
            if not repositories:
                del self._namespaces[entry.stream.namespace]

    def find(self, namespace: str, key: ClaimKey) -> tuple[Claim, ...]:
        """The claims to a reference in a namespace, the one that decides first."""
        repositories = self._namespaces.get(namespace)
        held = repositories.get(key.repository) if repositories else None
        if held is None:
            return ()
        if len(held) == 1:
            return claims_to(held[0], key.version)
        return in_order(claim for claims in held for claim in claims_to(claims, key.version))

    def references(self) -> int:
        """How many references are claimed, counted once for each namespace."""
        return sum(
            len(held[0]) if len(held) == 1 else len(set().union(*held))
            for repositories in list(self._namespaces.values())
            for held in list(repositories.values())
        )

    def legacy_tags(self) -> int:
        """How many tags have an image that is one architecture's if their source has a list of several."""
        return len(
            {
                claim.name
                for repositories in list(self._namespaces.values())
                for held in list(repositories.values())
                for claims in held
                for version in claims
                for claim in claims_to(claims, version)
                if claim.is_of_from and claim.digest and claim.tag_import.legacy
            }
        )
