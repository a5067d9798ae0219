"""Which key is processed next: each once at a time, none lost, no namespace ahead of another.

The dirty and processing sets are client-go's: a key that changes while it is processed is processed once more, never twice at
once. On top of it: a turn for each namespace, so that a tenant with a thousand failing streams delays nobody, and a
lane with priority for what a user has just asked for. That lane has turns, too, and lets one of the others through after a few of
its own: a user who asks for a thousand streams again and again delays nobody either.
"""

import heapq
import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from mirrorstream.kube.objects import Key

STALE_ALLOWED = 64
"""How many replaced delays are kept, beside as many as count."""
PRIORITY_IN_A_ROW = 4
"""After this many keys with priority, one of the others is next."""
Turns = OrderedDict[str, deque[Key]]
"""The waiting keys of each namespace that has any."""


class WorkQueue:
    """Keys (namespace, name) waiting for a worker; safe to use from many threads."""

    def __init__(
        self,
        *,
        initial: float = 5,
        maximum: float = 300,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`initial` and `maximum` bound the back-off of `add_rate_limited`, in seconds; both may be changed while in use."""
        self.initial = initial
        self.maximum = maximum
        self._clock = clock
        self._uniform = uniform
        self._condition = threading.Condition()
        self._priority: Turns = OrderedDict()
        self._turns: Turns = OrderedDict()
        self._in_a_row = 0
        """How many keys have come from the lane with priority, one after the other."""
        self._dirty: dict[Key, float] = {}
        self._processing: set[Key] = set()
        self._priority_after: set[Key] = set()
        self._delayed: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._sequence = 0
        self._shut_down = False

    def add(self, key: Key, *, priority: bool = False) -> None:
        """Have `key` processed as soon as its turn comes, or, with `priority`, before all others."""
        with self._condition:
            self._add(key, priority)

    def _add(self, key: Key, priority: bool) -> None:
        if self._shut_down:
            return
        if key in self._dirty:
            if priority and key not in self._processing and key not in self._priority.get(key[0], ()):
                _take_out(self._turns, key)
                _append(self._priority, key)
            elif priority:
                self._priority_after.add(key)
            return
        self._dirty[key] = self._clock()
        if key in self._processing:
            if priority:
                self._priority_after.add(key)
            return
        self._enqueue(key, priority)

    def _enqueue(self, key: Key, priority: bool) -> None:
        _append(self._priority if priority else self._turns, key)
        self._condition.notify()

    def add_after(self, key: Key, seconds: float) -> bool:
        """Have `key` processed in `seconds`; of several such requests the earliest counts. Whether that is now this one."""
        with self._condition:
            if self._shut_down:
                return False
            if seconds <= 0:
                self._add(key, priority=False)
                return True
            due = self._clock() + seconds
            if self._due.get(key, due + 1) <= due:
                return False
            self._due[key] = due
            self._sequence += 1
            heapq.heappush(self._delayed, (due, self._sequence, key))
            if len(self._delayed) > 2 * len(self._due) + STALE_ALLOWED:
                # A tag that waits for an hour beside one that is tried every few seconds leaves one behind each time.
                self._delayed = [delay for delay in self._delayed if self._due.get(delay[2]) == delay[0]]
                heapq.heapify(self._delayed)
            self._condition.notify()
            return True

    def backoff(self, failures: int) -> float:
        """The wait, in seconds, after a number of failures in a row: exponential, with jitter of a fifth."""
        return min(self.maximum, self.initial * 2.0 ** min(failures - 1, 30)) * self._uniform(0.8, 1.2)

    def add_rate_limited(self, key: Key, *, wait: float = 0.0) -> None:
        """Have `key` processed after its back-off, which grows with each call until `forget`, and `wait` seconds on top."""
        with self._condition:
            self._failures[key] = self._failures.get(key, 0) + 1
            seconds = self.backoff(self._failures[key])
        self.add_after(key, wait + seconds)

    def forget(self, key: Key) -> None:
        """Start the back-off of `key` from the beginning."""
        with self._condition:
            self._failures.pop(key, None)

    def cancel(self, key: Key) -> None:
        """Forget all delays and failures of `key`, for which there is nothing to do any more."""
        with self._condition:
            self._due.pop(key, None)
            self._failures.pop(key, None)

    def discard(self, key: Key) -> bool:
        """Forget `key` wherever it waits; False, and nothing is done, while it is being processed."""
        with self._condition:
            if key in self._processing:
                return False
            self._due.pop(key, None)
            self._failures.pop(key, None)
            self._priority_after.discard(key)
            if self._dirty.pop(key, None) is not None:
                _take_out(self._priority if key in self._priority.get(key[0], ()) else self._turns, key)
            return True

    def get(self, timeout: float | None = None) -> Key | None:
        """The next key, which must be given back with `done`; None after `timeout` seconds or once shut down."""
        end = None if timeout is None else self._clock() + timeout
        with self._condition:
            while True:
                self._release_due()
                if (key := self._next()) is not None:
                    del self._dirty[key]
                    self._processing.add(key)
                    return key
                if self._shut_down:
                    return None
                waits = [due - self._clock() for due in (self._delayed[0][0] if self._delayed else None, end) if due is not None]
                if end is not None and self._clock() >= end:
                    return None
                self._condition.wait(max(0.0, min(waits)) if waits else None)

    def _release_due(self) -> None:
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            due, _, key = heapq.heappop(self._delayed)
            if self._due.get(key) == due:
                del self._due[key]
                self._add(key, priority=False)

    def _next(self) -> Key | None:
        lane = self._turns if self._turns and (not self._priority or self._in_a_row >= PRIORITY_IN_A_ROW) else self._priority
        if not lane:
            return None
        self._in_a_row = self._in_a_row + 1 if lane is self._priority else 0
        namespace, waiting = lane.popitem(last=False)
        key = waiting.popleft()
        if waiting:
            lane[namespace] = waiting
        return key

    def done(self, key: Key) -> None:
        """Give `key` back; it is queued again if it was added since."""
        with self._condition:
            self._processing.discard(key)
            priority = key in self._priority_after
            self._priority_after.discard(key)
            if key in self._dirty and not self._shut_down:
                self._enqueue(key, priority)

    def shut_down(self) -> None:
        """Wake everybody; `get` answers None from now on."""
        with self._condition:
            self._shut_down = True
            self._priority.clear()
            self._turns.clear()
            self._dirty.clear()
            self._condition.notify_all()

    def __len__(self) -> int:
        """Keys that wait for a worker now."""
        with self._condition:
            return len(self._dirty)

    def longest_wait(self) -> float:
        """Seconds that the oldest waiting key has waited."""
        with self._condition:
            return self._clock() - min(self._dirty.values(), default=self._clock())


def _append(turns: Turns, key: Key) -> None:
    turns.setdefault(key[0], deque()).append(key)


def _take_out(turns: Turns, key: Key) -> None:
    """A namespace without a key has no turn: who took it would find nothing."""
    waiting = turns[key[0]]
    waiting.remove(key)
    if not waiting:
        del turns[key[0]]
