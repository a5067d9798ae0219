"""Status errors with the texts that apimachinery gives them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class StatusError(Exception):
    """An answer that is a Status object."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def body(self) -> dict[str, Any]:
        """The Status as JSON."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details is not None:
            body["details"] = self.details
        return body

    def status(self) -> dict[str, Any]:
        """The Status as it stands inside another object."""
        return {key: value for key, value in self.body().items() if key not in ("kind", "apiVersion")}


@dataclass(frozen=True)
class Cause:
    """One wrong field."""

    reason: str
    field: str
    message: str


def required(field: str, message: str) -> Cause:
    """A field that must have a value."""
    return Cause("FieldValueRequired", field, f"Required value: {message}" if message else "Required value")


def invalid_value(field: str, value: str, message: str) -> Cause:
    """A field whose value is wrong; `value` as Go prints it."""
    return Cause("FieldValueInvalid", field, f"Invalid value: {value}: {message}")


def forbidden_value(field: str, message: str) -> Cause:
    """A field whose value is not allowed."""
    return Cause("FieldValueForbidden", field, f"Forbidden: {message}")


def _details(group: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
    details = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in details.items() if value not in ("", None)}


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def not_found(group: str, resource: str, name: str) -> StatusError:
    """404 for an object."""
    return StatusError(404, "NotFound", f'{_qualified(resource, group)} "{name}" not found', _details(group, resource, name))


def already_exists(group: str, resource: str, name: str) -> StatusError:
    """409 on create."""
    message = f'{_qualified(resource, group)} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, _details(group, resource, name))


def conflict(group: str, resource: str, name: str, why: str = "") -> StatusError:
    """409 on update."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(group, resource, name))


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> StatusError:
    """422 with every wrong field."""
    texts = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = _details(group, kind, name)
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return StatusError(422, "Invalid", f'{_qualified(kind, group)} "{name}" is invalid: {joined}', details)


def forbidden(group: str, resource: str, name: str, why: str) -> StatusError:
    """403 for an object."""
    where = f'{_qualified(resource, group)} "{name}" is forbidden: ' if resource or name else "forbidden: "
    return StatusError(403, "Forbidden", f"{where}{why}", _details(group, resource, name))


def watch_list() -> StatusError:
    """422 for a watch that is to send a list first: an API server without the feature WatchList."""
    field, why = "sendInitialEvents", "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
    return invalid("meta.k8s.io", "ListOptions", "", [Cause("FieldValueForbidden", field, f"Forbidden: {why}")])


def unauthorized(message: str) -> StatusError:
    """401."""
    return StatusError(401, "Unauthorized", message)


def bad_request(message: str) -> StatusError:
    """400."""
    return StatusError(400, "BadRequest", message)


def internal(message: str) -> StatusError:
    """500."""
    return StatusError(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})


def expired(version: int, oldest: int) -> StatusError:
    """410 for a watch or a page that begins before what is still known."""
    return StatusError(410, "Expired", f"too old resource version: {version} ({oldest})")
