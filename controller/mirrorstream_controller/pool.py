"""Which import runs next: many at once, but no mirror and no namespace ahead of the others.

The platform imports serially at two per second within one request, so every image is a request of its own, and many run at
once. At most half of the slots go to one mirror host, so that a slow mirror leaves room for the fast ones, and namespaces
take turns. A turn has several imports: tags that are imported together are recorded together, with one write instead of one each.
"""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

Job = Callable[[], None]

TURN = 16
"""So many imports has a namespace in its turn: most streams have no more tags."""
FRESH_IN_A_ROW = 4
"""After so many imports of namespaces that have just come, one of those that have waited runs in any case."""


class Lane:
    """The imports that wait for one mirror. A namespace that has just come has one at once, and then waits for its turn.

    So a user whose tag fails in the middle of a storm does not wait for the turns of all others.
    """

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, deque[Job]] = OrderedDict()
        self._fresh: OrderedDict[str, None] = OrderedDict()
        self._taken = 0
        """How many imports the first of the namespaces has had in its turn."""
        self._in_a_row = 0

    def __len__(self) -> int:
        """How many imports wait."""
        return sum(map(len, self._jobs.values()))

    def add(self, namespace: str, job: Job) -> None:
        """Let a job wait."""
        if namespace not in self._jobs:
            self._jobs[namespace] = deque()
            self._fresh[namespace] = None
        self._jobs[namespace].append(job)

    def take(self) -> Job:
        """The next job. Raises StopIteration when none waits."""
        fresh = bool(self._fresh) and self._in_a_row < FRESH_IN_A_ROW
        self._in_a_row = self._in_a_row + 1 if fresh else 0
        namespace = next(iter(self._fresh if fresh else self._jobs))
        first = namespace == next(iter(self._jobs))
        self._fresh.pop(namespace, None)
        jobs = self._jobs[namespace]
        job = jobs.popleft()
        if not fresh:
            self._taken += 1
        if not jobs:
            del self._jobs[namespace]
        elif fresh or self._taken >= TURN:
            self._jobs.move_to_end(namespace)
        else:
            return job
        if first:
            self._taken = 0
        return job


class ImportPool:
    """Runs jobs on up to `concurrency` threads, fair between namespaces and between mirror hosts."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._condition = threading.Condition()
        self._lanes: OrderedDict[str, Lane] = OrderedDict()
        self._busy: Counter[str] = Counter()
        self._threads: set[threading.Thread] = set()
        self._stopped = False

    @property
    def per_host(self) -> int:
        """How many jobs may run at one mirror host."""
        return max(1, self._concurrency // 2)

    def submit(self, namespace: str, host: str, job: Job) -> None:
        """Run `job` when its turn comes; it must handle its own errors."""
        with self._condition:
            if self._stopped:
                return
            self._lanes.setdefault(host, Lane()).add(namespace, job)
            if len(self._threads) < self._concurrency and self._waiting() > 0:
                self._start_thread()
            self._condition.notify()

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
                job = lane.take()
                self._lanes.move_to_end(host)
                if not lane:
                    del self._lanes[host]
                return host, job
        return None
