"""How fast the platform imports the images of one request: three at once, and then two a second."""

import time
from collections.abc import Callable

BURST = 3


class Pace:
    """The token bucket of one request."""

    def __init__(
        self, per_second: float, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._per_second, self._clock, self._sleep = per_second, clock, sleep
        self._tokens, self._updated = float(BURST), clock()

    def wait(self) -> None:
        """Wait for the turn of the next image."""
        now = self._clock()
        self._tokens = min(float(BURST), self._tokens + (now - self._updated) * self._per_second) - 1
        self._updated = now
        if self._tokens < 0:
            self._sleep(-self._tokens / self._per_second)
