"""Reading mirror sets and the Image config from API objects, however broken they are.

One malformed entry must never disable another, so everything that cannot be used becomes a warning that names the object and
the field, and the rest goes on.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec

from mirrorstream.rules.references import is_location

DIGEST, TAG = "digest", "tag"
IMAGE_CONFIG = "Image/cluster"

KINDS = {
    "ImageContentSourcePolicy": ("repositoryDigestMirrors", DIGEST),
    "ImageDigestMirrorSet": ("imageDigestMirrors", DIGEST),
    "ImageTagMirrorSet": ("imageTagMirrors", TAG),
}
"""Mirror set kinds: the field of the spec with their entries, and for which references they count."""

NEVER_CONTACT, ALLOW_CONTACT = "NeverContactSource", "AllowContactingSource"
REFUSED_WHOLE = "machine-config-operator refuses that, and nodes get no change of any mirror set until it is repaired"


@dataclass(frozen=True, slots=True)
class PolicyWarning:
    """Something in an object that cannot be used, here or by machine-config-operator: `object` is `Kind/name`, `field` its path."""

    object: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.object}: {self.field}: {self.message}"


class MirrorEntry(msgspec.Struct, frozen=True, gc=False):
    """One usable entry of a mirror set; slashes at the end are trimmed.

    Nodes are given all that is `listed`; `mirrors` are those of it that can be one.
    """

    origin: str
    kind: str
    source: str
    mirrors: tuple[str, ...]
    listed: tuple[str, ...]
    never_contact_source: bool


@dataclass(frozen=True, slots=True)
class ImportRegistry:
    """An entry of the Image config's `allowedRegistriesForImport`."""

    domain: str
    insecure: bool


@dataclass(slots=True)
class RuleObjects:
    """What an API object, or a set of them, says, in a form that needs no further checking."""

    origin: str = ""
    """`Kind/name`, if it is one object."""
    entries: list[MirrorEntry] = field(default_factory=list)
    insecure: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    import_registries: list[ImportRegistry] = field(default_factory=list)
    search_registries: list[str] = field(default_factory=list)
    """Where nodes look for names without a registry, in place of docker.io."""
    internal_registry: str = ""
    """The internal registry's `host[:port]`; empty where there is none."""
    several_architectures: bool = False
    """Whether the cluster is made for nodes of several architectures."""
    unloadable: list[str] = field(default_factory=list)
    """Why nodes cannot load a registries.conf with these rules at all, if they cannot."""
    warnings: list[PolicyWarning] = field(default_factory=list)


def read_objects(objects: Iterable[Any]) -> RuleObjects:
    """Read ICSP, IDMS, ITMS and Image config objects, in any order; others, and `Image`s not named `cluster`, are ignored."""
    warnings, parts = [], []
    for index, item in enumerate(objects):
        if isinstance(item, Mapping):
            parts.append(read_object(item, item.get("kind")))
        else:
            warnings.append(PolicyWarning(f"object {index}", "", f"expected a mapping, found {_type(item)}"))
    return merged(parts, warnings)


def read_object(item: Mapping[str, Any], kind: Any) -> RuleObjects:
    """What one object says, whose kind it may not say itself: items of a list do not."""
    metadata = item.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    name = name if isinstance(name, str) and name else "(no name)"
    read = RuleObjects(f"{kind}/{name}")
    if isinstance(kind, str) and kind in KINDS:
        read.entries.extend(_entries(kind, item, read))
    elif read.origin == IMAGE_CONFIG:
        _read_image_config(item, read)
    return read


def merged(parts: Iterable[RuleObjects], warnings: Iterable[PolicyWarning] = ()) -> RuleObjects:
    """What all of them say, after further `warnings`."""
    read = RuleObjects(warnings=list(warnings))
    # In the order of their names, so that warnings and the choice among equals never depend on the order of events.
    for part in sorted(parts, key=attrgetter("origin")):
        read.entries += part.entries
        read.warnings += part.warnings
        read.unloadable += part.unloadable
        if part.origin != IMAGE_CONFIG:
            continue
        read.insecure += part.insecure
        read.blocked += part.blocked
        read.allowed += part.allowed
        read.import_registries += part.import_registries
        read.search_registries += part.search_registries
        read.internal_registry = part.internal_registry
        read.several_architectures = part.several_architectures
    return read


def _entries(kind: str, item: Mapping[str, Any], read: RuleObjects) -> Iterator[MirrorEntry]:
    list_field, reference_kind = KINDS[kind]
    path = f"spec.{list_field}"
    spec = item.get("spec")
    if spec is not None and not isinstance(spec, Mapping):
        read.warnings.append(PolicyWarning(read.origin, "spec", f"expected a mapping, found {_type(spec)}"))
        return
    entries = (spec or {}).get(list_field) or []
    if not isinstance(entries, list):
        read.warnings.append(PolicyWarning(read.origin, path, f"expected a list, found {_type(entries)}"))
        return
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            read.warnings.append(PolicyWarning(read.origin, f"{path}[{index}]", f"expected a mapping, found {_type(entry)}"))
        elif found := _entry(reference_kind, entry, f"{path}[{index}]", read):
            yield found


def _entry(kind: str, entry: Mapping[str, Any], path: str, read: RuleObjects) -> MirrorEntry | None:
    origin, warnings = read.origin, read.warnings
    listed = entry.get("mirrors") or []
    if not isinstance(listed, list):
        warnings.append(PolicyWarning(origin, f"{path}.mirrors", f"expected a list, found {_type(listed)}"))
        listed = []
    value = entry.get("source")
    source = _source(value, origin, f"{path}.source", warnings)
    if source is None:
        if isinstance(value, str) and is_unloadable(value, prefix=True) and any(mirror != value for mirror in listed):
            read.unloadable.append(load_failure(value, origin))
        return None
    mirrors, of_node = [], []
    for index, mirror in enumerate(listed):
        trimmed = mirror.rstrip("/") if isinstance(mirror, str) else ""
        if trimmed == source or is_location(trimmed):
            mirrors.append(trimmed)
            of_node.append(trimmed)
            continue
        if isinstance(mirror, str):
            of_node.append(mirror)
        if is_unloadable(mirror):
            read.unloadable.append(load_failure(mirror, origin))
        warnings.append(
            PolicyWarning(origin, f"{path}.mirrors[{index}]", f"{mirror!r} is not a registry host with an optional repository")
        )
    policy = entry.get("mirrorSourcePolicy") or ALLOW_CONTACT
    if policy not in (NEVER_CONTACT, ALLOW_CONTACT):
        warnings.append(
            PolicyWarning(origin, f"{path}.mirrorSourcePolicy", f"{policy!r} is neither {NEVER_CONTACT} nor {ALLOW_CONTACT}")
        )
    if policy == NEVER_CONTACT and value in listed:
        text = f"{source} is among its own mirrors, and never to be contacted: {REFUSED_WHOLE}"
        warnings.append(PolicyWarning(origin, f"{path}.mirrors", text))
    if all(mirror == source for mirror in of_node):
        # Only the source itself, or nothing: not a mirror set, and its mirrorSourcePolicy goes with it, as on the node.
        return None
    usable = tuple(mirrors)
    return MirrorEntry(origin, kind, source, usable, usable if of_node == mirrors else tuple(of_node), policy == NEVER_CONTACT)


def _source(value: Any, origin: str, path: str, warnings: list[PolicyWarning]) -> str | None:
    if not isinstance(value, str) or not value:
        warnings.append(PolicyWarning(origin, path, "a source is required" if value in (None, "") else f"{value!r} is not text"))
        return None
    scope = value.rstrip("/")
    if not is_scope(scope):
        warnings.append(PolicyWarning(origin, path, f"{value!r} is not a registry host with an optional repository, nor *.DOMAIN"))
        return None
    return scope


def is_unloadable(text: object, *, prefix: bool = False) -> bool:
    """Whether a node cannot load a registries.conf that names `text` as a mirror, or as the `prefix` that a rule is for.

    containers/image (sysregistriesv2) refuses a file with an empty text, a scheme, or a wildcard of more than a domain. Any other
    text costs only the pulls that it is for.
    """
    trimmed = text.rstrip("/") if isinstance(text, str) else "ignored"
    wildcard = prefix and trimmed.startswith("*.") and not set(trimmed).isdisjoint("/@:")
    return not trimmed or wildcard or trimmed.startswith(("http://", "https://"))


def load_failure(text: str, origin: str) -> str:
    """Why a node pulls nothing at all: its registries.conf has `text` of the object `origin`."""
    return f"it cannot load registries.conf with {text!r} of {origin}, and pulls no image without that file"


def is_scope(scope: str) -> bool:
    """Whether `scope` can select references: `host[:port][/path]`, or `*.domain` for the subdomains of a domain."""
    if scope.startswith("*."):
        rest = scope[2:]
        return bool(rest) and not set(rest) & set("/@:*") and is_location(f"{rest}:443")
    return is_location(scope) or is_location(f"{scope.partition('/')[0]}:443{scope[len(scope.partition('/')[0]) :]}")


def _read_image_config(item: Mapping[str, Any], read: RuleObjects) -> None:
    origin = read.origin
    status = item.get("status")
    hostname = status.get("internalRegistryHostname") if isinstance(status, Mapping) else None
    if isinstance(hostname, str) and is_location(hostname) and "/" not in hostname:
        read.internal_registry = hostname
    elif hostname not in (None, ""):
        read.warnings.append(PolicyWarning(origin, "status.internalRegistryHostname", f"{hostname!r} is not a registry host"))
    # The image registry's operator sets this from the release: of one for several architectures imports keep manifest lists.
    read.several_architectures = isinstance(status, Mapping) and status.get("imageStreamImportMode") == "PreserveOriginal"
    spec = item.get("spec") or {}
    if not isinstance(spec, Mapping):
        read.warnings.append(PolicyWarning(origin, "spec", f"expected a mapping, found {_type(spec)}"))
        return
    sources = spec.get("registrySources") or {}
    if not isinstance(sources, Mapping):
        read.warnings.append(PolicyWarning(origin, "spec.registrySources", f"expected a mapping, found {_type(sources)}"))
        sources = {}
    for name, scopes in (
        ("insecureRegistries", read.insecure),
        ("blockedRegistries", read.blocked),
        ("allowedRegistries", read.allowed),
        ("containerRuntimeSearchRegistries", read.search_registries),
    ):
        listed = sources.get(name)
        scopes.extend(read_scopes(listed, origin, f"spec.registrySources.{name}", read.warnings))
        if scopes is not read.allowed and isinstance(listed, list):  # what is allowed goes into policy.json
            read.unloadable += [load_failure(text, origin) for text in listed if is_unloadable(text, prefix=True)]
    allowed = spec.get("allowedRegistriesForImport") or []
    for index, entry in enumerate(allowed if isinstance(allowed, list) else [allowed]):
        domain = entry.get("domainName") if isinstance(entry, Mapping) else None
        if isinstance(domain, str) and domain.count(":") <= 1:
            read.import_registries.append(ImportRegistry(domain, bool(entry.get("insecure"))))
        else:
            path = f"spec.allowedRegistriesForImport[{index}].domainName"
            read.warnings.append(PolicyWarning(origin, path, f"{domain!r} is not a registry host"))


def read_scopes(scopes: Any, origin: str, path: str, warnings: list[PolicyWarning]) -> Iterator[str]:
    """The usable scopes of a list from an object; slashes at the end are trimmed."""
    if scopes is None:
        return
    if not isinstance(scopes, list | tuple):
        warnings.append(PolicyWarning(origin, path, f"expected a list, found {_type(scopes)}"))
        return
    for index, scope in enumerate(scopes):
        trimmed = scope.rstrip("/") if isinstance(scope, str) else ""
        if is_scope(trimmed):
            yield trimmed
        else:
            warnings.append(PolicyWarning(origin, f"{path}[{index}]", f"{scope!r} is not a registry host, repository or *.DOMAIN"))


def _type(value: object) -> str:
    return {"str": "text", "dict": "a mapping", "list": "a list", "NoneType": "nothing"}.get(
        type(value).__name__, type(value).__name__
    )
