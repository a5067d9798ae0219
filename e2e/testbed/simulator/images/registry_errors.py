"""What the importer says when a registry did not give what was asked for: the distribution client's texts, and its own."""

import json
import re
from typing import Any

import urllib3

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.images.go import json_problem, quoted

NO_CREDENTIALS = "no basic auth credentials"
UNKNOWN_BLOB = "unknown blob"
_WRONG_PASSWORD = "incorrect username or password"
_MESSAGES = {
    "UNKNOWN": "unknown error",
    "UNSUPPORTED": "The operation is unsupported.",
    "UNAUTHORIZED": "authentication required",
    "DENIED": "requested access to the resource is denied",
    "UNAVAILABLE": "service unavailable",
    "TOOMANYREQUESTS": "too many requests",
    "DIGEST_INVALID": "provided digest did not match uploaded content",
    "SIZE_INVALID": "provided length did not match content length",
    "NAME_INVALID": "invalid repository name",
    "TAG_INVALID": "manifest tag did not match URI",
    "NAME_UNKNOWN": "repository name not known to registry",
    "MANIFEST_UNKNOWN": "manifest unknown",
    "MANIFEST_INVALID": "manifest invalid",
    "MANIFEST_UNVERIFIED": "manifest failed signature verification",
    "MANIFEST_BLOB_UNKNOWN": "blob unknown to registry",
    "BLOB_UNKNOWN": "blob unknown to registry",
}
"""The error codes of the distribution API with their own messages, which the client leaves out."""


class RegistryError(Exception):
    """A registry did not give what was asked for; `code` is its error code, if it gave one."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


def refused(answer: urllib3.BaseHTTPResponse) -> RegistryError:
    """What an answer reads as that is no success."""
    status = answer.status
    if not 400 <= status < 500:
        return RegistryError(f"received unexpected HTTP status: {status} {answer.reason}")
    found = _errors(status, answer.data)
    challenge = dict(re.findall(r'(\w+)="([^"]*)"', answer.headers.get("WWW-Authenticate", "")))
    code = {"invalid_token": "UNAUTHORIZED", "insufficient_scope": "DENIED"}.get(challenge.get("error", ""))
    if code:
        description = challenge.get("error_description") or _MESSAGES[code]
        found.insert(0, RegistryError(f"{_text(code)}: {description}", code))
    if len(found) == 1:
        return found[0]
    # The importer looks for these two in the whole list.
    decisive = next((e.code for wanted in ("MANIFEST_UNKNOWN", "UNAUTHORIZED") for e in found if e.code == wanted), found[0].code)
    return RegistryError("errors:\n" + "".join(f"{error}\n" for error in found), decisive)


def _errors(status: int, body: bytes) -> list[RegistryError]:
    problem = json_problem(body)
    content: Any = None if problem else json.loads(body)
    if isinstance(content, dict) and (details := content.get("details")) and isinstance(details, str):
        code = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}.get(status, "UNKNOWN")
        return [RegistryError(f"{_text(code)}: {details}", code)]
    entries = content.get("errors") if isinstance(content, dict) else None
    if entries:
        return [_entry(entry) for entry in entries]
    if status == 401:
        return [RegistryError("unauthorized: authentication required", "UNAUTHORIZED")]
    problem = problem or "no error details found in HTTP response body"
    return [RegistryError(f"error parsing HTTP {status} response body: {problem}: {quoted(body)}")]


def _entry(entry: dict[str, Any]) -> RegistryError:
    code, message = str(entry.get("code")), str(entry.get("message") or "")
    if code not in _MESSAGES:
        code = "UNKNOWN"
    if entry.get("detail") is None and message in ("", _MESSAGES[code]):
        return RegistryError(_text(code), code)
    return RegistryError(f"{_text(code)}: {message}", code)


def _text(code: str) -> str:
    return code.lower().replace("_", " ")


def formatted(reference: str, error: RegistryError) -> Exception:
    """The error of one pull source, as the importer formats it: some have a reason, the others only a text."""
    if error.code == "MANIFEST_UNKNOWN":
        return errors.not_found("image.openshift.io", "dockerimage", reference)
    if error.code == "UNAUTHORIZED" or str(error).endswith(NO_CREDENTIALS):
        return errors.unauthorized(f'you may not have access to the container image "{reference}"')
    if str(error).endswith(_WRONG_PASSWORD):
        return errors.unauthorized(f'{_WRONG_PASSWORD} for image "{reference}"')
    return RegistryError(f"{reference}: {error}")
