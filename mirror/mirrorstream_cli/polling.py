"""Polling: reading something until it is as wanted, or until the time is over."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mirrorstream.kube.errors import ClientError, is_transient
from mirrorstream.text.terminal import period

T = TypeVar("T")
SHARE = 4
"""The pause between two reads, as a multiple of how long a read takes: polling must not keep a busy API server busy."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, as commands see it; injected in tests."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Polled(Generic[T]):
    """The last answer; `note` says how old it is where later reads failed."""

    found: T
    note: str = ""


def poll_until(
    read: Callable[[], T],
    done: Callable[[T], bool],
    *,
    seconds: float,
    every: float,
    clock: Clock,
    found: T | None = None,
    tell: Callable[[T], None] = lambda found: None,
) -> Polled[T]:
    """The first of `read`'s answers that is `done`, or the last one within `seconds`; it reads at least once.

    `every`: the seconds between two reads, more where a read takes long. `found`: the answer of an earlier read. Once there is an
    answer, transient errors do not end the polling: an API server is busiest when everything fails. `tell` is told of each answer
    that is not the last one.
    Raises ClientError.
    """
    seen = clock.monotonic()
    end = seen + seconds
    while True:
        began = clock.monotonic()
        note = ""
        try:
            found = read()
        except ClientError as error:
            if found is None or not is_transient(error):
                raise
            note = f"the API server did not answer at the end; this is the state of {period(began - seen)} before: {error}"
        else:
            seen = began
            if done(found):
                return Polled(found)
        finished = clock.monotonic()
        if finished >= end:
            return Polled(found, note)
        tell(found)
        clock.sleep(min(max(every, SHARE * (finished - began)), end - finished))
