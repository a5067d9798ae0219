"""Scopes: `host[:port][/path]` or `*.domain`, and which references and other scopes lie in them.

The rules are those of the node's registries.conf. All look-ups walk the prefixes of one reference in a dict, so that their cost
depends on the reference and never on the number of rules.
"""

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")


def enclosing_scopes(name: str) -> list[str]:
    """Every scope that `name` (`host[:port][/path]`, or `*.domain` itself) lies in, the longest text first.

    A wildcard as long as the host that it matches (`*.example.com`, `a.example.com`) comes before it, as on the node, which
    sorts equals by their text.
    """
    host, slash, path = name.partition("/")
    scopes = _wildcards(host)
    scopes.append(host)
    if slash:
        scope = host
        for part in path.split("/"):
            scope = f"{scope}/{part}"
            scopes.append(scope)
    # The wildcards come first and sorting is stable.
    scopes.sort(key=len, reverse=True)
    return scopes


def _wildcards(host: str) -> list[str]:
    """The wildcards that match `host`: one for each proper parent domain; the port does not count."""
    bare = host if host.startswith("[") else host.partition(":")[0]
    labels = bare.removeprefix("*.").split(".")
    return [f"*.{'.'.join(labels[start:])}" for start in range(1, len(labels))]


def longest_match(name: str, rules: Mapping[str, Value]) -> Value | None:
    """The rule of the longest scope that `name` lies in, or None."""
    for scope in enclosing_scopes(name):
        if (rule := rules.get(scope)) is not None:
            return rule
    return None


def lies_in(name: str, scope: str) -> bool:
    """Whether `name` (a repository's or mirror's `host[:port][/path]`, or a scope) lies in `scope`."""
    return scope in enclosing_scopes(name)


def beyond_scope(reference: str, scope: str) -> str:
    """What follows `scope` in `reference`, which lies in it: this is appended to a mirror.

    For a wildcard that is everything after the domain, a port included.
    """
    if scope.startswith("*."):
        return reference[len(reference.partition("/")[0].partition(":")[0]) :]
    return reference[len(scope) :]
