"""What can go wrong between us and the API server, in three kinds that callers treat differently."""

from typing import Any


class ConfigurationError(Exception):
    """The kubeconfig or the in-cluster credentials cannot be used; one line that names the file and what is wrong."""


class UsageError(ConfigurationError):
    """Options of the command line that do not go together, or one that is missing; one line that names them."""


class ClientError(Exception):
    """A request that did not succeed."""


class ApiUnreachable(ClientError):  # noqa: N818  a state of the world, as in the kubectl message
    """No answer came: connection refused, a timeout, a TLS failure. Whether a write took effect is unknown."""


class ApiTimeout(ApiUnreachable):
    """The request was sent, and no answer came within its timeout."""


class EventTooLarge(ClientError):  # noqa: N818  says what it is
    """A watch sends more as one event than any object can be."""


class ApiError(ClientError):
    """The API server answered with an error; fields as in its Status object.

    `retry_after` is in seconds, or None if the server did not say.
    """

    def __init__(
        self, status: int, reason: str, message: str, details: dict[str, Any] | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message or reason or f"HTTP status {status}")
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}
        self.retry_after = retry_after


OBEYED_SECONDS = 60.0
"""The longest wait that a server can ask for: kube-apiserver asks for 32 s at most when it is busy."""


def retry_after_seconds(error: ClientError) -> float:
    """For how many seconds the server asked not to be asked again (Retry-After); 0 if it did not."""
    return min(error.retry_after or 0.0, OBEYED_SECONDS) if isinstance(error, ApiError) else 0.0


def timed_out(error: ClientError) -> bool:
    """Whether the request took too long: for us, or for the API server, which ends it with 504."""
    return isinstance(error, ApiTimeout) or (isinstance(error, ApiError) and error.status == 504)


def is_transient(error: ClientError) -> bool:
    """Whether the same request may well succeed a little later: nobody answered, or an API server that is busy or broken did."""
    return not isinstance(error, ApiError) or error.status == 429 or error.status >= 500
