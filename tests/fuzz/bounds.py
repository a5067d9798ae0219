"""How much is tried: little in every run, the same each time; twenty times as much, and always anew, with MIRRORSTREAM_FUZZ=soak."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")
SOAK = os.environ.get("MIRRORSTREAM_FUZZ") == "soak"
LARGEST = 1024 * 1024
TOO_FAST = 0.03
"""Seconds of CPU below which a doubling is not judged: noise is as large, and nobody waits for it."""
ENOUGH = 0.12
"""Seconds of CPU at which a doubling has told enough in a usual run."""
RATIO = 3.0
"""What twice the input may take at most, in times what the input takes: linear is 2, quadratic 4."""


def examples(number: int) -> settings:
    """The settings of a property that is tried with so many examples."""
    return settings(
        max_examples=number * (20 if SOAK else 1),
        derandomize=not SOAK,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def cpu_seconds(run: Callable[[T], object], value: T, times: int) -> float:
    """The least CPU time of this thread that `run` took."""
    least = float("inf")
    for _ in range(times):
        began = time.thread_time()
        run(value)
        least = min(least, time.thread_time() - began)
        if least > 1:
            break
    return least


def grows_linearly(make: Callable[[int], T], run: Callable[[T], object], *, largest: int = LARGEST, smallest: int = 8192) -> float:
    """Run inputs of `smallest` bytes, twice that, and so on; the CPU seconds of the last.

    It ends at `largest`, or (but for the soak) where an input takes long enough to tell, and fails at the first doubling that takes
    RATIO times as long: what is quadratic fails early rather than never.
    """
    size, before = smallest, 0.0
    while True:
        value = make(size)
        seconds = cpu_seconds(run, value, 1)
        for _ in range(3):
            # Others use this machine: only what is so again and again counts.
            if seconds < TOO_FAST or not before or seconds < RATIO * before:
                break
            seconds = min(seconds, cpu_seconds(run, value, 2))
            before = max(before, cpu_seconds(run, make(size // 2), 2))
        else:
            raise AssertionError(f"{size} bytes took {seconds:.3f} s, half of them {before:.3f} s")
        if size >= largest or (before > TOO_FAST and seconds > ENOUGH and not SOAK):
            return seconds
        size, before = size * 2, seconds
