"""What registries.conf says of each scope that an object names: its mirrors, and whether it is insecure or blocked."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from mirrorstream.rules.merge import merge_mirror_lists
from mirrorstream.rules.objects import DIGEST, REFUSED_WHOLE, TAG, MirrorEntry, PolicyWarning, RuleObjects
from mirrorstream.rules.scopes import enclosing_scopes


class Mirror(msgspec.Struct, frozen=True, gc=False):
    """A mirror in a rule; `scope` is what it replaces, which for an inherited mirror is the enclosing rule's.

    There are tens of thousands in large clusters; the garbage collector, which would hold every thread up, passes them by.
    """

    location: str
    kind: str
    scope: str
    insecure: bool
    origins: tuple[str, ...]


@dataclass(slots=True)
class Rule:
    """What registries.conf says of one scope; never changed once it is in a policy, since the next one may share it.

    A scope without mirrors of its own shares those of the enclosing one: they are not copied, and what is compared are its own.
    """

    scope: str
    insecure: bool = False
    blocked: bool = False
    own: list[Mirror] = field(default_factory=list)
    listed: list[Mirror] = field(default_factory=list)
    """What nodes are given as its own mirrors: `own`, and in their places those that cannot be one."""
    origins: list[str] = field(default_factory=list)
    enclosing: "Rule | None" = field(default=None, compare=False)
    """The rule that would count here without this one; set only where this one has no mirrors of its own."""
    entries: list[MirrorEntry] = field(default_factory=list, compare=False)
    """What its own mirrors come from."""
    conflict: PolicyWarning | None = field(default=None, compare=False)
    """Why machine-config-operator refuses these entries, and all others with them."""

    @property
    def mirrors(self) -> list[Mirror]:
        """The mirrors that count here."""
        return self.own or (self.enclosing.mirrors if self.enclosing else [])

    @property
    def of_node(self) -> list[Mirror]:
        """What a node is given as mirrors here; it does not leave out those that cannot be one."""
        return self.listed or (self.enclosing.of_node if self.enclosing else [])

    @property
    def objects(self) -> set[str]:
        """The objects that its mirrors come from."""
        return {*self.origins, *(self.enclosing.objects if self.enclosing else ())}


class ScopeRules:
    """One rule for each scope that a mirror set or the Image config names, in `by_scope`.

    Those of `before` that come from the same objects are taken over: of ten thousand rules mostly one changes, and while all are
    rebuilt, reviews have to wait for the interpreter.
    """

    def __init__(self, objects: RuleObjects, before: "ScopeRules | None" = None) -> None:
        self._insecure, self._blocked = frozenset(objects.insecure), frozenset(objects.blocked)
        self.by_scope: dict[str, Rule] = {}
        self.conflicts: list[PolicyWarning] = []
        known: Mapping[str, Rule] = before.by_scope if before and self._are_restricted_as(before) else {}
        for source, entries in _by_source(objects.entries).items():
            rule = known.get(source)
            # One without mirrors of its own depends on others.
            if rule is None or not rule.own or rule.entries != entries:
                rule = self._mirrored(source, entries)
            self.by_scope[source] = rule
            if rule.conflict:
                self.conflicts.append(rule.conflict)
        mirrored = {scope: rule for scope, rule in self.by_scope.items() if rule.listed}
        for scope in self._blocked | self._insecure:
            if scope not in self.by_scope:
                self.by_scope[scope] = self._restricted(Rule(scope))
        for rule in self.by_scope.values():
            if not rule.own:
                # The most specific enclosing source.
                scopes = enclosing_scopes(rule.scope)
                rule.enclosing = next((mirrored[s] for s in scopes if s != rule.scope and s in mirrored), None)

    def _are_restricted_as(self, other: "ScopeRules") -> bool:
        """Whether the Image config lists the same scopes; each rule depends on all of them."""
        return self._insecure == other._insecure and self._blocked == other._blocked  # noqa: SLF001  another of our own kind

    def _mirrored(self, source: str, entries: list[MirrorEntry]) -> Rule:
        """The rule of a scope that mirror sets name."""
        rule = Rule(source, entries=entries, conflict=_conflict(source, entries) if len(entries) > 1 else None)
        for kind in (DIGEST, TAG):
            if not (those := [entry for entry in entries if entry.kind == kind]):
                continue
            rule.blocked |= any(entry.never_contact_source for entry in those)
            rule.origins += [entry.origin for entry in those]
            named_by: dict[str, set[str]] = defaultdict(set)
            for entry in those:
                for location in entry.listed:
                    named_by[location].add(entry.origin)
            partly = [set(entry.listed).difference(entry.mirrors) for entry in those if entry.listed is not entry.mirrors]
            unusable = set[str]().union(*partly)
            for location in merge_mirror_lists(source, [entry.listed for entry in those]):
                insecure = location not in unusable and not self._insecure.isdisjoint(enclosing_scopes(location))
                # Only a mirror that is the source, added as the end of somebody's chain, is in nobody's list.
                origins = tuple(sorted(named_by.get(location) or rule.origins))
                rule.listed.append(mirror := Mirror(location, kind, source, insecure, origins))
                if location not in unusable:
                    rule.own.append(mirror)
        if len(rule.own) == len(rule.listed):
            rule.listed = rule.own  # there are tens of thousands
        return self._restricted(rule)

    def _restricted(self, rule: Rule) -> Rule:
        """The rule with what the Image config says of its scope."""
        enclosing = enclosing_scopes(rule.scope)
        rule.insecure |= not self._insecure.isdisjoint(enclosing)
        rule.blocked |= not self._blocked.isdisjoint(enclosing)
        return rule


def _conflict(source: str, entries: list[MirrorEntry]) -> PolicyWarning | None:
    """Of entries for one source of which only some say that it is never contacted; those of an ICSP never do."""
    never = [entry.origin for entry in entries if entry.never_contact_source]
    others = [entry.origin for entry in entries if not entry.never_contact_source]
    if not never or not others:
        return None
    return PolicyWarning(never[0], "mirrorSourcePolicy", f"{others[0]} has another one for {source}: {REFUSED_WHOLE}")


def _by_source(entries: Iterable[MirrorEntry]) -> dict[str, list[MirrorEntry]]:
    found: dict[str, list[MirrorEntry]] = {}
    for entry in entries:
        found.setdefault(entry.source, []).append(entry)
    return found
