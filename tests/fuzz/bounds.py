"""How much is tried: little in every run, the same each time; with MIRRORSTREAM_SOAK=1 20 times as much, with new seeds."""

import gc
import os
import time
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")
SOAK = os.environ.get("MIRRORSTREAM_SOAK") == "1"
LARGEST = 1024 * 1024
TOO_FAST = 0.03
"""Seconds of CPU below which a doubling is not judged: noise is as large, and nobody waits for it."""
ENOUGH = 0.1
"""Seconds of CPU at which a doubling has told enough in a usual run."""
RATIO = 3.0
"""What twice the input may take at most, in times what the input takes, over two doublings: linear is 2, quadratic 4."""
QUADRATIC = 2.6
"""The same for the last doubling alone, where the measurement before may be off."""


def examples(number: int) -> settings:
    """The settings of a property that is tried with so many examples."""
    return settings(
        max_examples=number * (20 if SOAK else 1),
        derandomize=not SOAK,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def cpu_seconds(run: Callable[[T], object], value: T, times: int = 1) -> float:
    """The least CPU time of this thread that `run` took, without that of the collector of garbage."""
    least = float("inf")
    gc.disable()
    try:
        for _ in range(times):
            began = time.thread_time()
            run(value)
            least = min(least, time.thread_time() - began)
    finally:
        gc.enable()
    return least


def grows_linearly(
    make: Callable[[int], T], run: Callable[[T], object], *, largest: int = LARGEST, smallest: int = 8192, enough: float = ENOUGH
) -> float:
    """Run inputs of `smallest` bytes, twice that, and so on; the CPU seconds of the last.

    It ends at `largest`, or (but for the soak) where an input takes `enough` seconds to tell, and fails where two doublings
    in a row took RATIO times as long each: what is quadratic fails early rather than never.
    """
    size, took = smallest, [0.0, 0.0]
    while True:
        took.append(cpu_seconds(run, make(size)))
        for _ in range(2):
            # Others use this machine: only what is so again and again counts.
            if not _looks_quadratic(took):
                break
            took[-3:] = [cpu_seconds(run, make(size // smaller), 2) for smaller in (4, 2, 1)]
        if _looks_quadratic(took):
            raise AssertionError(f"{size} bytes took {took[-1]:.3f} s, half of them {took[-2]:.3f} s, a quarter {took[-3]:.3f} s")
        if size >= largest or (took[-3] > 0 and took[-2] > TOO_FAST and took[-1] > enough and not SOAK):
            return took[-1]
        size *= 2


def _looks_quadratic(took: list[float]) -> bool:
    quarter, half, whole = took[-3:]
    return whole > TOO_FAST and whole > RATIO * RATIO * quarter > 0 and whole > QUADRATIC * half
