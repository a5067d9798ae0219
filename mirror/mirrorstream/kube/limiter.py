"""A token bucket for requests to the API server: bursts are served at once, a storm at a bounded rate."""

import threading
import time
from collections.abc import Callable

BURST_SECONDS = 3.0
"""How many seconds' worth of requests may go at once: the failures of a whole sample catalogue arrive together."""


class RateLimiter:
    """Lets `rate` requests per second through, and `BURST_SECONDS` times as many after a pause.

    `rate` may be changed while in use. Waiting is first come, first served.
    """

    def __init__(
        self, rate: float, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._tokens = rate * BURST_SECONDS
        self._updated = clock()

    def wait(self) -> float:
        """Take one token, sleeping until there is one; the seconds slept."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self.rate * BURST_SECONDS, self._tokens + (now - self._updated) * self.rate) - 1
            self._updated = now
            delay = -self._tokens / self.rate if self._tokens < 0 else 0.0
        if delay:
            self._sleep(delay)
        return delay
