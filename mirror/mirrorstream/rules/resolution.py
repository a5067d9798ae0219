"""What the mirror rules say of one reference. It is parsed once; each answer is computed when it is asked for."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from mirrorstream.rules.candidates import THE_SOURCE, Candidate, PullSource, SkippedMirror
from mirrorstream.rules.objects import DIGEST, TAG, is_unloadable, load_failure
from mirrorstream.rules.references import Reference, parse_exact, parse_reference, written_name
from mirrorstream.rules.registries_conf import Mirror, Rule
from mirrorstream.rules.scopes import beyond_scope, enclosing_scopes, longest_match


@dataclass(frozen=True, slots=True)
class Restrictions:
    """What bounds every answer: the Image config's registrySources, and mirrorstream's own configuration."""

    blocked: frozenset[str]
    allowed: frozenset[str]
    """Empty if every registry is allowed."""
    tags_through_digest_mirrors: bool
    insecure: frozenset[str]
    unloadable: str
    """Why nodes cannot load a registries.conf with the rules; empty if they can."""


class Resolution:
    """One reference under one snapshot of the rules; make it with `MirrorPolicy.resolve`."""

    __slots__ = ("_assessed", "_mirrors", "_restrictions", "_rule", "_rules", "reference")

    def __init__(self, restrictions: Restrictions, rules: Mapping[str, Rule], reference: Reference) -> None:
        self.reference = reference
        self._restrictions = restrictions
        self._rules = rules
        self._rule = longest_match(reference.name, rules)
        self._mirrors: list[Mirror] = self._rule.mirrors if self._rule else []
        self._assessed: tuple[tuple[Candidate, ...], tuple[SkippedMirror, ...]] | None = None

    @property
    def scope(self) -> str:
        """The scope that decides: the longest over all kinds of mirror set together; empty if no rule does."""
        return self._rule.scope if self._rule else ""

    @property
    def objects(self) -> tuple[str, ...]:
        """The objects that the scope's rule comes from."""
        return tuple(sorted(self._rule.objects)) if self._rule else ()

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """The scope's mirrors of both kinds, whether or not they can be used for this reference."""
        return tuple(self._mirrors)

    @property
    def pull_sources(self) -> tuple[PullSource, ...]:
        """Where a node pulls from, in its order, the source itself last.

        Mirrors for digests count for references by digest only, those for tags for the others only; `name:tag@digest` is by digest.
        """
        sources = [
            self._pull_source(text, mirror.insecure) for mirror in self._of_node() if (text := _rewrite(self.reference, mirror))
        ]
        return (*sources, self._pull_source(str(self.reference), insecure=False))

    @property
    def pull_failure(self) -> str:
        """Why a node cannot pull the reference, from any of its pull sources; empty if it can.

        A node (containers/image) loads the whole registries.conf, then makes all references before it contacts a registry, and
        stops at the first that is not valid. It is given mirrors, sources and scopes that were left out here, too.
        """
        own = (load_failure(m.location, m.origins[0]) for m in self._listed if is_unloadable(m.location))
        return next(own, "") or self._restrictions.unloadable or self._invalid_of_node()

    def _invalid_of_node(self) -> str:
        """Why nodes and the platform's importer discard all mirrors: the first that makes no valid reference; empty if none."""
        return next((_invalid(mirror) for mirror in self._of_node() if not _rewrite(self.reference, mirror)), "")

    @property
    def _listed(self) -> list[Mirror]:
        return self._rule.of_node if self._rule else []

    def _of_node(self) -> list[Mirror]:
        """The mirrors that count for a node, in its order."""
        kind = DIGEST if self.reference.digest else TAG
        return [mirror for mirror in self._listed if mirror.kind == kind]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What the controller imports through, in order; never the source, which the platform has just tried.

        For a tag the tag mirrors, then the digest mirrors (unless tags_through_digest_mirrors is off: a mirror's tag can be stale);
        for a digest the digest mirrors, then the tag mirrors, which is safe since the content is its own name.
        """
        return self._assess()[0]

    @property
    def skipped_mirrors(self) -> tuple[SkippedMirror, ...]:
        """The mirrors that are no candidates, each with the reason."""
        return self._assess()[1]

    @property
    def refusal(self) -> str | None:
        """Why the platform refuses the source itself by the Image config's registrySources; None if it does not.

        A source blocked by NeverContactSource is the normal disconnected cluster and no refusal.
        """
        name, scopes = self.reference.name, enclosing_scopes(self.reference.name)
        for scope in scopes:
            if scope in self._restrictions.blocked:
                return f"{name} is blocked by {scope} in spec.registrySources.blockedRegistries of the Image config"
        if self._restrictions.allowed.isdisjoint(scopes) and self._restrictions.allowed:
            return f"{name} is not in spec.registrySources.allowedRegistries of the Image config"
        return None

    @property
    def host_is_never_contacted(self) -> bool:
        """Whether a mirror set has NeverContactSource for the whole host of the reference, which the Image config allows."""
        rule = self._rules.get(self.reference.host)
        return rule is not None and rule.blocked and self.refusal is None

    @property
    def is_mirrored(self) -> bool:
        """Whether any mirror set, for tags or digests, names a mirror for the repository."""
        return any(self._is_real(mirror) for mirror in self._mirrors)

    @property
    def is_mirrored_in_registry(self) -> bool:
        """Whether the internal registry asks a mirror for the repository: of every kind of mirror set, but for no wildcard."""
        return any(not mirror.scope.startswith("*.") and self._is_real(mirror) for mirror in self._mirrors)

    @property
    def is_mirrored_by_digest(self) -> bool:
        """Whether the platform itself resolves the repository by digest through a mirror.

        Nodes, builds and the internal registry do for ICSP and IDMS entries, but the platform's importer and its registry never
        match wildcard sources.
        """
        return any(m.kind == DIGEST and not m.scope.startswith("*.") and self._is_real(m) for m in self._mirrors)

    def native_candidates(self, *, insecure: bool) -> tuple[Candidate, ...]:
        """Those of `candidates` that the platform's importer goes through itself; `insecure` is the tag's import policy.

        It uses mirrors for tags for a tag, and mirrors for digests for a digest. It never matches wildcard sources, it contacts
        each mirror as securely as the source, and one mirror that does not make a valid reference discards all of them.
        """
        if self._invalid_of_node():
            return ()
        native = {_rewrite(self.reference, mirror) for mirror in self._of_node() if not mirror.scope.startswith("*.")}
        insecure = self.is_insecure_natively(insecure=insecure)
        return tuple(found for found in self.candidates if found.reference in native and (insecure or not found.insecure))

    def is_insecure_natively(self, *, insecure: bool) -> bool:
        """Whether the platform's importer takes the source for insecure; it knows whole hosts only, and no paths or wildcards."""
        return insecure or self.reference.host in self._restrictions.insecure

    def recorded_name(self, source: str, candidate: Candidate, recorded_reference: str = "auto") -> str:
        """The repository, without tag or digest, that goes into a tag's history for an image that `candidate` served.

        `source` is the reference as the user wrote it. With `auto` it is the source's own name, as the platform records it, where
        nodes, builds and the internal registry resolve it through a digest mirror. A tag mirror or a wildcard does not serve the
        platform's pull by digest, so there the mirror itself must be named.
        """
        by_source = recorded_reference == "source" or (recorded_reference == "auto" and self.is_mirrored_by_digest)
        return written_name(source if by_source else candidate.reference)

    @property
    def mirror_origins(self) -> dict[str, tuple[str, ...]]:
        """For each reference that a mirror stands for this one with: all objects that name that mirror."""
        found: dict[str, set[str]] = defaultdict(set)
        for mirror in (*self._mirrors, *self._listed):
            if text := _rewrite(self.reference, mirror):
                found[text].update(mirror.origins)
        return {text: tuple(sorted(origins)) for text, origins in found.items()}

    def _assess(self) -> tuple[tuple[Candidate, ...], tuple[SkippedMirror, ...]]:
        """Candidates and skipped mirrors, which come of the same work."""
        if self._assessed:
            return self._assessed
        candidates: dict[str, Candidate] = {}
        skipped: list[SkippedMirror] = []
        kinds = (DIGEST, TAG) if self.reference.digest else (TAG, DIGEST)
        for mirror in sorted(self._mirrors, key=lambda m: kinds.index(m.kind)):
            text = _rewrite(self.reference, mirror)
            rule = self._rule_at(text) if text else None
            if unusable := self._unusable(text, mirror, rule):
                skipped.append(SkippedMirror(text or mirror.location, mirror.origins[0], unusable))
            elif text not in candidates:
                insecure = mirror.insecure or (rule is not None and rule.insecure)
                candidates[text] = Candidate(text, insecure, mirror.origins[0])
        if self._listed is not self._mirrors:
            never = (mirror for mirror in self._listed if mirror not in self._mirrors)
            skipped += [SkippedMirror(mirror.location, mirror.origins[0], _invalid(mirror)) for mirror in never]
        self._assessed = tuple(candidates.values()), tuple(skipped)
        return self._assessed

    def _unusable(self, text: str, mirror: Mirror, rule: Rule | None) -> str:
        """Why a mirror is not a candidate, given what the reference is there and which rule holds there; empty if it is one."""
        if not text:
            return _invalid(mirror)
        if text == str(self.reference):
            return THE_SOURCE
        if not self.reference.digest and mirror.kind == DIGEST and not self._restrictions.tags_through_digest_mirrors:
            return "a digest mirror, and mirrors.tagsThroughDigestMirrors is off"
        return f"{rule.scope} is blocked" if rule and rule.blocked else ""

    def _is_real(self, mirror: Mirror) -> bool:
        """Whether the reference at the mirror is valid, and not the source itself."""
        return _rewrite(self.reference, mirror) not in ("", str(self.reference))

    def _rule_at(self, text: str) -> Rule | None:
        return longest_match(parse_reference(text).name, self._rules)

    def _pull_source(self, text: str, insecure: bool) -> PullSource:
        """A pull source as the node's client sees it: its own location's rule adds to what the mirror says."""
        rule = self._rule_at(text)
        return PullSource(text, insecure or (rule is not None and rule.insecure), rule is not None and rule.blocked)


def _invalid(mirror: Mirror) -> str:
    if is_unloadable(mirror.location):
        return load_failure(mirror.location, mirror.origins[0])
    return f"{mirror.location} in place of {mirror.scope} does not make a valid reference"


def _rewrite(reference: Reference, mirror: Mirror) -> str:
    """`reference` at the mirror; empty where the node could not parse the result (a bare host for a whole repository, say)."""
    parsed = parse_exact(mirror.location + beyond_scope(reference.name, mirror.scope) + reference.suffix)
    return str(parsed) if parsed else ""
