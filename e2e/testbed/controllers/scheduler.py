"""Steps that are due at a time, one after the other in a thread of their own."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from mirrorstream.kube.client import ApiError, ClientError

RETRY_SECONDS = 0.2


class Scheduler:
    """A thread. A step that fails since the API server does not answer is tried again; one whose object is deleted is not."""

    def __init__(self, name: str) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the step that it is at."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def later(self, seconds: float, step: Callable[[], None]) -> None:
        """Have a step taken in so many seconds."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), step))
            self._changed.notify()

    def _run(self) -> None:
        while step := self._next():
            try:
                step()
            except ClientError as error:
                if not _is_gone(error):
                    self.later(RETRY_SECONDS, step)

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next step that is due; None at the end."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                if self._due and self._due[0][0] <= now:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(self._due[0][0] - now if self._due else None)
        return None


def _is_gone(error: ClientError) -> bool:
    """Whether the object, or its namespace, is deleted."""
    return isinstance(error, ApiError) and (error.status == 404 or "is being terminated" in error.message)
