"""registries.conf and policy.json of a node, as the machine-config operator renders them. Nothing here reads or writes.

Rules of openshift/runtime-utils, pkg/registries: `EditRegistriesConfig`.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mirrorstream.rules.merge import merge_mirror_lists

FIELDS = {
    "ImageContentSourcePolicy": ("repositoryDigestMirrors", "digest-only"),
    "ImageDigestMirrorSet": ("imageDigestMirrors", "digest-only"),
    "ImageTagMirrorSet": ("imageTagMirrors", "tag-only"),
}
"""Where a kind has its entries, and which references their mirrors are for."""
NEVER = "NeverContactSource"


@dataclass
class _Registry:
    mirrors: list[tuple[str, str]] = field(default_factory=list)
    insecure: bool = False
    blocked: bool = False


def _entries(sets: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, list[str], bool]]:
    """Source, kind of reference, mirrors, and whether the source must not be asked."""
    for item in sets:
        name, pull = FIELDS[item["kind"]]
        for entry in (item.get("spec") or {}).get(name) or []:
            yield entry["source"], pull, entry.get("mirrors") or [], entry.get("mirrorSourcePolicy") == NEVER


def _is_in(name: str, scope: str) -> bool:
    """Whether a repository or host is within a scope, `*.example.com` for one."""
    if scope.startswith("*."):
        host = name.partition("/")[0]
        return host.endswith(scope[1:]) or name == scope
    return name == scope or (name.startswith(scope) and name[len(scope)] in ("/", ":", "@"))


def render(sets: Iterable[Mapping[str, Any]], image_config: Mapping[str, Any]) -> str:
    """registries.conf for mirror sets (with their `kind`) and the spec of the Image config."""
    registries: defaultdict[str, _Registry] = defaultdict(_Registry)
    lists: defaultdict[tuple[str, str], list[list[str]]] = defaultdict(list)
    for source, pull, mirrors, never in _entries(sets):
        registries[source].blocked |= never
        if mirrors:
            lists[source, pull].append(mirrors)
    # Digest mirrors come first, as there.
    for (source, pull), found in sorted(lists.items()):
        registries[source].mirrors += [(mirror, pull) for mirror in merge_mirror_lists(source, found)]
    sources = image_config.get("registrySources") or {}
    insecure, blocked = (sources.get(name) or [] for name in ("insecureRegistries", "blockedRegistries"))
    for scope in (*insecure, *blocked):
        registries[scope]  # it gets an entry of its own
    for scope, registry in registries.items():
        registry.insecure = any(_is_in(scope, outer) for outer in insecure)
        registry.blocked |= any(_is_in(scope, outer) for outer in blocked)
    search = (sources.get("containerRuntimeSearchRegistries")) or ["registry.access.redhat.com", "docker.io"]
    lines = [f"unqualified-search-registries = {json.dumps(search)}", 'short-name-mode = ""']
    for scope, registry in sorted(registries.items()):
        lines += ["", "[[registry]]", f"prefix = {json.dumps(scope if scope.startswith('*.') else '')}"]
        lines.append(f"location = {json.dumps('' if scope.startswith('*.') else scope)}")
        lines += ["insecure = true"] * registry.insecure + ["blocked = true"] * registry.blocked
        for mirror, pull in registry.mirrors:
            lines += ["", "  [[registry.mirror]]", f"    location = {json.dumps(mirror)}", f'    pull-from-mirror = "{pull}"']
            lines += ["    insecure = true"] * any(_is_in(mirror, outer) for outer in insecure)
    return "\n".join(lines) + "\n"


def policy(image_config: Mapping[str, Any], own: Iterable[str]) -> str:
    """policy.json: everything is accepted unless the Image config blocks it, or allows others only. `own` is always accepted."""
    sources = image_config.get("registrySources") or {}
    allowed, blocked = sources.get("allowedRegistries") or [], sources.get("blockedRegistries") or []
    accept, reject = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
    docker = dict.fromkeys((*allowed, *own), accept) if allowed else dict.fromkeys(blocked, reject)
    transports = {"docker": docker, "atomic": docker, "docker-daemon": {"": accept}}
    return json.dumps({"default": reject if allowed else accept, "transports": transports}, indent=2)
