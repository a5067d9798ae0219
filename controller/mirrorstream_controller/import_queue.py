"""Which import runs next: many at once, but no mirror and no namespace ahead of the others.

The platform imports serially at two per second within one request, so every image is a request of its own, and many run at
once. At most half of the slots go to one mirror host, so that a slow mirror leaves room for the fast ones, and namespaces
take turns. A turn has several imports: tags that are imported together are recorded together, with one write instead of one each.
"""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import structlog

from mirrorstream_controller.workqueue import URGENT_IN_A_ROW

log = structlog.get_logger(__name__)

Job = Callable[[], None]

TURN = 16
"""So many imports has a namespace in its turn: most streams have no more tags."""
FRESH_IN_A_ROW = 4
"""After so many imports of namespaces that have just come, one of those that have waited runs in any case."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A job that waits for its turn."""

    namespace: str
    host: str
    name: Hashable
    job: Job
    urgent: bool = False
    taken: bool = False
    """Whether its turn has come: what was hurried waits in two places."""


class Lane:
    """The imports that wait for one mirror. A namespace that has just come has one at once, and then waits for its turn.

    So a user whose tag fails in the middle of a storm does not wait for the turns of all others. What a user has asked for comes
    before both, the newest of a namespace first: whoever asks watches. After a few of those one of the others has its turn.
    """

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, deque[Waiting]] = OrderedDict()
        self._fresh: OrderedDict[str, None] = OrderedDict()
        self._asked: OrderedDict[str, list[Waiting]] = OrderedDict()
        self._count = 0
        self._taken = 0
        """How many imports the first of the namespaces has had in its turn."""
        self._in_a_row = 0
        self._asked_in_a_row = 0

    def __len__(self) -> int:
        """How many imports wait."""
        return self._count

    def add(self, waiting: Waiting) -> None:
        """Let a job wait."""
        self._count += 1
        if waiting.urgent:
            self._asked.setdefault(waiting.namespace, []).append(waiting)
            return
        if waiting.namespace not in self._jobs:
            self._jobs[waiting.namespace] = deque()
            self._fresh[waiting.namespace] = None
        self._jobs[waiting.namespace].append(waiting)

    def hurry(self, waiting: Waiting) -> None:
        """A user asks for a job that waits already."""
        if not waiting.urgent:
            waiting.urgent = True
            self._asked.setdefault(waiting.namespace, []).append(waiting)

    def take(self) -> Waiting:
        """The next job. Raises StopIteration when none waits."""
        while True:
            if self._asked and (self._asked_in_a_row < URGENT_IN_A_ROW or not self._jobs):
                found = self._next_asked()
                self._asked_in_a_row += not found.taken
            else:
                found = self._next_other()
                self._asked_in_a_row = self._asked_in_a_row if found.taken else 0
            if not found.taken:
                found.taken = True
                self._count -= 1
                return found

    def _next_asked(self) -> Waiting:
        namespace, jobs = self._asked.popitem(last=False)
        found = jobs.pop()
        if jobs:
            self._asked[namespace] = jobs
        return found

    def _next_other(self) -> Waiting:
        """One of the others; what was taken as asked for costs nobody a turn."""
        fresh = bool(self._fresh) and self._in_a_row < FRESH_IN_A_ROW
        namespace = next(iter(self._fresh if fresh else self._jobs))
        first = namespace == next(iter(self._jobs))
        jobs = self._jobs[namespace]
        found = jobs.popleft()
        if found.taken:
            if not jobs:
                del self._jobs[namespace]
                self._fresh.pop(namespace, None)
                self._taken = 0 if first else self._taken
            return found
        self._in_a_row = self._in_a_row + 1 if fresh else 0
        self._fresh.pop(namespace, None)
        if not fresh:
            self._taken += 1
        if not jobs:
            del self._jobs[namespace]
        elif fresh or self._taken >= TURN:
            self._jobs.move_to_end(namespace)
        else:
            return found
        if first:
            self._taken = 0
        return found


class ImportPool:
    """Runs jobs on up to `concurrency` threads, fair between namespaces and between mirror hosts."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._condition = threading.Condition()
        self._lanes: OrderedDict[str, Lane] = OrderedDict()
        self._named: dict[Hashable, Waiting] = {}
        self._busy: Counter[str] = Counter()
        self._threads: set[threading.Thread] = set()
        self._stopped = False

    @property
    def per_host(self) -> int:
        """How many jobs may run at one mirror host."""
        return max(1, self._concurrency // 2)

    def submit(self, namespace: str, host: str, job: Job, *, name: Hashable = None, urgent: bool = False) -> None:
        """Run `job` when its turn comes, or, if urgent, before those that are not; it must handle its own errors.

        `name` is what `hurry` may call it by; of several that wait under one name it finds the last.
        """
        with self._condition:
            if self._stopped:
                return
            waiting = Waiting(namespace, host, name, job, urgent)
            self._lanes.setdefault(host, Lane()).add(waiting)
            if name is not None:
                self._named[name] = waiting
            if len(self._threads) < self._concurrency and self._waiting() > 0:
                self._start_thread()
            self._condition.notify()

    def hurry(self, name: Hashable) -> None:
        """Somebody asks for a job: if it still waits, it comes before those that nobody asks for."""
        with self._condition:
            if waiting := self._named.get(name):
                self._lanes[waiting.host].hurry(waiting)

    def resize(self, concurrency: int) -> None:
        """Take over a changed setting; threads that are too many end after their job."""
        with self._condition:
            self._concurrency = concurrency
            self._condition.notify_all()

    def stop(self) -> None:
        """Drop what waits and end the threads; running jobs end by their own time limits."""
        with self._condition:
            self._stopped = True
            self._lanes.clear()
            self._named.clear()
            self._condition.notify_all()

    def __len__(self) -> int:
        """Jobs that wait or run."""
        with self._condition:
            return self._waiting() + self._busy.total()

    def _waiting(self) -> int:
        return sum(map(len, self._lanes.values()))

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name=f"import-{len(self._threads)}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _run(self) -> None:
        try:
            while (taken := self._take()) is not None:
                host, job = taken
                try:
                    job()
                except Exception:  # a bug in one import must not cost a slot for good
                    log.exception("an import failed unexpectedly", mirror=host)
                finally:
                    self._give_back(host)
                # A thread that waits must not hold the rules, or the stream, that its last job was about.
                del taken, job
        finally:
            # However it ends, another thread may take its place.
            with self._condition:
                self._threads.discard(threading.current_thread())

    def _give_back(self, host: str) -> None:
        with self._condition:
            self._busy[host] -= 1
            if not self._busy[host]:
                del self._busy[host]
            self._condition.notify()

    def _take(self) -> tuple[str, Job] | None:
        with self._condition:
            while True:
                if self._stopped or len(self._threads) > self._concurrency:
                    self._threads.discard(threading.current_thread())
                    return None
                if (found := self._next()) is not None:
                    self._busy[found[0]] += 1
                    return found
                self._condition.wait()

    def _next(self) -> tuple[str, Job] | None:
        """The next job of the first mirror host that has a free slot; that host goes to the end."""
        for host, lane in self._lanes.items():
            if self._busy[host] < self.per_host:
                taken = lane.take()
                if self._named.get(taken.name) is taken:
                    del self._named[taken.name]
                self._lanes.move_to_end(host)
                if not lane:
                    del self._lanes[host]
                return host, taken.job
        return None
