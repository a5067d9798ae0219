"""Failure classes: what the mirrors may stand in for, decided from the texts that the real API recorded."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.imagestream.failures import Bypass, FailureClass, classify
from mirrorstream.imagestream.messages import split_aggregate

RECORDINGS = Path(__file__).parent.parent / "data" / "openshift-recordings.jsonl"
REF = "registry.example.com/team/app:v1"
WRAP = "Internal error occurred: "
MIRROR = "mirror.example.com:5000/team/app:v1"

C = FailureClass


@pytest.mark.parametrize(
    ("reason", "message", "kind", "bypassed"),
    [
        pytest.param("Unauthorized", f'you may not have access to the container image "{REF}"', C.UNAUTHORIZED, True, id="401"),
        pytest.param("NotFound", f'dockerimage.image.openshift.io "{REF}" not found', C.NOT_FOUND, False, id="tag-missing"),
        pytest.param("Forbidden", "forbidden: registry registry.example.com blocked", C.FORBIDDEN, False, id="blocked"),
        pytest.param("Invalid", 'Invalid value: "x": invalid name', C.INVALID, False, id="invalid"),
        pytest.param(
            "BadRequest", "the repository x is HTTP only and requires the insecure flag", C.INVALID, False, id="http-only"
        ),
        *(
            pytest.param("InternalError", f"{WRAP}{REF}: {text}", kind, bypassed, id=name)
            for name, text, kind, bypassed in (
                ("refused", 'Get "https://h/v2/": dial tcp 10.0.0.1:443: connect: connection refused', C.UNREACHABLE, True),
                (
                    "dropped",
                    'Get "https://h/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded '
                    "while awaiting headers)",
                    C.TIMEOUT,
                    True,
                ),
                ("silent", 'Get "https://h/v2/": net/http: TLS handshake timeout', C.TIMEOUT, True),
                ("no-repository", "name unknown: repository not found in registry", C.NOT_FOUND, False),
                ("manifest-unknown", "manifest unknown: manifest unknown", C.NOT_FOUND, False),
                ("403", "denied: requested access to the resource is denied", C.DENIED, True),
                ("500", "received unexpected HTTP status: 500 Internal Server Error", C.SERVER_ERROR, True),
                ("503", "received unexpected HTTP status: 503 Service Unavailable", C.SERVER_ERROR, True),
                ("429", "toomanyrequests: slow down", C.THROTTLED, True),
                ("x509", "tls: failed to verify certificate: x509: certificate signed by unknown authority", C.TLS, True),
                ("expired", "x509: certificate has expired or is not yet valid", C.TLS, True),
                (
                    "html",
                    "error unmarshalling content: invalid character '<' looking for beginning of value",
                    C.NOT_A_REGISTRY,
                    True,
                ),
                (
                    "proxy-html",
                    "error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: \"<html>\"",
                    C.NOT_A_REGISTRY,
                    True,
                ),
                (
                    "integrity",
                    "content integrity error: the manifest retrieved with digest sha256:aa does not match the digest calculated "
                    "from the content sha256:bb",
                    C.INTEGRITY,
                    False,
                ),
                ("unsupported", "unsupported image manifest type: *schema1.SignedManifest", C.UNSUPPORTED, False),
                ("dns", "dial tcp: lookup registry.example.com on 10.0.0.10:53: no such host", C.UNREACHABLE, True),
                ("dns-timeout", "dial tcp: lookup h: i/o timeout", C.TIMEOUT, True),
                ("eof", 'Get "https://h/v2/": EOF', C.UNREACHABLE, True),
                ("reset", "read tcp 10.0.0.2:4711->10.0.0.1:443: read: connection reset by peer", C.UNREACHABLE, True),
                (
                    "proxy",
                    'Get "https://h/v2/": proxyconnect tcp: dial tcp 10.0.0.3:3128: connect: no route to host',
                    C.UNREACHABLE,
                    True,
                ),
                ("something-new", "the moon is in the wrong phase", C.UNKNOWN, True),
            )
        ),
    ],
)
def test_one_pull_source(reason: str, message: str, kind: FailureClass, bypassed: bool) -> None:
    """Every text that the platform is known to write has its class, whatever its reason says."""
    failure = classify(reason, message, (REF,))
    assert (failure.kind, failure.may_be_bypassed(Bypass())) == (kind, bypassed)


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        pytest.param([f"{MIRROR}: connection refused", f"{REF}: connection refused"], C.UNREACHABLE, id="both-dead"),
        pytest.param([f"{MIRROR}: name unknown: x", f"{REF}: dial tcp: connection refused"], C.UNREACHABLE, id="mirror-lacks-it"),
        pytest.param(
            [f'dockerimage.image.openshift.io "{MIRROR}" not found', f"{REF}: EOF"], C.UNREACHABLE, id="mirror-lacks-the-tag"
        ),
        pytest.param([f'you may not have access to the container image "{MIRROR}"', f"{REF}: EOF"], C.UNREACHABLE, id="mirror-401"),
        pytest.param([f"{MIRROR}: EOF", f'dockerimage.image.openshift.io "{REF}" not found'], C.NOT_FOUND, id="source-lacks-it"),
        pytest.param(
            [f"{MIRROR}: EOF", f'you may not have access to the container image "{REF}"'], C.UNAUTHORIZED, id="source-401"
        ),
        pytest.param([f"{MIRROR}: content integrity error: x", f"{REF}: EOF"], C.UNREACHABLE, id="mirror-is-corrupt"),
        pytest.param([f"{MIRROR}: EOF", f"{REF}: content integrity error: x"], C.INTEGRITY, id="source-is-corrupt"),
        pytest.param([f"{MIRROR}: EOF", "other.example.com/x/y:v1: name unknown: x"], C.NOT_FOUND, id="source-not-named"),
        pytest.param([f"[{MIRROR}: EOF, {MIRROR}2: EOF]", f"{REF}: no such host"], C.UNREACHABLE, id="nested"),
        pytest.param(
            [f"{MIRROR}: dial tcp [::1]:5000: connect: connection refused, after 2 tries", f"{REF}: name unknown: a, b"],
            C.NOT_FOUND,
            id="commas-and-brackets-inside",
        ),
        pytest.param(
            [f"{REF.replace('app', 'apple')}: name unknown: x", f"{REF}: EOF"],
            C.UNREACHABLE,
            id="a-longer-name-is-not-the-source",
        ),
    ],
)
def test_the_part_about_the_source_decides(parts: list[str], kind: FailureClass) -> None:
    """What a mirror answered never stands for the source's answer."""
    assert classify("InternalError", f"{WRAP}[{', '.join(parts)}]", (REF,)).kind is kind


def test_an_aggregate_is_cut_where_parts_begin() -> None:
    """Commas, brackets and colons inside a part do not cut it."""
    parts = [f"{MIRROR}: dial tcp [::1]:5000: refused, twice", f'you may not have access to the container image "{REF}"']
    assert split_aggregate(f"{WRAP}[{', '.join(parts)}]") == parts


def _recorded_failures() -> list[Any]:
    found = {}
    for line in RECORDINGS.read_text().splitlines():
        row = json.loads(line)
        for step in row["steps"]:
            response = step["response"] if isinstance(step["response"], dict) else {}
            for tag in (response.get("status") or {}).get("tags") or [] if isinstance(response.get("status"), dict) else []:
                for condition in tag.get("conditions") or []:
                    if condition["type"] == "ImportSuccess":
                        found[row["id"], condition["message"]] = condition
    return [pytest.param(identity, c, id=f"{identity[0]}-{n}") for n, (identity, c) in enumerate(found.items())]


EXPECTED = {
    "dead": C.UNREACHABLE,
    "unauthorized": C.UNAUTHORIZED,
    "forbidden": C.DENIED,
    "broken": C.SERVER_ERROR,
    "throttled": C.THROTTLED,
    "garbage": C.NOT_A_REGISTRY,
    "tls": C.TLS,
    "blocked": C.FORBIDDEN,
    "wrongdigest": C.INTEGRITY,
    "good": C.NOT_FOUND,
}


@pytest.mark.parametrize(("identity", "condition"), _recorded_failures())
def test_recorded_conditions_classify_by_their_registry(identity: tuple[str, str], condition: dict[str, str]) -> None:
    """Every condition of the real API's recordings means what its registry does."""
    # In the recorded aggregates the source is the dead registry, and comes last.
    last = split_aggregate(condition["message"])[-1]
    name = last.split("${", 1)[1].split("}", 1)[0]
    message = re.sub(r"\$\{(\w+)\}", r"\1.example.com", condition["message"])
    assert classify(condition["reason"], message, (f"{name}.example.com/team/app:v1",)).kind is EXPECTED[name]
