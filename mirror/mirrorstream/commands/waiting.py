"""Looking again and again until something is so, or the time is over."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
SHARE = 4
"""Between two looks passes at least so many times what a look takes: waiting must not be what keeps a busy API server busy."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, as commands see it; injected in tests."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time


def look_until(look: Callable[[], T], done: Callable[[T], bool], *, seconds: float, every: float, clock: Clock) -> T:
    """The first of `look`'s answers that is `done`, or the last one there was time for; at least one look is taken.

    `every`: the seconds between two looks, more where a look takes long.
    """
    end = clock.monotonic() + seconds
    while True:
        began = clock.monotonic()
        found = look()
        finished = clock.monotonic()
        if done(found) or finished >= end:
            return found
        clock.sleep(min(max(every, SHARE * (finished - began)), end - finished))
