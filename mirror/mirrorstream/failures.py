"""What a failed import means, and whether the mirrors may stand in for the source.

Nearly every failure arrives as InternalError, so the message decides. It is read only to tell "the source could not be asked"
from "the source, or the platform, said no": the first is what mirrors are for, the second must never be walked around.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from mirrorstream.references import MAXIMUM_LENGTH


class FailureClass(StrEnum):
    """Why an import failed; the values label metrics and Events."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TLS = "tls"
    SERVER_ERROR = "server-error"
    THROTTLED = "throttled"
    NOT_A_REGISTRY = "not-a-registry"
    UNAUTHORIZED = "unauthorized"
    DENIED = "denied"
    NOT_FOUND = "not-found"
    FORBIDDEN = "forbidden"
    INVALID = "invalid"
    UNSUPPORTED = "unsupported"
    INTEGRITY = "integrity"
    STUCK = "stuck"
    UNKNOWN = "unknown"


NEVER_BYPASSED = frozenset({FailureClass.FORBIDDEN, FailureClass.INVALID, FailureClass.UNSUPPORTED, FailureClass.INTEGRITY})
"""The platform, or the content, said no. No setting changes that."""

OF_THE_NETWORK = frozenset(
    {
        FailureClass.UNREACHABLE,
        FailureClass.TIMEOUT,
        FailureClass.TLS,
        FailureClass.SERVER_ERROR,
        FailureClass.THROTTLED,
        FailureClass.NOT_A_REGISTRY,
    }
)
"""The source did not get to answer for the image."""

# In order: a text that says why content was refused outranks one that says how it travelled. The texts are those of the
# platform's importer, the distribution client and Go's net, net/http and crypto packages.
_PATTERNS: tuple[tuple[FailureClass, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        (
            FailureClass.FORBIDDEN,
            r"^forbidden: |\bregistry \S+ blocked\b|not allowed by whitelist|does not support the v2 registry",
        ),
        (FailureClass.INTEGRITY, r"content integrity error|digest(?: verification failed|s? (?:does|do) not match)"),
        (
            FailureClass.UNSUPPORTED,
            r"unsupported (?:image )?manifest|manifest schema|no manifests in manifest list|unknown manifest|"
            r"unsupported (?:media|content) ?type|manifest invalid",
        ),
        (
            FailureClass.INVALID,
            r"invalid reference format|requires the insecure flag|unable to parse (?:docker )?reference|is invalid: ",
        ),
        (FailureClass.NOT_FOUND, r"\bnot found\b|name unknown|manifest unknown|name_unknown|manifest_unknown|HTTP status: 404"),
        (FailureClass.THROTTLED, r"toomanyrequests|too many requests|HTTP status: 429"),
        (FailureClass.TIMEOUT, r"timeout|timed out|deadline exceeded|request canceled"),
        (FailureClass.TLS, r"x509:|\btls: |certificate|http response to https client"),
        (FailureClass.SERVER_ERROR, r"HTTP status: 5\d\d|\bunavailable\b|bad gateway|internal server error|internal_error"),
        (
            FailureClass.UNAUTHORIZED,
            r"you may not have access|unauthorized|authentication required|no basic auth credentials|"
            r"incorrect username or password|HTTP status: 401",
        ),
        (FailureClass.DENIED, r"\bdenied\b|HTTP status: 403"),
        (FailureClass.NOT_A_REGISTRY, r"error unmarshalling content|error parsing HTTP|invalid character '<'|malformed HTTP"),
        (
            FailureClass.UNREACHABLE,
            r"connection refused|connection reset|no such host|server misbehaving|no route to host|network is unreachable|"
            r"host is down|broken pipe|name resolution|lookup \S+|proxyconnect|\bEOF\b|dial tcp|use of closed|HTTP status: 407|"
            r"connection (?:was )?(?:closed|aborted|lost)|protocol error|transport",
        ),
    )
)

_BY_REASON = {
    "Unauthorized": FailureClass.UNAUTHORIZED,
    "NotFound": FailureClass.NOT_FOUND,
    "Forbidden": FailureClass.FORBIDDEN,
    "Invalid": FailureClass.INVALID,
    "BadRequest": FailureClass.INVALID,
}
"""Reasons that the platform sets only when it knows; all else is InternalError or nothing."""

_WRAPPER = "Internal error occurred: "


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed import: its class, and the part of the message that decided it."""

    kind: FailureClass
    message: str

    def may_be_bypassed(self, *, bypass_not_found: bool) -> bool:
        """Whether a mirror's answer may stand in for the source's.

        NotFound is the source's own answer: a stale mirror could bring a deleted tag back, so it takes the administrator's word.
        An unknown text is bypassed: on the node, too, any failure makes room for the next pull source, and whatever the
        mirrors answer is verified by the platform's importer.
        """
        if self.kind in NEVER_BYPASSED:
            return False
        return self.kind is not FailureClass.NOT_FOUND or bypass_not_found


def classify_message(message: str) -> FailureClass:
    """The class of one error text that is about a single pull source.

    The reference in front is not looked at: a repository may be called `timeout`, or `certificate`.
    """
    cause = _LEADING_REFERENCE.sub("", message.removeprefix(_WRAPPER), count=1)
    return next((kind for kind, pattern in _PATTERNS if pattern.search(cause)), FailureClass.UNKNOWN)


# The host ends at the first slash: were others allowed in it, a text of slashes would be tried from each of them anew.
_LEADING_REFERENCE = re.compile(r'^[a-z0-9][^\s"\[\]/]*/[^\s"]+: ')
DEEPEST = 16
"""Aggregates in aggregates that are taken apart; the importer nests them once. What is deeper stays one part."""


def split_aggregate(message: str, depth: int = DEEPEST) -> list[str]:
    """The parts of an error message: one for each pull source that the platform tried.

    An aggregate is `[PART, PART]`, possibly nested. Commas, brackets and colons occur inside parts too (IPv6 addresses, lists of
    allowed registries), so it is cut only where the next part visibly begins: with a reference, or with one of the few
    sentences that the importer starts a part with.
    """
    text = message.removeprefix(_WRAPPER)
    if not depth or not (text.startswith("[") and text.endswith("]")):
        return [text]
    return [part for piece in _PART_START.split(text[1:-1]) for part in split_aggregate(piece, depth - 1)]


_PART_START = re.compile(
    r", (?=(?:\[|[a-z0-9][\w.-]*(?::\d+)?/\S+: |(?:you may not have access|incorrect username)|"
    r"dockerimage\.image\.openshift\.io \"|the repository |unable to |registry |forbidden: ))"
)


def mentions(part: str, reference: str) -> bool:
    """Whether `part` of a message is about the pull source `reference` (as written, or with its tag or digest defaulted).

    The importer puts the reference in front (`REF: cause`) or in quotes; the host alone, as in a dialled address, does not
    count, since a mirror on the same host is another pull source.
    """
    if len(reference) > MAXIMUM_LENGTH:
        return False  # no pull spec; and looking for it would take its length times the part's
    return re.search(rf'(?:^|["\s\[]){re.escape(reference)}(?:["\s,\]]|:\s|$)', part) is not None


def classify(reason: str, message: str, references: tuple[str, ...] = ()) -> Failure:
    """Classify a failed import.

    `reason` and `message` are the ImportSuccess condition's, or those of a status in an ImageStreamImport. `references` are the
    spellings of the source's reference (as the user wrote it, and normalised): in an aggregate over several pull sources the
    part about the source decides, the others only say what mirrors did. If no part names the source, the most forbidding
    part decides, since nothing shows that it was not the source's.
    """
    parts = split_aggregate(message)
    if len(parts) == 1:
        kind = _BY_REASON.get(reason)
        if kind is None:
            kind = classify_message(parts[0])
        return Failure(kind, message)
    about_source = [part for part in parts if any(mentions(part, reference) for reference in references)]
    classified = [Failure(classify_message(part), part) for part in about_source or parts]
    forbidding = [f for f in classified if f.kind in NEVER_BYPASSED] or [f for f in classified if f.kind is FailureClass.NOT_FOUND]
    return forbidding[0] if forbidding else classified[-1]


def brief(message: str) -> str:
    """A failure's message for people: without the importer's wrapping, the reference in front and the URL that was asked for."""
    text = _LEADING_REFERENCE.sub("", message.removeprefix(_WRAPPER), count=1)
    return _NOT_FOUND.sub("not found", _REQUEST.sub("", text, count=1)) or message


_REQUEST = re.compile(r'^(?:Get|Head|Post) "[^"]*": ')
_NOT_FOUND = re.compile(r'^dockerimage\.image\.openshift\.io "[^"]*" not found$')
