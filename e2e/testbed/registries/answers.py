"""What is at a source's address when it fails: each kind of answer that a user's cluster may meet, by the name of its recording.

`tests/data/failure-messages.jsonl` has what the platform's importer makes of each.
"""

import json
from dataclasses import dataclass

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
HTML = "text/html"
JSON = "application/json"
PING, MANIFESTS, BLOBS, TOKEN = "ping", "manifests", "blobs", "token"
"""The steps of a pull."""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer.

    `missing` are the bytes that Content-Length promises and that never come; `reset`: the connection is reset instead.
    """

    status: int = 200
    body: bytes = b""
    media: str = HTML
    location: str = ""
    challenge: str = ""
    missing: int = 0
    reset: bool = False


Answers = dict[str, Answer]
"""By the step; a step that is not in it is served as a registry serves it."""


def _errors(status: int, code: str, message: str = "", challenge: str = "") -> Answer:
    error = {"code": code, "message": message} if message else {"code": code}
    return Answer(status, json.dumps({"errors": [error]}).encode(), JSON, challenge=challenge)


def _page(title: str) -> bytes:
    return f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>".encode()


def _everywhere(answer: Answer) -> Answers:
    return {PING: answer, MANIFESTS: answer, BLOBS: answer}


_BLOCKED = "Access denied: category not found, access to the resource is denied"
_BEARER = _errors(401, "UNAUTHORIZED", "authentication required", 'Bearer realm="http://{host}/token",service="test"')
_PORTAL = Answer(302, location="/login")

KINDS: dict[str, Answers] = {
    "nothing-here": _everywhere(Answer(404, _page("404 Not Found"))),
    "default-backend": _everywhere(Answer(404, b"default backend - 404", "text/plain")),
    "page-200": _everywhere(Answer(200, _page("Welcome"))),
    "portal-302": {**_everywhere(_PORTAL), "/login": Answer(200, _page("Log in"))},
    "redirect-loop": _everywhere(Answer(302, location="http://{host}/v2/")),
    "proxy-403-page": _everywhere(Answer(403, _page(_BLOCKED))),
    "proxy-511": _everywhere(Answer(511, _page("Log in"))),
    "gateway-502": _everywhere(Answer(502, _page("Bad Gateway"))),
    "v2-then-page-404": {MANIFESTS: Answer(404, _page("404 Not Found"))},
    "v2-then-text-404": {MANIFESTS: Answer(404, b"404 page not found\n", "text/plain")},
    "v2-then-500": {MANIFESTS: _errors(500, "UNKNOWN")},
    "v2-then-502-page": {MANIFESTS: Answer(502, _page("Bad Gateway"))},
    "v2-then-503-json": {MANIFESTS: _errors(503, "UNAVAILABLE", "maintenance")},
    "manifest-unknown": {MANIFESTS: _errors(404, "MANIFEST_UNKNOWN")},
    "name-unknown": {MANIFESTS: _errors(404, "NAME_UNKNOWN")},
    "harbor-project": {MANIFESTS: _errors(401, "UNAUTHORIZED", "unauthorized to access repository: team/app, action: pull")},
    "quay-expired": {
        MANIFESTS: _errors(404, "MANIFEST_UNKNOWN", "Tag v1 was deleted or has expired. To pull, revive via time machine")
    },
    "denied": {MANIFESTS: _errors(403, "DENIED")},
    "bearer-401": {PING: _BEARER, TOKEN: _errors(401, "UNAUTHORIZED", "incorrect username or password")},
    "bearer-403": {PING: _BEARER, TOKEN: _errors(403, "DENIED", "access denied")},
    "rate-limit": {MANIFESTS: _errors(429, "TOOMANYREQUESTS", "You have reached your unauthenticated pull rate limit.")},
    "manifest-invalid": {MANIFESTS: _errors(400, "MANIFEST_INVALID")},
    "manifest-empty": {MANIFESTS: Answer(200, b"", DOCKER)},
    "config-missing": {BLOBS: _errors(404, "BLOB_UNKNOWN")},
    "truncated": {MANIFESTS: Answer(200, b'{"schemaVersion": 2,', DOCKER, missing=500)},
    "reset": _everywhere(Answer(reset=True)),
}
"""Every kind; `{host}` in a challenge or a location is the registry's own."""
