"""Pull specs: parse, normalise, format.

The grammar and the defaults are those of the container tools' `reference` package: a first component with a `.` or `:`, or
`localhost`, is a registry; docker.io, `library/` and `latest` are defaulted; index.docker.io is docker.io.
"""

import re
from dataclasses import dataclass

DEFAULT_HOST = "docker.io"
LEGACY_DEFAULT_HOST = "index.docker.io"
DEFAULT_NAMESPACE = "library/"
DEFAULT_TAG = "latest"
MAXIMUM_NAME_LENGTH = 255
MAXIMUM_LENGTH = 1024
"""Longer than any valid pull spec; longer input is refused unread, so that no text can make parsing slow."""

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[\w][\w.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_REFERENCE = re.compile(rf"(?:({_HOST})/)?({_PATH})(?::({_TAG}))?(?:@({_DIGEST}))?", re.ASCII)
_DIGEST_ONLY = re.compile(_DIGEST, re.ASCII)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
"""What the container tools take for an image's identifier, and never for a repository of docker.io."""
_LOCATION = re.compile(rf"({_HOST})(?:/({_PATH}))?", re.ASCII)
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


class ReferenceError(ValueError):  # noqa: A001  the platform's word; the builtin is about weak references
    """A pull spec that does not parse; the text quotes it and says why."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised pull spec: `host/path[:tag][@digest]`; at least one of tag and digest is set."""

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """`host/path`: the repository's full name."""
        return f"{self.host}/{self.path}"

    @property
    def suffix(self) -> str:
        """What follows the name: `:tag`, `@digest` or both."""
        return suffix(self.tag, self.digest)

    def __str__(self) -> str:
        return self.name + self.suffix


def suffix(tag: str, digest: str) -> str:
    """What follows a repository's name: `:tag`, `@digest`, both, or nothing."""
    return (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def has_registry_host(text: str) -> bool:
    """Whether the first component of `text` names a registry rather than the first part of a path on docker.io."""
    first, slash, _ = text.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def parse_reference(text: str) -> Reference:
    """Parse and normalise a pull spec.

    `busybox` becomes `docker.io/library/busybox:latest`; a reference by digest keeps the tag that it has, and gets none.
    Raises ReferenceError, whose text quotes the input.
    """
    host, rest = _split_host(text)
    match = _REFERENCE.fullmatch(f"{host}/{rest}") if len(text) <= MAXIMUM_LENGTH and not _IDENTIFIER.fullmatch(text) else None
    if match is None:
        raise ReferenceError(f"{_short(text)}: {_reason(text, rest)}")
    found_host, path, tag, digest = match.groups()
    if found_host is None:
        # The grammar takes a host with an underscore for the first part of the path.
        path = path.removeprefix(f"{host}/")
    if host == DEFAULT_HOST and "/" not in path:
        path = DEFAULT_NAMESPACE + path
    if len(host) + 1 + len(path) > MAXIMUM_NAME_LENGTH:
        raise ReferenceError(f"{_short(text)}: repository name must not be more than {MAXIMUM_NAME_LENGTH} characters")
    if digest:
        if not is_digest(digest):
            raise ReferenceError(f"{_short(text)}: invalid or unsupported digest")
    elif not tag:
        tag = DEFAULT_TAG
    return Reference(host, path, tag or "", digest or "")


def is_digest(text: str) -> bool:
    """Whether `text` is a digest by which an image can be pulled."""
    algorithm, _, value = text.partition(":")
    return len(value) == _DIGEST_LENGTHS.get(algorithm) and value == value.lower() and _DIGEST_ONLY.fullmatch(text) is not None


def parse_or_none(text: str) -> Reference | None:
    """Parse and normalise a pull spec; None if it does not parse."""
    try:
        return parse_reference(text)
    except ReferenceError:
        return None


def written_name(reference: str) -> str:
    """`reference` without its tag and digest, otherwise as written: the platform does not normalise what it records."""
    name = reference.partition("@")[0]
    slash, colon = name.rfind("/"), name.rfind(":")
    return name[:colon] if colon > slash else name


def parse_exact(text: str) -> Reference | None:
    """Parse a pull spec that must be in its normal form already, except for a defaulted tag; None if it is not.

    The node rewrites a reference by string surgery and then accepts only canonical names: `docker.io/busybox`, whose
    canonical name has `library/` in it, does not count.
    """
    reference = parse_or_none(text)
    return reference if reference and text.startswith(reference.name) else None


def is_location(text: str) -> bool:
    """Whether `text` can be a mirror: `host[:port][/path]` with a registry host in front."""
    match = _LOCATION.fullmatch(text) if len(text) <= MAXIMUM_LENGTH else None
    return match is not None and has_registry_host(f"{match[1]}/") and match[1] != LEGACY_DEFAULT_HOST


def _split_host(text: str) -> tuple[str, str]:
    """The registry and the rest, with docker.io defaulted."""
    if not has_registry_host(text):
        first = text.partition("/")[0]
        if "/" not in text or first == first.lower():
            return DEFAULT_HOST, text
    host, _, rest = text.partition("/")
    return (DEFAULT_HOST if host == LEGACY_DEFAULT_HOST else host), rest


def _reason(text: str, rest: str) -> str:
    if _IDENTIFIER.fullmatch(text):
        return "64 hexadecimal characters are an image's identifier, not a repository"
    name = rest.partition("@")[0].rpartition(":")[0] or rest.partition("@")[0]
    if name != name.lower() and len(text) <= MAXIMUM_LENGTH and _REFERENCE.fullmatch(text.lower()):
        return "repository name must be lowercase"
    return "invalid reference format"


def _short(text: str) -> str:
    """`text` in quotes, cut where it would drown the message."""
    return repr(text if len(text) <= 200 else text[:200] + "…")
