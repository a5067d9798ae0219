"""Looking again and again until something is so, or the time is over."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mirrorstream.kube.errors import ClientError, is_transient
from mirrorstream.screen import period

T = TypeVar("T")
SHARE = 4
"""Between two looks passes at least so many times what a look takes: waiting must not be what keeps a busy API server busy."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, as commands see it; injected in tests."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Looked(Generic[T]):
    """What was seen last; `note` says, where the last looks were in vain, that it is older than the answer."""

    found: T
    note: str = ""


def look_until(
    look: Callable[[], T], done: Callable[[T], bool], *, seconds: float, every: float, clock: Clock, found: T | None = None
) -> Looked[T]:
    """The first of `look`'s answers that is `done`, or the last one there was time for; at least one look is taken.

    `every`: the seconds between two looks, more where a look takes long. `found`: what an earlier look brought. Once there is an
    answer, an API server that is away or busy for a while ends nothing: it is when everything fails that it is busiest.
    Raises ClientError.
    """
    seen = clock.monotonic()
    end = seen + seconds
    while True:
        began = clock.monotonic()
        note = ""
        try:
            found = look()
        except ClientError as error:
            if found is None or not is_transient(error):
                raise
            note = f"the API server could not be asked in the end, so this is how it stood {period(began - seen)} before: {error}"
        else:
            seen = began
            if done(found):
                return Looked(found)
        finished = clock.monotonic()
        if finished >= end:
            return Looked(found, note)
        clock.sleep(min(max(every, SHARE * (finished - began)), end - finished))
