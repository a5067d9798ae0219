"""What streams must look like once nobody does anything any more, worked out from specs, rules and registries alone.

None of mirrorstream's own code decides here.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from mirrorstream.kube.client import ApiError

from e2e.testbed.cluster import Namespace
from e2e.testbed.faults.contents import MISSING, Contents, Version
from e2e.testbed.faults.history import History
from e2e.testbed.faults.rules import Rules
from e2e.testbed.faults.streams import Object, condition_of, is_importable, is_pending, items_of, opted_out, spec_tags, statuses
from e2e.testbed.registries.registry import Failure


@dataclass(frozen=True)
class Outcome:
    """What a tag can get now: from the `platform`'s own import, and, where that fails, from mirrorstream (`healed`)."""

    platform: Version | None
    healed: Version | None
    failure: Failure | None


def outcome(contents: Contents, rules: Rules, tag: Object) -> Outcome:
    """Ask the registries as the platform does (mirrors of tags, then the source), and then as mirrorstream does (all mirrors)."""
    source = contents.source(tag["from"]["name"])
    for_tags = [contents.at_mirror(prefix, source) for prefix in rules.mirrors["ImageTagMirrorSet"]]
    for_digests = [contents.at_mirror(prefix, source) for prefix in rules.mirrors["ImageDigestMirrorSet"]]
    upstream = contents.at_upstream(source)
    failure = upstream if isinstance(upstream, Failure) else None
    found = next((version for version in for_tags if version), None)
    # The parts of a list that is preserved are fetched by digest: a mirror of tags alone does not have them for the platform.
    if found and found.digest(import_mode(tag)) != found.legacy and failure and not for_digests:
        found = None
    native = found or (upstream if isinstance(upstream, Version) else None)
    return Outcome(native, next((version for version in for_tags + for_digests if version), None), failure)


def import_mode(tag: Object) -> str:
    """Legacy, or PreserveOriginal."""
    return str((tag.get("importPolicy") or {}).get("importMode", "Legacy"))


@dataclass(frozen=True)
class Expected:
    """Holds streams to it. `imported`: a user has asked the platform for every tag since registries and rules are what they are."""

    namespace: Namespace
    contents: Contents
    rules: Rules
    history: History
    imported: bool

    def problems(self) -> list[str]:
        """What is not as it must be, or not yet."""
        found = []
        for stream in self.namespace.streams():
            where = f"{self.namespace.name}/{stream['metadata']['name']}"
            found += [f"{where}:{text}" for text in self._stream(stream)]
        return found

    def tally(self) -> Counter[str]:
        """How many tags are served by whom, or fail."""
        found: Counter[str] = Counter()
        for stream in self.namespace.streams():
            for name, tag in spec_tags(stream).items():
                if is_importable(tag):
                    failing = condition_of(statuses(stream).get(name, {}))
                    native = outcome(self.contents, self.rules, tag).platform
                    found["failing" if failing else "imported by the platform" if native else "healed"] += 1
        return found

    def _stream(self, stream: Object) -> Iterator[str]:
        entries = statuses(stream)
        for name, tag in spec_tags(stream).items():
            if is_importable(tag):
                yield from self._tag(stream, tag, entries.get(name, {}))
            elif tag["from"]["name"] in entries and spec_tags(stream).get(tag["from"]["name"]):
                # It follows a tag of its stream.
                followed, own = (items_of(entries.get(n, {})) for n in (tag["from"]["name"], name))
                if followed and (not own or own[0]["image"] != followed[0]["image"]):
                    yield f"{name} has {own[:1]}, but what it follows {followed[0]}"
        for entry in entries.values():
            for item in items_of(entry)[:1]:
                if not self._exists(item["image"]):
                    yield f"{entry['tag']} has {item['image']}, of which there is no Image, or not of all its parts"

    def _exists(self, digest: str) -> bool:
        try:
            parts = self.namespace.image(digest).get("dockerImageManifests") or []
            return all(self.namespace.image(part["digest"]) for part in parts)
        except ApiError as error:
            if error.status != 404:
                raise
            return False

    def _tag(self, stream: Object, tag: Object, entry: Object) -> Iterator[str]:
        name, items, condition = tag["name"], items_of(entry), condition_of(entry)
        can = outcome(self.contents, self.rules, tag)
        pending = is_pending(tag, entry)
        if condition is None and not pending:
            yield from self._served(stream, tag, items, can)
            return
        if self.imported and can.platform:
            yield f"{name} fails, and the platform can have it: {entry}"
        left_alone = opted_out(stream) or can.healed is None or self._said_no(can, condition)
        if not left_alone:
            yield f"{name} of {tag} fails, and a mirror has it: {entry}"
        elif not condition and not opted_out(stream) and self.imported:
            yield f"{name} of {tag} is pending: {entry}"
        followed = (stream["metadata"]["uid"], name) in self.history.followed
        if condition and items and not followed and items[0]["generation"] >= max(tag["generation"], condition["generation"]):
            yield f"{name} is served at its generation, and its condition is stale: {entry}"

    def _served(self, stream: Object, tag: Object, items: list[Object], can: Outcome) -> Iterator[str]:
        name = tag["name"]
        if not items:
            yield f"{name} has nothing, and nobody says why"
            return
        image = items[0]["image"]
        if self.contents.origin(image) != self.contents.source(tag["from"]["name"]):
            # When a tag begins to follow another one, the platform raises that one's item to the newest generation, and never
            # imports what was pending: nothing shows that it was.
            if (stream["metadata"]["uid"], name) not in self.history.followed or self.imported:
                yield f"{name} of {tag} has {items[0]}"
        elif self.imported:
            version = can.platform or (can.healed if self._may_heal(stream, can) else None)
            mode = import_mode(tag)
            if version is None:
                yield f"{name} of {tag} is well, and nobody can have it: {items[0]}"
            elif image != version.digest(mode):
                yield f"{name} has {image} instead of {version.digest(mode)}"

    @staticmethod
    def _may_heal(stream: Object, can: Outcome) -> bool:
        return not opted_out(stream) and can.failure != MISSING

    def _said_no(self, can: Outcome, condition: Object | None) -> bool:
        """Whether the source's own answer, now or when it was last asked, was that there is no such image."""
        if can.failure == MISSING:
            return True
        message = (condition or {}).get("message", "")
        return not self.imported and ("unknown" in message or "not found" in message)
