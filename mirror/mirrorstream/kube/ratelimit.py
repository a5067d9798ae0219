"""A token bucket for requests to the API server: bursts are served at once, a storm at a bounded rate."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

BURST_SECONDS = 3.0
"""How many seconds' worth of requests may go at once: the failures of a whole sample catalogue arrive together."""
PRIORITY_SHARE = 0.5
"""The part of the rate at which requests may go ahead of others: the others are slowed down by them, and never stopped."""
_EPSILON = 1e-6
_priority: ContextVar[bool] = ContextVar("priority", default=False)


@contextlib.contextmanager
def prioritized(priority: bool) -> Iterator[None]:
    """Let requests of this context, if `priority`, go before those that wait already: a user waits for them."""
    token = _priority.set(priority)
    try:
        yield
    finally:
        _priority.reset(token)


class RateLimiter:
    """Lets `rate` requests per second through, and `BURST_SECONDS` times as many after a pause.

    `rate` may be changed while in use. Waiting is first come, first served, but for `prioritized` requests.
    """

    def __init__(
        self, rate: float, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._tokens = self._most
        self._priority_tokens = self._tokens * PRIORITY_SHARE
        self._updated = clock()
        self._first: list[object] = []
        self._others: list[object] = []

    def wait(self) -> float:
        """Take one token, sleeping until there is one; the seconds slept."""
        ticket, slept = object(), 0.0
        with self._lock:
            self._refill()
            if _priority.get() and self._priority_tokens >= 1:
                self._priority_tokens -= 1
                self._first.append(ticket)
            else:
                self._others.append(ticket)
        while delay := self._delay(ticket):
            self._sleep(delay)
            slept += delay
        return slept

    @property
    def _most(self) -> float:
        """How many tokens there can be; one is enough for a request, however low the rate is."""
        return max(1.0, self.rate * BURST_SECONDS)

    def _refill(self) -> None:
        now = self._clock()
        earned, self._updated = (now - self._updated) * self.rate, now
        self._tokens = min(self._most, self._tokens + earned)
        self._priority_tokens = min(self._most * PRIORITY_SHARE, self._priority_tokens + earned * PRIORITY_SHARE)

    def _delay(self, ticket: object) -> float:
        """Seconds to sleep before asking again; 0 once a token is taken. Those before it find theirs left."""
        with self._lock:
            self._refill()
            if ticket in self._first:
                line, before = self._first, self._first.index(ticket)
            else:
                line, before = self._others, self._others.index(ticket) + len(self._first)
            missing = before + 1 - self._tokens
            if missing <= _EPSILON:
                self._tokens -= 1
                line.remove(ticket)
                return 0.0
            return missing / self.rate
