"""What a failed import means, and whether the mirrors may stand in for the source.

Nearly every failure arrives as InternalError, so the message decides. It is read only to tell "the source could not be asked"
from "the source, or the platform, said no": the first is what mirrors are for, the second must never be walked around.

The form of the message decides, never a word in what somebody answered: a filtering proxy's page may contain anything. 'Not found'
and 'denied' are what a registry says as a registry, by the error codes of the distribution API. A 404 or 403 in any other form
means that no registry answered.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mirrorstream.imagestream.messages import mentions, read_part, split_aggregate, without_quoted

if TYPE_CHECKING:
    from mirrorstream.runtime.settings import MirrorSettings


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

OF_SLOW_SOURCES = frozenset({FailureClass.TIMEOUT, FailureClass.STUCK})
"""The source lets its callers wait."""

OF_THE_RIGHTS = frozenset({FailureClass.UNAUTHORIZED, FailureClass.DENIED})
"""The source asks for a login, or forbids: 401 and 403."""

# What the distribution client, its token handler and the importer write, each from the beginning of the cause. Sources:
# distribution/registry/client and registry/api, libtrust, go-digest, openshift-apiserver's pkg/image/apiserver/importer.
_CODES = {
    "manifest unknown": FailureClass.NOT_FOUND,
    "name unknown": FailureClass.NOT_FOUND,
    "unauthorized": FailureClass.UNAUTHORIZED,
    "denied": FailureClass.DENIED,
    "toomanyrequests": FailureClass.THROTTLED,
    "unavailable": FailureClass.SERVER_ERROR,
    # The manifest is there, something that belongs to it is not: the source lost a part, and did not say no.
    "unknown blob": FailureClass.SERVER_ERROR,
    "blob unknown": FailureClass.SERVER_ERROR,
    "manifest blob unknown": FailureClass.SERVER_ERROR,
    "unsupported": FailureClass.UNSUPPORTED,
    "manifest invalid": FailureClass.UNSUPPORTED,
    "manifest unverified": FailureClass.INTEGRITY,
    "digest invalid": FailureClass.INTEGRITY,
    "size invalid": FailureClass.INTEGRITY,
    "name invalid": FailureClass.INVALID,
    "tag invalid": FailureClass.INVALID,
}
"""The error codes of the distribution API as its client writes them: `CODE`, or `CODE: MESSAGE`."""
_CODE = re.compile(rf"({'|'.join(_CODES)})(?:: |$)")
_OWN_CODE = re.compile(r"unknown: (.*)", re.DOTALL)
_LIST = "errors:\n"
_STATUS = re.compile(
    r'(?:endpoint "[^"]*" does not support v2 API(?: \(got )?|error parsing HTTP |received unexpected HTTP status: |'
    r"unexpected status resolving reader: )(\d{3})?"
)
_SENTENCES: tuple[tuple[FailureClass, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (FailureClass.FORBIDDEN, r'forbidden: |registry \S+ (?:blocked|not allowed by whitelist)|[\w.]+ "[^"]*" is forbidden: '),
        (FailureClass.INTEGRITY, r"content integrity error: |digest verification failed|digests? (?:does|do) not match"),
        (
            FailureClass.UNSUPPORTED,
            r"unsupported (?:image )?manifest|unsupported (?:media|content) ?type|manifest schema|no manifests in manifest list|"
            r"unknown manifest class|(?:if present, )?mediaType in |index: expected |ocimanifest: expected |"
            r"image has no v1Compatibility history|unable to load canonical representation|the schema1 manifest does not|"
            # libtrust, of a signed manifest
            r"no signatures|error unmarshalling (?:signatures|protected header|public key)|base64 decode error|"
            r"missing formatted |conflicting format |invalid format length|invalid json content",
        ),
        (
            FailureClass.INVALID,
            r"invalid reference format|the repository \S+ is HTTP only|unable to parse (?:docker )?reference|repository name must |"
            r"the provided repository name is not valid|invalid checksum digest|unsupported digest algorithm|"
            r'[\w.]+ "[^"]*" is invalid: ',
        ),
        (
            FailureClass.NOT_FOUND,
            r'dockerimages?(?:\.image\.openshift\.io)? "[^"]*" not found$|unknown (?:tag|repository name|manifest name)=',
        ),
        (
            FailureClass.UNAUTHORIZED,
            r"you may not have access to the container image|incorrect username or password|no basic auth credentials$",
        ),
        (
            FailureClass.NOT_A_REGISTRY,
            r"error unmarshalling content: |unable to decode token response: |authorization server did not include a token|"
            r"no realm specified|invalid token auth challenge|mime: |missing (?:or empty )?content-|error parsing content-length: |"
            r"missing (?:or empty )?Content-|unsupported Content-Encoding|no Content-Range header|could not parse |"
            # libtrust, which reads JSON of any type without a decoder of its own: a web service's answer, say
            r"missing signature key",
        ),
    )
)
_JSON = re.compile(r"invalid character |unexpected end of JSON input|json: |parsing time |Time\.UnmarshalJSON: ")
_PAGE = "invalid character '<'"

# What Go's net, net/http and crypto/tls write when a request brought no answer. They differ only in what people are told, and in
# whether the source costs its callers a wait.
_TRANSPORT: tuple[tuple[FailureClass, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        (FailureClass.TLS, r"\bx509: |\btls: |http response to https client"),
        (
            FailureClass.TIMEOUT,
            # Not in a host's name: `lookup timeout.example.com: no such host`.
            r"(?<![\w.-])timeout(?![\w.-])|client\.timeout|timed out|deadline exceeded|exceed context deadline|request canceled",
        ),
        (
            FailureClass.NOT_A_REGISTRY,
            r"malformed |stopped after \d+ redirects|missing location header|failed to parse location|unsupported protocol scheme",
        ),
        (
            FailureClass.UNREACHABLE,
            r"connection refused|connection reset|no such host|server misbehaving|no route to host|network is unreachable|"
            r"host is down|broken pipe|name resolution|lookup \S+|proxyconnect|\bEOF\b|dial tcp|use of closed|http2: |"
            r"^(?:net/)?http: |chunk|stream error: |"
            r"connection (?:was )?(?:closed|aborted|lost)|protocol error|transport|gzip: |flate: |context canceled",
        ),
    )
)

_BY_REASON = {
    "Unauthorized": FailureClass.UNAUTHORIZED,
    "NotFound": FailureClass.NOT_FOUND,
    "Forbidden": FailureClass.FORBIDDEN,
    "Invalid": FailureClass.INVALID,
    "BadRequest": FailureClass.INVALID,
    "NotV2Registry": FailureClass.NOT_A_REGISTRY,
}
"""Reasons that the platform sets only when it knows; all else is InternalError or nothing."""


@dataclass(frozen=True, slots=True)
class Bypass:
    """Which of the source's own answers a mirror may stand in for: `mirrors.bypassNotFound` and `mirrors.bypassDenied`."""

    not_found: bool = False
    denied: bool = True

    @staticmethod
    def of(mirrors: "MirrorSettings") -> "Bypass":
        """As the configuration says."""
        return Bypass(not_found=mirrors.bypassNotFound, denied=mirrors.bypassDenied)


BYPASS_BY_DEFAULT = Bypass()


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed import: its class, and the part of the message that decided it."""

    kind: FailureClass
    message: str

    def may_be_bypassed(self, bypass: Bypass) -> bool:
        """Whether a mirror's answer may stand in for the source's.

        NotFound is the source's own answer: a stale mirror could bring a deleted tag back, so it takes the administrator's word.
        An unknown text is bypassed: on the node, too, any failure makes room for the next pull source, and whatever the
        mirrors answer is verified by the platform's importer.
        """
        return may_be_bypassed(self.kind, bypass)


def may_be_bypassed(kind: FailureClass, bypass: Bypass) -> bool:
    """The same of a class alone."""
    if kind in NEVER_BYPASSED:
        return False
    if kind in OF_THE_RIGHTS:
        return bypass.denied
    return kind is not FailureClass.NOT_FOUND or bypass.not_found


def why_not_bypassed(failure: Failure) -> str:
    """Why a failure that may not be bypassed is not: the setting, if there is one."""
    if failure.kind in OF_THE_RIGHTS:
        return f"the failure ({failure.kind}) must not be bypassed, since mirrors.bypassDenied is false: {failure.message}"
    if failure.kind is FailureClass.NOT_FOUND:
        return f"the failure ({failure.kind}) must not be bypassed, since mirrors.bypassNotFound is false: {failure.message}"
    return f"the failure ({failure.kind}) must not be bypassed: {failure.message}"


def classify_message(message: str) -> FailureClass:
    """The class of one error text that is about a single pull source."""
    part = read_part(message)
    if len(part.requests) > 1 or any(url.endswith("/v2/") for url in part.requests):
        # Neither the first request to a registry nor one to its token service reads what was answered.
        return _transport(part.cause) or FailureClass.UNREACHABLE
    if found := _answer(part.cause):
        return found
    if _JSON.match(part.cause):
        # Without a reference in front the text is about content whose digest was right, but for lists of tags.
        raw = not part.subject and not part.requests and not part.cause.startswith(_PAGE)
        return FailureClass.UNSUPPORTED if raw else FailureClass.NOT_A_REGISTRY
    return _transport(part.cause) or (FailureClass.UNREACHABLE if part.requests else FailureClass.UNKNOWN)


def _answer(cause: str) -> FailureClass | None:
    """The class of an answer, by a registry or by a server in its place, or of the importer's own error; None if it is neither."""
    if cause.startswith(_LIST):
        kinds = [kind for line in cause.removeprefix(_LIST).splitlines() if (kind := _answer(line))]
        return _most_forbidding(kinds) if kinds else FailureClass.UNKNOWN
    if code := _CODE.match(cause):
        return _CODES[code[1]]
    if own := _OWN_CODE.match(cause):
        return _own_code(own[1])
    if status := _STATUS.match(cause):
        return _by_status(int(status[1] or 0))
    return next((kind for kind, pattern in _SENTENCES if pattern.match(cause)), None)


_THING = re.compile(r"\b(?:artifact|repository|project|manifest|image|tag)\b")
_MISSING = re.compile(r"\b(?:not found|not exist)\b")
_NO_RIGHT = re.compile(
    r"\b(?:cannot be pulled|denied|forbidden|unauthorized|not (?:allowed|authorized|permitted|signed)|"
    r"blocked|quarantined|rejected)\b"  # by a scanner or a policy
)


def _own_code(message: str) -> FailureClass:
    """The class of a registry's error with a code of its own, which the client writes as unknown: Harbor's NOT_FOUND, say."""
    text = message.lower()
    if (thing := _THING.search(text)) and _MISSING.search(text, thing.end()):
        return FailureClass.NOT_FOUND
    return FailureClass.DENIED if _NO_RIGHT.search(text) else FailureClass.UNKNOWN


def _by_status(status: int) -> FailureClass:
    """The class of an HTTP status whose body is no registry's error."""
    if status == 401:
        return FailureClass.UNAUTHORIZED
    if status == 429:
        return FailureClass.THROTTLED
    # 511 is a captive portal's.
    return FailureClass.SERVER_ERROR if 500 <= status < 511 else FailureClass.NOT_A_REGISTRY


def _transport(cause: str) -> FailureClass | None:
    words = without_quoted(cause)
    return next((kind for kind, pattern in _TRANSPORT if pattern.search(words)), None)


def _most_forbidding(kinds: list[FailureClass]) -> FailureClass:
    """The one that forbids most; of equal ones the last."""
    return max(reversed(kinds), key=_forbids)


def _forbids(kind: FailureClass) -> int:
    if kind in NEVER_BYPASSED:
        return 3
    return 2 if kind is FailureClass.NOT_FOUND else 1 if kind in OF_THE_RIGHTS else 0


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
    return max(reversed(classified), key=lambda failure: _forbids(failure.kind))
