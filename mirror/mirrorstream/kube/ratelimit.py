"""A token bucket for requests to the API server: bursts are served at once, a storm at a bounded rate."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

BURST_SECONDS = 3.0
"""How many seconds' worth of requests may go at once: the failures of a whole sample catalogue arrive together."""
AHEAD_SHARE = 0.5
"""The part of the rate at which requests may go ahead of others: the others are slowed down by them, and never stopped."""
_EPSILON = 1e-6
_ahead: ContextVar[bool] = ContextVar("ahead", default=False)


@contextlib.contextmanager
def ahead_of_others(ahead: bool) -> Iterator[None]:
    """Let requests of this context, if `ahead`, go before those that wait already: a user waits for them."""
    token = _ahead.set(ahead)
    try:
        yield
    finally:
        _ahead.reset(token)


class RateLimiter:
    """Lets `rate` requests per second through, and `BURST_SECONDS` times as many after a pause.

    `rate` may be changed while in use. Waiting is first come, first served, but for what goes `ahead_of_others`.
    """

    def __init__(
        self, rate: float, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._tokens = rate * BURST_SECONDS
        self._privileges = self._tokens * AHEAD_SHARE
        self._updated = clock()
        self._first: list[object] = []
        self._others: list[object] = []

    def wait(self) -> float:
        """Take one token, sleeping until there is one; the seconds slept."""
        ticket, slept = object(), 0.0
        with self._lock:
            self._refill()
            if _ahead.get() and self._privileges >= 1:
                self._privileges -= 1
                self._first.append(ticket)
            else:
                self._others.append(ticket)
        while delay := self._delay(ticket):
            self._sleep(delay)
            slept += delay
        return slept

    def _refill(self) -> None:
        now = self._clock()
        earned, self._updated = (now - self._updated) * self.rate, now
        most = self.rate * BURST_SECONDS
        self._tokens = min(most, self._tokens + earned)
        self._privileges = min(most * AHEAD_SHARE, self._privileges + earned * AHEAD_SHARE)

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
