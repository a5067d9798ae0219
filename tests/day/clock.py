"""A clock that the test moves, for everything whose time counts."""

import datetime
from collections.abc import Callable

START = 1_800_000_000.0
"""Seconds since the epoch when a day begins."""


class DayClock:
    """Time of day and monotonic time, moved together; waiters are told when they have moved."""

    def __init__(self) -> None:
        self.time = 0.0
        self.moved: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        """Seconds; not from zero, which some would take for never."""
        return 1000.0 + self.time

    def now(self) -> float:
        """Seconds since the epoch."""
        return START + self.time

    def stamp(self) -> str:
        """The time as the platform writes it down."""
        return datetime.datetime.fromtimestamp(self.now(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds
        self.moved()
