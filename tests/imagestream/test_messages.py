"""Messages of the platform's importer, as it writes them: what each means, told by its form and not by words in an answer."""

import json
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.imagestream.failures import NEVER_BYPASSED, OF_THE_NETWORK, OF_THE_RIGHTS, FailureClass, classify
from mirrorstream.imagestream.messages import brief, mentions, read_part, split_aggregate

RECORDED = Path(__file__).parent.parent / "data" / "failure-messages.jsonl"
HOST = "registry.example.com:5000"
REF = f"{HOST}/team/app:v1"
MIRROR = "mirror.example.com:5000/team/app:v1"
URL = f"https://{HOST}/v2/team/app/manifests/v1"
PAGE = "invalid character '<' looking for beginning of value"
WRAP = "Internal error occurred: "


def group(kind: FailureClass) -> str:
    """What may be done about a class: the four answers that the recorded messages are labelled with."""
    if kind in NEVER_BYPASSED:
        return "content"
    if kind in OF_THE_RIGHTS:
        return "denied"
    return "network" if kind in OF_THE_NETWORK else str(kind)


def _recorded() -> list[Any]:
    rows = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    return [pytest.param(row, way, id=f"{row['id']}-{way}") for row in rows for way in ("condition", "dry_run")]


@pytest.mark.parametrize(("row", "way"), _recorded())
def test_recorded_messages(row: Any, way: str) -> None:
    """Each kind of answer that was recorded on the real importer means what it is labelled with."""
    failure = classify(row[way]["reason"], row[way]["message"], (REF,))
    assert group(failure.kind) == row["right"]


@pytest.mark.parametrize(
    ("cause", "right"),
    [
        pytest.param(cause, right, id=name)
        for name, cause, right in (
            (
                "json-404-of-a-gateway",
                'error parsing HTTP 404 response body: no error details found in HTTP response body: "{}"',
                "network",
            ),
            ("empty-403", 'error parsing HTTP 403 response body: unexpected end of JSON input: ""', "network"),
            ("page-429", f'error parsing HTTP 429 response body: {PAGE}: "<h1>denied</h1>"', "network"),
            ("page-407", f'error parsing HTTP 407 response body: {PAGE}: "<h1>unauthorized: x</h1>"', "network"),
            ("page-451", f'error parsing HTTP 451 response body: {PAGE}: "<h1>name unknown: x</h1>"', "network"),
            ("status-404", "received unexpected HTTP status: 404 Not Found", "network"),
            ("status-504", "received unexpected HTTP status: 504 Gateway Timeout", "network"),
            ("no-v2-of-before", f'endpoint "https://{HOST}" does not support v2 API', "network"),
            ("no-v2-429", f'endpoint "https://{HOST}" does not support v2 API (got 429 Too Many Requests)', "network"),
            ("proxy-forbids", f'Get "https://{HOST}/v2/": Forbidden', "network"),
            ("proxy-finds-nothing", f'Get "https://{HOST}/v2/": Not Found', "network"),
            ("proxy-wants-a-login", f'Get "https://{HOST}/v2/": Proxy Authentication Required', "network"),
            ("proxy-says-denied", f'Get "https://{HOST}/v2/": denied: by policy', "network"),
            ("proxy-is-away", f'Get "{URL}": proxyconnect tcp: dial tcp 10.0.0.3:3128: connect: no route to host', "network"),
            (
                "proxys-certificate",
                f'Get "{URL}": proxyconnect tcp: tls: first record does not look like a TLS handshake',
                "network",
            ),
            (
                "goaway",
                f'Get "{URL}": http2: server sent GOAWAY and closed the connection; debug="not found"',
                "network",
            ),
            ("stream-error", "stream error: stream ID 1; INTERNAL_ERROR; received from peer", "network"),
            (
                "malformed",
                f'Get "{URL}": net/http: HTTP/1.x transport connection broken: malformed HTTP response "name unknown: x"',
                "network",
            ),
            ("plain-http", f'Get "https://{HOST}/v2/": http: server gave HTTP response to HTTPS client', "network"),
            (
                "certificates-name",
                f'Get "https://{HOST}/v2/": tls: failed to verify certificate: x509: certificate is valid for denied.io, not h',
                "network",
            ),
            ("handshake", f'Get "https://{HOST}/v2/": remote error: tls: handshake failure', "network"),
            (
                "host-called-not-found",
                f'Get "https://{HOST}/v2/": dial tcp: lookup not-found.example.com on 10.0.0.10:53: no such host',
                "network",
            ),
            ("no-location", f'Get "{URL}": 302 response missing Location header', "network"),
            ("redirected-to-ftp", 'Get "ftp://x/": unsupported protocol scheme "ftp"', "network"),
            ("gzip", "gzip: invalid header", "network"),
            ("cut-off", "http: unexpected EOF reading trailer", "network"),
            ("chunks", "invalid byte in chunk length", "network"),
            ("too-large", "http: response body too large", "network"),
            ("no-length", f"missing content-length header for request: {URL}", "network"),
            ("no-content-type", "mime: no media type", "network"),
            (
                "token-service-is-away",
                f'Get "{URL}": Get "https://auth.example.com/token?scope=x": dial tcp 10.0.0.4:443: connect: connection refused',
                "network",
            ),
            ("token-services-proxy", f'Get "{URL}": Get "https://auth.example.com/token?scope=x": Forbidden', "network"),
            ("token-services-page", f'Get "{URL}": unable to decode token response: {PAGE}', "network"),
            (
                "token-services-page-403",
                f'Get "{URL}": error parsing HTTP 403 response body: {PAGE}: "<b>denied: no</b>"',
                "network",
            ),
            ("no-token", f'Get "{URL}": authorization server did not include a token in the response', "network"),
            ("lost-blob", "blob unknown: blob unknown to registry", "network"),
            ("unavailable", "unavailable: service unavailable", "network"),
            ("text-for-a-manifest", "invalid character 'h' looking for beginning of value", "network"),
            (
                "insufficient-scope",
                "errors:\ndenied: requested access to the resource is denied\nerror parsing HTTP 403 response body: x\n",
                "denied",
            ),
            ("token-service-401", f'Get "{URL}": unauthorized: authentication required', "denied"),
            ("blobs-basic", f'Head "https://{HOST}/v2/team/app/blobs/sha256:aa": no basic auth credentials', "denied"),
            ("denied-not-found", "denied: repository not found or access denied", "denied"),
            ("harbors-policy", "unknown: current image with 5 vulnerabilities cannot be pulled due to configured policy", "denied"),
            ("harbors-signatures", "unknown: The image is not signed in Cosign.", "denied"),
            ("a-scanners-policy", "unknown: the download was rejected by a policy", "denied"),
            ("quarantine", "unknown: requested item is QUARANTINED", "denied"),
            ("blocked", "unknown: team/app is blocked until it was scanned", "denied"),
            ("gitlab", "denied: access forbidden", "denied"),
            ("ecr", "name unknown: The repository with name 'app' does not exist in the registry with id '1'", "not-found"),
            ("harbors-own-code", "unknown: artifact team/app:v1 not found", "not-found"),
            ("harbors-repository", "unknown: repository team/app not found", "not-found"),
            ("two-errors", "errors:\ndenied: x\nmanifest unknown: manifest unknown\n", "not-found"),
            (
                "manifests-digest",
                "content integrity error: the manifest retrieved (media type: x) with digest sha256:a does not match",
                "content",
            ),
            ("blobs-digest", "content integrity error: the blob retrieved with digest sha256:a does not match", "content"),
            ("digest-invalid", "digest invalid: provided digest did not match uploaded content", "content"),
            ("tag-invalid", "tag invalid: manifest tag did not match URI", "content"),
            ("name-invalid", "name invalid: invalid repository name", "content"),
            ("unverified", "manifest unverified: manifest failed signature verification", "content"),
            ("schema-1", "manifest invalid: Schema 1 manifest not supported", "content"),
            ("empty-list", "no manifests in manifest list", "content"),
            ("an-index-for-a-manifest", "ocimanifest: expected manifest but found index", "content"),
            ("other-media-type", "if present, mediaType in manifest should be 'a' not 'b'", "content"),
            ("json-of-a-web-service", "missing signature key", "network"),
            ("unknown", "unknown: unknown error", "unknown"),
            ("something-new", "the moon is in the wrong phase: not found", "unknown"),
        )
    ],
)
def test_other_messages(cause: str, right: str) -> None:
    """What else the importer, its client, its token handler and Go's net/http can write of one pull source."""
    assert group(classify("InternalError", f"{WRAP}{REF}: {cause}", (REF,)).kind) == right


@pytest.mark.parametrize(
    ("reason", "message", "kind"),
    [
        pytest.param(
            "NotV2Registry", 'forbidden: registry "h" does not support the v2 Registry API', "not-a-registry", id="not-v2"
        ),
        pytest.param(
            "InternalError",
            f"{WRAP}invalid character 'P' looking for beginning of value",
            "unsupported",
            id="artifacts-configuration",
        ),
        pytest.param(
            "InternalError", f"{WRAP}unsupported image manifest type: *ocischema.Index", "unsupported", id="manifest-type"
        ),
        pytest.param(
            "InternalError",
            f'{WRAP}unknown error while importing tag "v1" from repository "app", please try again.',
            "unknown",
            id="platform",
        ),
        pytest.param(
            "InternalError",
            f'{WRAP}{REF}: Get "{URL}": dial tcp: lookup timeout.example.com: no such host',
            "unreachable",
            id="host",
        ),
        pytest.param(
            "InternalError", f"{WRAP}{REF}: received unexpected HTTP status: 504 Gateway Timeout", "server-error", id="504"
        ),
        pytest.param("InternalError", f'{WRAP}{REF}: Get "{URL}": context deadline exceeded', "timeout", id="deadline"),
        pytest.param("InternalError", f"{WRAP}{REF}: rate: Wait(n=1) would exceed context deadline", "timeout", id="limiter"),
    ],
)
def test_classes_that_decide_more_than_a_bypass(reason: str, message: str, kind: str) -> None:
    """Content is told from a page by its place in the import; a timeout decides which reference is recorded."""
    assert classify(reason, message, (REF,)).kind == kind


FORGED = f'error parsing HTTP 403 response body: {PAGE}: "<b>, {REF}: name unknown: x, you may not have access to \\"{REF}\\"</b>"'


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        pytest.param([f"{MIRROR}: {FORGED}", f"{REF}: EOF"], FailureClass.UNREACHABLE, id="a-mirrors-page-names-the-source"),
        pytest.param([f"{MIRROR}: invalid character '\"' after x", f'{REF}: {PAGE}: "q"'], FailureClass.NOT_A_REGISTRY, id="mark"),
        pytest.param([f'{MIRROR}: denied: an open " mark', f"{REF}: name unknown"], FailureClass.NOT_FOUND, id="unbalanced"),
        pytest.param(["a.io/b:1: denied: x", "c.io/d:1: EOF"], FailureClass.DENIED, id="source-not-named"),
    ],
)
def test_a_page_names_no_source(parts: list[str], kind: FailureClass) -> None:
    """Neither where parts begin nor which part is the source's is read in what somebody answered."""
    message = f"{WRAP}[{', '.join(parts)}]"
    assert split_aggregate(message) == parts
    assert classify("InternalError", message, (REF,)).kind is kind


@pytest.mark.parametrize(
    "text",
    [
        f"{REF}: EOF",
        f'dockerimage.image.openshift.io "{REF}" not found',
        f'you may not have access to the container image "{REF}" and did not have credentials to the repository',
        f'incorrect username or password for image "{REF}"',
        f"unable to get all pull sources for {REF}: x",
        f' "" is invalid: from.name: Invalid value: "{REF}": invalid name: x',
    ],
)
@pytest.mark.parametrize("reference", [REF, "[2001:db8::1]:5000/team/app:v1", "[::1]/team/app:v1"])
def test_every_sentence_of_the_importer_names_its_source(text: str, reference: str) -> None:
    """A longer name, or one with another tag, is another source. An address in brackets is no aggregate."""
    text = text.replace(REF, reference)
    assert read_part(text).subject == reference
    assert mentions(text, reference)
    assert not mentions(text, reference[:-1])
    assert split_aggregate(f"{text} [x]") == [f"{text} [x]"]
    parts = [f"{reference}: EOF"] * 2
    assert split_aggregate(f"[{', '.join(parts)}]") == parts
    assert brief(f"{WRAP}{reference}: EOF") == "EOF"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (f'{WRAP}dockerimage.image.openshift.io "{REF}" not found', "not found"),
        (f'{WRAP}{REF}: Get "{URL}": Get "https://auth/token": EOF', "EOF"),
        (
            f'{WRAP}{REF}: error parsing HTTP 403 response body: {PAGE}: "<html>a long page</html>"',
            "no registry answered: HTTP 403",
        ),
        (
            f'{WRAP}{REF}: endpoint "https://h" does not support v2 API (got 404 Not Found)',
            "no registry answered: HTTP 404 Not Found",
        ),
        (f"{WRAP}[{MIRROR}: EOF, {REF}: EOF]", f"[{MIRROR}: EOF, {REF}: EOF]"),
        ("", ""),
    ],
)
def test_what_people_are_told(message: str, text: str) -> None:
    """The cause alone, and never a page."""
    assert brief(message) == text
