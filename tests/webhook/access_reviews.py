"""An API server that answers reviews of access, and a clock: what tests of the right to pull have in common."""

import threading
from typing import Any

from mirrorstream.kube.client import ApiUnreachable

ALLOWED = b'{"status": {"allowed": true}}'


class Server:
    """Answers reviews with what a test says; `gate` holds them back."""

    def __init__(self) -> None:
        self.answer: bytes | None = ALLOWED
        self.bodies: list[Any] = []
        self.slow = ""
        """The one user about whom the gate holds answers back, if not all."""
        self.gate = threading.Event()
        self.gate.set()

    def request(self, method: str, path: str, *, body: Any, decode: Any, timeout: float) -> Any:
        """As the client's."""
        self.bodies.append(body)
        if self.slow in ("", body["spec"]["user"]) and not self.gate.wait(timeout):
            raise ApiUnreachable("timed out")
        if self.answer is None:
            raise ApiUnreachable("connection refused")
        return decode(self.answer)


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now
