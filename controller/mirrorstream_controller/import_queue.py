"""Which import runs next: many at once, but no mirror and no namespace ahead of the others, and tags without an image first.

The platform imports the images of one request one after another, so many requests run at once. At most half of the slots go to
one mirror host, so that a slow mirror leaves room for the fast ones, and namespaces take turns. A turn has several imports: tags
that are imported together are recorded together, with one write instead of one each.
"""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import structlog
from mirrorstream.kube.workqueue import PRIORITY_IN_A_ROW

log = structlog.get_logger(__name__)

Job = Callable[[], None]

NAMESPACE_BATCH = 16
"""How many imports a namespace starts in its turn: most streams have no more tags."""
NEWCOMERS_IN_A_ROW = 4
"""After this many imports of newcomers, a namespace that has waited is next."""
MISSING_IN_A_ROW = 4
"""After this many imports of tags without an image, one that renews an image is next."""


@dataclass(slots=True, eq=False)
class QueuedImport:
    """A job that waits for its turn."""

    namespace: str
    host: str
    name: Hashable
    job: Job
    priority: bool = False
    renews: bool = False
    """Whether the tag has an image of its source: pods run, and wait for none of this."""
    taken: bool = False
    """Whether its turn has come: an import whose priority was raised is queued in two places."""


class NamespaceTurns:
    """Imports of which each namespace has its turn.

    A newcomer, a namespace that had none here, runs one at once, and then waits for its turn: a user whose tag fails in the
    middle of a storm does not wait for the turns of all others.
    """

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, deque[QueuedImport]] = OrderedDict()
        self._newcomers: OrderedDict[str, None] = OrderedDict()
        self._taken = 0
        """How many imports the first of the namespaces has had in its turn."""
        self._in_a_row = 0

    def __bool__(self) -> bool:
        """Whether one waits, or one that has run already is still in a turn."""
        return bool(self._jobs)

    def add(self, queued: QueuedImport) -> None:
        """Let a job wait."""
        if queued.namespace not in self._jobs:
            self._jobs[queued.namespace] = deque()
            self._newcomers[queued.namespace] = None
        self._jobs[queued.namespace].append(queued)

    def take(self) -> QueuedImport:
        """The next job; one that is `taken` already costs no turn. Raises StopIteration when there is none."""
        newcomer = bool(self._newcomers) and self._in_a_row < NEWCOMERS_IN_A_ROW
        namespace = next(iter(self._newcomers if newcomer else self._jobs))
        first = namespace == next(iter(self._jobs))
        jobs = self._jobs[namespace]
        found = jobs.popleft()
        if found.taken:
            if not jobs:
                del self._jobs[namespace]
                self._newcomers.pop(namespace, None)
                self._taken = 0 if first else self._taken
            return found
        self._in_a_row = self._in_a_row + 1 if newcomer else 0
        self._newcomers.pop(namespace, None)
        if not newcomer:
            self._taken += 1
        if not jobs:
            del self._jobs[namespace]
        elif newcomer or self._taken >= NAMESPACE_BATCH:
            self._jobs.move_to_end(namespace)
        else:
            return found
        if first:
            self._taken = 0
        return found


class MirrorQueue:
    """The imports that wait for one mirror.

    Those with priority, for which a user waits, come first, the newest of a namespace before its others. Then those of tags
    without an image: where every hosted cluster renews its catalogs at the same time, an application does not wait for them.
    After a few of the first, one of the others runs.
    """

    def __init__(self) -> None:
        self._prioritized: OrderedDict[str, list[QueuedImport]] = OrderedDict()
        self._missing, self._renewals = NamespaceTurns(), NamespaceTurns()
        self._count = 0
        self._prioritized_in_a_row = self._missing_in_a_row = 0

    def __len__(self) -> int:
        """How many imports wait."""
        return self._count

    def add(self, queued: QueuedImport) -> None:
        """Let a job wait."""
        self._count += 1
        if queued.priority:
            self._prioritized.setdefault(queued.namespace, []).append(queued)
            return
        (self._renewals if queued.renews else self._missing).add(queued)

    def raise_priority(self, queued: QueuedImport) -> None:
        """Give priority to a job that is queued already."""
        if not queued.priority:
            queued.priority = True
            self._prioritized.setdefault(queued.namespace, []).append(queued)

    def take(self) -> QueuedImport:
        """The next job. Raises StopIteration when none waits."""
        while True:
            others = self._missing or self._renewals
            if self._prioritized and (self._prioritized_in_a_row < PRIORITY_IN_A_ROW or not others):
                found = self._next_prioritized()
                self._prioritized_in_a_row += not found.taken
            else:
                found = self._next_other()
                self._prioritized_in_a_row = self._prioritized_in_a_row if found.taken else 0
            if not found.taken:
                found.taken = True
                self._count -= 1
                return found

    def _next_prioritized(self) -> QueuedImport:
        namespace, jobs = self._prioritized.popitem(last=False)
        found = jobs.pop()
        if jobs:
            self._prioritized[namespace] = jobs
        return found

    def _next_other(self) -> QueuedImport:
        """The next without priority; one that ran with priority before costs no turn."""
        renews = self._renewals and (self._missing_in_a_row >= MISSING_IN_A_ROW or not self._missing)
        found = (self._renewals if renews else self._missing).take()
        if not found.taken:
            self._missing_in_a_row = 0 if renews else self._missing_in_a_row + 1
        return found


class ImportQueue:
    """Runs jobs on up to `concurrency` threads, fair between namespaces and between mirror hosts."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._condition = threading.Condition()
        self._mirrors: OrderedDict[str, MirrorQueue] = OrderedDict()
        self._named: dict[Hashable, QueuedImport] = {}
        self._busy: Counter[str] = Counter()
        self._threads: set[threading.Thread] = set()
        self._stopped = False

    @property
    def per_host(self) -> int:
        """How many jobs may run at one mirror host."""
        return max(1, self._concurrency // 2)

    def submit(
        self, namespace: str, host: str, job: Job, *, name: Hashable = None, priority: bool = False, renews: bool = False
    ) -> None:
        """Run `job` when its turn comes, or, with `priority`, before those without; it must handle its own errors.

        `renews`: the tag has an image, so that others come before it.
        `name` is what `raise_priority` may call it by; of several that wait under one name it finds the last.
        Raises RuntimeError when there is no thread for it, and none can be started.
        """
        with self._condition:
            if self._stopped:
                return
            if len(self._threads) < self._concurrency:
                self._start_thread()
            queued = QueuedImport(namespace, host, name, job, priority, renews)
            self._mirrors.setdefault(host, MirrorQueue()).add(queued)
            if name is not None:
                self._named[name] = queued
            self._condition.notify()

    def raise_priority(self, name: Hashable) -> None:
        """Give priority to a job, if it is still queued."""
        with self._condition:
            if queued := self._named.get(name):
                self._mirrors[queued.host].raise_priority(queued)

    def resize(self, concurrency: int) -> None:
        """Take over a changed setting; threads that are too many end after their job."""
        with self._condition:
            self._concurrency = concurrency
            self._condition.notify_all()

    def stop(self) -> None:
        """Drop what waits and end the threads; running jobs end by their own time limits."""
        with self._condition:
            self._stopped = True
            self._mirrors.clear()
            self._named.clear()
            self._condition.notify_all()

    def __len__(self) -> int:
        """Jobs that wait or run."""
        with self._condition:
            return self._waiting() + self._busy.total()

    def _waiting(self) -> int:
        return sum(map(len, self._mirrors.values()))

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name=f"import-{len(self._threads)}", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:
            self._threads.discard(thread)
            if not self._threads:
                raise
            log.warning("failed to start a thread for imports", threads=len(self._threads), error=str(error))

    def _run(self) -> None:
        try:
            while (taken := self._take()) is not None:
                host, job = taken
                try:
                    job()
                except Exception:  # a bug in one import must not cost a slot for good
                    log.exception("import failed unexpectedly", mirror=host)
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
        for host, mirror_queue in self._mirrors.items():
            if self._busy[host] < self.per_host:
                taken = mirror_queue.take()
                if self._named.get(taken.name) is taken:
                    del self._named[taken.name]
                self._mirrors.move_to_end(host)
                if not mirror_queue:
                    del self._mirrors[host]
                return host, taken.job
        return None
