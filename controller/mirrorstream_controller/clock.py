"""The time of day, for somebody who measures with it."""

import time
from collections.abc import Callable

Clock = Callable[[], float]


def steady(wall: Clock = time.time, monotonic: Clock = time.monotonic) -> Clock:
    """A clock in seconds since the epoch that starts as the machine's and is never set: it goes on with the monotonic one.

    For how long an import is pending, or a source fails, is told by two looks at a clock. Were it put an hour back in between, a
    tag would stay failed for an hour longer; put forward, an outage of a minute would let a stale mirror replace an image.
    """
    offset = wall() - monotonic()
    return lambda: offset + monotonic()
