"""The mirror rules of a cluster: which places stand for a pull spec.

The reference semantics are the node's (registries.conf as the machine-config operator renders it), because the node is what
pulls the image in the end. Where the native code has a bug that helps nobody (a single unparsable mirror discards all of them,
a nested scope inherits the least specific mirrors) this one is better, and says so beside the rule.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from mirrorstream.candidates import THE_SOURCE, Candidate, LeftOut, PullSource
from mirrorstream.objects import DIGEST, TAG, ImportRegistry, PolicyWarning, RuleObjects, read_objects, read_scopes
from mirrorstream.references import Reference, has_registry_host, parse_exact, parse_reference, written_name
from mirrorstream.scoperules import Mirror, Rule, ScopeRules
from mirrorstream.scopes import beyond_scope, enclosing_scopes, longest_match

__all__ = ["Candidate", "MirrorPolicy", "PolicyWarning", "PullSource"]


class MirrorPolicy:
    """An immutable snapshot of the mirror rules; build it with `from_objects`, compare snapshots with `==`."""

    def __init__(
        self, objects: RuleObjects, *, tags_through_digest_mirrors: bool = True, previous: "MirrorPolicy | None" = None
    ) -> None:
        """Prefer `from_objects`; this takes what has been read and checked already.

        With the snapshot before (`previous`) only what has changed since is worked out anew; the result is the same.
        """
        self.scope_rules: ScopeRules = ScopeRules(objects, previous.scope_rules if previous else None)
        self._rules = self.scope_rules.by_scope
        self._blocked = dict.fromkeys(objects.blocked, True)
        self._allowed = dict.fromkeys(objects.allowed, True)
        self._import_registries = tuple(objects.import_registries)
        self._tags_through_digest_mirrors = tags_through_digest_mirrors
        self.warnings: tuple[PolicyWarning, ...] = tuple(objects.warnings)

    @classmethod
    def from_objects(
        cls,
        objects: Iterable[Mapping[str, Any]],
        *,
        insecure_registries: Iterable[str] = (),
        blocked_registries: Iterable[str] = (),
        tags_through_digest_mirrors: bool = True,
    ) -> "MirrorPolicy":
        """Build the policy from API objects as dicts: ICSP, IDMS and ITMS in any order, and the `Image` config `cluster`.

        `insecure_registries` and `blocked_registries` add to those of the Image config. Never raises for a malformed object: what
        cannot be used is in `warnings`, and the rest counts.
        """
        read = read_objects(objects)
        for scopes, target, name in (
            (insecure_registries, read.insecure, "insecure_registries"),
            (blocked_registries, read.blocked, "blocked_registries"),
        ):
            target.extend(read_scopes(list(scopes), "arguments", name, read.warnings))
        return cls(read, tags_through_digest_mirrors=tags_through_digest_mirrors)

    def _key(self) -> tuple[object, ...]:
        return (
            self._rules,
            self._blocked,
            self._allowed,
            self._import_registries,
            self._tags_through_digest_mirrors,
            self.warnings,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MirrorPolicy) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]  # compared when rules change, never a key

    def pull_sources(self, reference: str) -> list[PullSource]:
        """Where a node pulls `reference` from, in its order, the source itself last.

        Mirrors for digests count for references by digest only, those for tags for the others only; `name:tag@digest` is by digest.
        Raises ReferenceError.
        """
        parsed = parse_reference(reference)
        rule = self._rule_for(parsed.name)
        kind = DIGEST if parsed.digest else TAG
        sources = [
            self._pull_source(text, mirror.insecure)
            for mirror in (rule.mirrors if rule else ())
            if mirror.kind == kind and (text := _rewrite(parsed, mirror)) is not None
        ]
        return [*sources, self._pull_source(str(parsed), insecure=False)]

    def import_candidates(self, reference: str) -> list[Candidate]:
        """What the controller imports `reference` through, in order; never the source, which the platform has just tried.

        For a tag the tag mirrors, then the digest mirrors (unless tags_through_digest_mirrors is off: a mirror's tag can be stale);
        for a digest the digest mirrors, then the tag mirrors, which is safe since the content is its own name.

        Raises ReferenceError.
        """
        return self.assess(reference)[0]

    def assess(self, reference: str) -> tuple[list[Candidate], list[LeftOut]]:
        """The import candidates of `reference`, in order, and the mirrors that are left out, each with the reason."""
        parsed = parse_reference(reference)
        rule = self._rule_for(parsed.name)
        candidates: dict[str, Candidate] = {}
        left_out: list[LeftOut] = []
        kinds = (DIGEST, TAG) if parsed.digest else (TAG, DIGEST)
        for mirror in sorted(rule.mirrors if rule else (), key=lambda m: kinds.index(m.kind)):
            text = _rewrite(parsed, mirror)
            unusable = self._unusable(text, mirror, parsed)
            if unusable:
                left_out.append(LeftOut(text or mirror.location, mirror.origins[0], unusable))
            elif text is not None and text not in candidates:
                source = self._pull_source(text, mirror.insecure)
                candidates[text] = Candidate(text, source.insecure, mirror.origins[0])
        return list(candidates.values()), left_out

    def _unusable(self, text: str | None, mirror: Mirror, parsed: Reference) -> str:
        """Why a mirror is not a candidate; empty if it is one."""
        if text is None:
            return f"{mirror.location} in place of {mirror.scope} does not make a valid reference"
        if text == str(parsed):
            return THE_SOURCE
        if not parsed.digest and mirror.kind == DIGEST and not self._tags_through_digest_mirrors:
            return "a digest mirror, and mirrors.tagsThroughDigestMirrors is off"
        blocking = self._rule_for(parse_reference(text).name)
        if blocking and blocking.blocked:
            return f"{blocking.scope} is blocked"
        return ""

    def refusal(self, reference: str) -> str | None:
        """Why the platform refuses the source itself by the Image config's registrySources; None if it does not.

        A source blocked by NeverContactSource is the normal disconnected cluster and no refusal. Raises ReferenceError.
        """
        name = parse_reference(reference).name
        for scope in enclosing_scopes(name):
            if scope in self._blocked:
                return f"{name} is blocked by {scope} in spec.registrySources.blockedRegistries of the Image config"
        if self._allowed and not any(scope in self._allowed for scope in enclosing_scopes(name)):
            return f"{name} is not in spec.registrySources.allowedRegistries of the Image config"
        return None

    def import_allowed(self, reference: str, *, insecure: bool = False) -> bool:
        """Whether the Image config's `allowedRegistriesForImport` admits `reference`; an empty list admits everything.

        `insecure` is the *tag's* import policy (or the stream's), as in the API server's validation: entries are globs of host and
        port; one without a port means 443, or 80 if it is marked insecure; an insecure tag matches both.
        """
        if not self._import_registries:
            return True
        host = reference.partition("/")[0] if has_registry_host(reference) else "docker.io"
        bare, _, port = host.rpartition(":") if ":" in host and not host.endswith("]") else (host, "", "")
        if not port and not insecure:
            port = "443"
        return any(_admits(entry, bare, port) for entry in self._import_registries)

    def digest_mirrors_cover(self, reference: str) -> bool:
        """Whether the platform itself resolves the reference's repository by digest through a mirror.

        Nodes, builds and the internal registry do for ICSP and IDMS entries, but the platform's importer and its registry never
        match wildcard sources. Raises ReferenceError.
        """
        parsed = parse_reference(reference)
        rule = self._rule_for(parsed.name)
        return any(_is_real(parsed, m, DIGEST) for m in (rule.mirrors if rule else ()) if not m.scope.startswith("*."))

    def recorded_name(self, source: str, candidate: Candidate, recorded_reference: str = "auto") -> str:
        """The repository, without tag or digest, that goes into a tag's history for an image of `source` that `candidate` served.

        With `auto` the source's own name, as the platform records it, where nodes, builds and the internal registry resolve it
        through a digest mirror. A tag mirror or a wildcard does not serve the platform's pull by digest, so there the mirror
        itself must be named. Raises ReferenceError.
        """
        by_source = self.records_the_source(source, recorded_reference)
        return written_name(source if by_source else candidate.reference)

    def records_the_source(self, source: str, recorded_reference: str = "auto") -> bool:
        """Whether `recorded_name` is the source's own, the same for every candidate. Raises ReferenceError."""
        return recorded_reference == "source" or (recorded_reference == "auto" and self.digest_mirrors_cover(source))

    def tag_mirrors_cover(self, reference: str) -> bool:
        """Whether a node finds the reference's tag through a mirror by itself. Raises ReferenceError."""
        return self._is_covered(reference, TAG)

    def mirrors_cover(self, reference: str) -> bool:
        """Whether any mirror set, for tags or digests, names a mirror for the reference's repository. Raises ReferenceError."""
        return self._is_covered(reference, DIGEST) or self._is_covered(reference, TAG)

    def covering_objects(self, reference: str) -> tuple[str, tuple[str, ...]]:
        """The scope that decides about `reference`, and the objects it comes from; empty if no rule does."""
        rule = self._rule_for(parse_reference(reference).name)
        return (rule.scope, tuple(sorted(set(rule.origins)))) if rule else ("", ())

    def mirror_origins(self, reference: str) -> dict[str, tuple[str, ...]]:
        """For each reference that a mirror stands for `reference` with: all objects that name that mirror."""
        parsed = parse_reference(reference)
        rule = self._rule_for(parsed.name)
        found: dict[str, set[str]] = defaultdict(set)
        for mirror in rule.mirrors if rule else ():
            if (text := _rewrite(parsed, mirror)) is not None:
                found[text].update(mirror.origins)
        return {text: tuple(sorted(origins)) for text, origins in found.items()}

    def mirror_hosts(self) -> set[str]:
        """The hosts of all mirrors that a rule names."""
        return {mirror.location.partition("/")[0] for rule in self._rules.values() for mirror in rule.own}

    def _is_covered(self, reference: str, kind: str) -> bool:
        parsed = parse_reference(reference)
        rule = self._rule_for(parsed.name)
        return any(_is_real(parsed, mirror, kind) for mirror in (rule.mirrors if rule else ()))

    def _rule_for(self, name: str) -> Rule | None:
        """The one rule that counts for a repository: the longest scope over all kinds together."""
        return longest_match(name, self._rules)

    def _pull_source(self, text: str, insecure: bool) -> PullSource:
        """A pull source as the node's client sees it: its own location's rule adds to what the mirror says."""
        rule = self._rule_for(parse_reference(text).name)
        return PullSource(text, insecure or (rule is not None and rule.insecure), rule is not None and rule.blocked)


def _is_real(reference: Reference, mirror: Mirror, kind: str) -> bool:
    """Whether a mirror of this kind stands for `reference`, and is not the source itself."""
    return mirror.kind == kind and _rewrite(reference, mirror) not in (None, str(reference))


def _rewrite(reference: Reference, mirror: Mirror) -> str | None:
    """`reference` at the mirror, or None where the node could not parse the result (a bare host for a whole repository, say)."""
    parsed = parse_exact(mirror.location + beyond_scope(reference.name, mirror.scope) + reference.suffix)
    return str(parsed) if parsed else None


def _admits(entry: ImportRegistry, host: str, port: str) -> bool:
    domain, _, entry_port = entry.domain.partition(":")
    entry_port = entry_port or ("80" if entry.insecure else "443")
    if not fnmatchcase(host, domain.replace("[", "[[]")):
        return False
    return fnmatchcase(port, entry_port.replace("[", "[[]")) if port else entry_port in ("80", "443", "*")
