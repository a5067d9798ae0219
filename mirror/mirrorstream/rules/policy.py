"""The mirror rules of a cluster: which places stand for a pull spec.

The reference semantics are the node's (registries.conf as the machine-config operator renders it), because the node is what
pulls the image in the end. Where the native code has a bug that helps nobody (a single unparsable mirror discards all of them,
a nested scope inherits the least specific mirrors) this one differs, and a comment at the rule explains how.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from mirrorstream.rules.candidates import Candidate, PullSource
from mirrorstream.rules.objects import ImportRegistry, PolicyWarning, RuleObjects, read_objects, read_scopes
from mirrorstream.rules.references import Reference, has_registry_host, parse_reference
from mirrorstream.rules.registries_conf import ScopeRules
from mirrorstream.rules.resolution import Resolution, Restrictions

__all__ = ["Candidate", "MirrorPolicy", "PolicyWarning", "PullSource", "Resolution"]


class MirrorPolicy:
    """An immutable snapshot of the mirror rules; build it with `from_objects`, compare snapshots with `==`."""

    def __init__(
        self, objects: RuleObjects, *, tags_through_digest_mirrors: bool = True, previous: "MirrorPolicy | None" = None
    ) -> None:
        """Prefer `from_objects`; this takes what has been read and checked already.

        With the snapshot before (`previous`) only what has changed since is computed; the result is the same.
        """
        self.scope_rules: ScopeRules = ScopeRules(objects, previous.scope_rules if previous else None)
        self._rules = self.scope_rules.by_scope
        self._restrictions = Restrictions(
            frozenset(objects.blocked),
            frozenset(objects.allowed),
            tags_through_digest_mirrors,
            frozenset(objects.insecure),
            next(iter(objects.unloadable), ""),
        )
        self._import_registries = tuple(objects.import_registries)
        self.internal_registry = objects.internal_registry
        """The internal registry's `host[:port]`; empty where there is none."""
        self.several_architectures = objects.several_architectures
        """Whether the cluster is made for nodes of several architectures, as OpenShift says from 4.18 on."""
        self.search_registries = tuple(objects.search_registries)
        """Where nodes look for names without a registry, in place of docker.io."""
        self.warnings: tuple[PolicyWarning, ...] = (*objects.warnings, *self.scope_rules.conflicts)

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
            self._restrictions,
            self._import_registries,
            self.internal_registry,
            self.several_architectures,
            self.search_registries,
            self.warnings,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MirrorPolicy) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]  # compared when rules change, never a key

    def resolve(self, reference: Reference) -> Resolution:
        """Everything that the rules say of `reference`."""
        return Resolution(self._restrictions, self._rules, reference)

    def pull_sources(self, reference: str) -> list[PullSource]:
        """Where a node pulls `reference` from, in its order, the source itself last. Raises ReferenceError."""
        return list(self.resolve(parse_reference(reference)).pull_sources)

    def import_candidates(self, reference: str) -> list[Candidate]:
        """What the controller imports `reference` through, in order. Raises ReferenceError."""
        return list(self.resolve(parse_reference(reference)).candidates)

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

    def registry_problem(self, reference: Reference, *, insecure: bool) -> str:
        """Why the internal registry cannot fetch `reference` though nodes can; empty if nothing is known against it.

        `insecure` is the stream's annotation, or the tag's import policy unless the image may be a manifest list. The registry
        never reads insecureRegistries, which count for nodes and imports (image-registry, `TagIsInsecure`). A mirror that it has
        for the reference is not affected: it takes each for insecure.
        """
        if insecure:
            return ""
        found = self.resolve(reference)
        if found.is_mirrored_in_registry or not found.pull_sources[-1].insecure:
            return ""
        return (
            f"the internal registry cannot pull from {reference.name}, which is insecure for nodes and imports only: it needs the "
            "tag's importPolicy.insecure, or for a manifest list the stream's annotation openshift.io/image.insecureRepository"
        )

    def mirror_hosts(self) -> set[str]:
        """The hosts of all mirrors that a rule names."""
        return {mirror.location.partition("/")[0] for rule in self._rules.values() for mirror in rule.own}


def _admits(entry: ImportRegistry, host: str, port: str) -> bool:
    domain, _, entry_port = entry.domain.partition(":")
    entry_port = entry_port or ("80" if entry.insecure else "443")
    if not fnmatchcase(host, domain.replace("[", "[[]")):
        return False
    return fnmatchcase(port, entry_port.replace("[", "[[]")) if port else entry_port in ("80", "443", "*")
