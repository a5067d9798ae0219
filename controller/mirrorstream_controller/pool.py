"""Which import runs next: many at once, but no mirror and no namespace ahead of the others.

The platform imports serially at two per second within one request, so every image is a request of its own, and many run at
once. At most half of the slots go to one mirror host, so that a slow mirror leaves room for the fast ones, and namespaces
take turns.
"""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

Job = Callable[[], None]


class ImportPool:
    """Runs jobs on up to `concurrency` threads, fair between namespaces and between mirror hosts."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._condition = threading.Condition()
        self._turns: OrderedDict[str, OrderedDict[str, deque[Job]]] = OrderedDict()
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
            self._turns.setdefault(namespace, OrderedDict()).setdefault(host, deque()).append(job)
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
            self._turns.clear()
            self._condition.notify_all()

    def __len__(self) -> int:
        """Jobs that wait or run."""
        with self._condition:
            return self._waiting() + self._busy.total()

    def _waiting(self) -> int:
        return sum(len(jobs) for hosts in self._turns.values() for jobs in hosts.values())

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name=f"import-{len(self._threads)}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            host, job = taken
            try:
                job()
            except Exception:  # a bug in one import must not cost a slot for good
                log.exception("an import failed unexpectedly", mirror=host)
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
        """The first job, in the namespaces' order, whose mirror host has a free slot; its namespace goes to the end."""
        for namespace, hosts in self._turns.items():
            host = next((host for host in hosts if self._busy[host] < self.per_host), None)
            if host is None:
                continue
            job = hosts[host].popleft()
            if not hosts[host]:
                del hosts[host]
            self._turns.move_to_end(namespace)
            if not hosts:
                del self._turns[namespace]
            return host, job
        return None
