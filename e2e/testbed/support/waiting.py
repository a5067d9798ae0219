"""Waiting for a condition instead of for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
STEP = 0.02
PATIENCE = 180.0
"""Seconds after which what did not happen will not happen, on a machine however busy: no wait promises how soon something is."""


def wait_for(what: str, condition: Callable[[], T | None], *, seconds: float = PATIENCE, step: float = STEP) -> T:
    """The first true value of `condition`. Raises AssertionError that names `what` after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(step)
