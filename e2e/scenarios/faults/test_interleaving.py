"""The platform's importer, users, administrators, registries and mirrorstream at once, in any order.

A run prints its seed. MIRRORSTREAM_SEED and MIRRORSTREAM_ROUNDS have everybody do the same again, for as many rounds as one likes.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from e2e.scenarios.conftest import Start
from e2e.scenarios.faults.conftest import Saw
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.faults.actions import watch_lines
from e2e.testbed.faults.contents import Contents
from e2e.testbed.faults.crowd import Crowd
from e2e.testbed.faults.expected import Expected
from e2e.testbed.faults.history import History
from e2e.testbed.faults.reliability import often
from e2e.testbed.faults.streams import Key, identity, key_of, unwell
from e2e.testbed.interceptor import Action, Exchange, Interceptor
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(often(1800, 300))
ROUNDS = int(os.environ.get("MIRRORSTREAM_ROUNDS", often(1000, 60)))
SEED = int(os.environ.get("MIRRORSTREAM_SEED", random.SystemRandom().randrange(10**6)))
"""What everybody does follows from it; to see a failure again, the timing has to be met as well."""
AT_ONCE = 100
"""After so many rounds everything has to become quiet, and what there is then is compared with what has to be."""
BACK_OFF = 1.0
SETTINGS = {
    "retry": {"initialSeconds": BACK_OFF, "maximumSeconds": 2},
    # So short that the platform is overtaken at times, and that what it imported is replaced.
    "stuckAfterSeconds": 3,
    "replaceAfterSeconds": 1,
}
QUIET_SECONDS = 4


@pytest.mark.fault(
    "Platform and mirrorstream",
    "Imports by platform and users, edits of streams, rules and registries, streams deleted and made again, at random and at once",
    "Users' fields stay as they are, each write heals a tag; in the end what can be served is, no condition is stale, all is quiet",
)
def test_interleaving(cluster: Cluster, ns: Namespace, start: Start, between: Interceptor, saw: Saw) -> None:
    """Whatever the order: what users wrote stays, what is recorded is right, what can be served is, and nothing loops."""
    print(f"MIRRORSTREAM_SEED={SEED} MIRRORSTREAM_ROUNDS={ROUNDS}")
    with ExitStack() as stack:
        namespaces = [ns, *(stack.enter_context(cluster.namespace()) for _ in range(2))]
        contents = {found.name: Contents(found) for found in namespaces}
        history = History(cluster.client, contents)
        crowd = Crowd(namespaces, contents, history, SEED)
        late = _Lateness(SEED)
        act = history.recorder(late.request)
        stack.enter_context(between.when("update", "/imagestreams/[^/]+/status$", act))
        stack.enter_context(between.when("create", "/imagestreamimports$", act))
        stack.enter_context(between.when("get", "/imagestreams/[^/]+$", _late(late.request)))
        stack.enter_context(between.when("watch", "/imagestreams$", watch_lines(lambda lines: _pausing(lines, late.event))))
        stack.enter_context(history.watching())
        pool = stack.enter_context(ThreadPoolExecutor(8))
        began, ends = time.monotonic(), Counter[str]()
        start(program=between.kubeconfig, namespaces={"include": [found.name for found in namespaces]}, controller=SETTINGS)

        def check(*, last: bool = False) -> None:
            problems = history.problems(last=last)
            assert not problems, f"seed {SEED}:\n" + "\n".join(problems)

        crowd.begin(pool)
        for number in range(0, ROUNDS, AT_ONCE):
            late.over.clear()
            crowd.rounds(min(AT_ONCE, ROUNDS - number), pool, check)
            crowd.settle()
            for imported in (False, True):
                if imported:
                    crowd.import_all(pool)
                expected = [
                    Expected(found, contents[found.name], crowd.rules[found.name], history, imported) for found in namespaces
                ]
                _wait_as_expected(expected, history, between)
                check()
            # What was seen late has been dealt with late.
            late.over.set()
            _wait_as_expected(expected, history, between)
            ends += sum((found.tally() for found in expected), Counter())
            mark, events = time.monotonic(), len(history.events)
            threading.Event().wait(QUIET_SECONDS)
            assert len(history.events) == events, f"seed {SEED}: written while all was quiet: {history.events[events:]}"
            assert _writes(between, mark) == 0, f"seed {SEED}"
            check(last=True)
        saw["in the end"] = ", ".join(f"{number} {what}" for what, number in sorted(ends.items()))
        _count(history, crowd, time.monotonic() - began, saw)


class _Lateness:
    """Has mirrorstream see and write late: others act in between, so that its cache is stale."""

    def __init__(self, seed: int) -> None:
        self._chance, self._lock = random.Random(seed), threading.Lock()
        self.over = threading.Event()

    def request(self) -> None:
        """Before or after a request is carried out."""
        self._wait(0, 0, 0, 0, 0.02, 0.1, 0.3, 0.6)

    def event(self) -> None:
        """Before an event arrives; so rarely that they never arrive more slowly than others write."""
        self._wait(*[0] * 24, 0.6)

    def _wait(self, *choices: float) -> None:
        with self._lock:
            seconds = self._chance.choice(choices)
        self.over.wait(seconds)


def _late(pause: Callable[[], None]) -> Action:
    def act(exchange: Exchange) -> None:
        pause()
        exchange.pass_on()

    return act


def _pausing(lines: Iterable[bytes], pause: Callable[[], None]) -> Iterator[bytes]:
    for line in lines:
        pause()
        yield line


def _writes(between: Interceptor, since: float = 0) -> int:
    """How many times mirrorstream has tried to write a stream or an Image."""
    return between.count("update", "/status$", since) + between.count("create", "/images$", since)


def _wait_as_expected(expected: list[Expected], history: History, between: Interceptor) -> None:
    """Wait until all is as it must be, and nobody has written for longer than a request of ours is late."""
    problems: list[str] = []

    def reached() -> bool:
        seen = len(history.events), _writes(between)
        problems[:] = [text for found in expected for text in found.problems()]
        if problems:
            return False
        threading.Event().wait(1.5)
        return seen == (len(history.events), _writes(between))

    try:
        wait_for("every tag that can be served is served", reached, seconds=60, step=0.2)
    except AssertionError as error:
        raise AssertionError(f"seed {SEED}: {error}:\n" + "\n".join(problems)) from None


def _count(history: History, crowd: Crowd, seconds: float, saw: Saw) -> None:
    """Hold the number of mirrorstream's writes to what others did.

    A write heals at least one tag that an import, or an edit, of others' had left unwell, and conflicts only with a write of
    others'. What heals nothing is tried again for every change of the tags or the rules and for every retry that a user asks
    for; otherwise the back-off decides.
    """
    ours = {
        (write.answer["metadata"]["uid"], write.answer["metadata"]["resourceVersion"]) for write in history.writes if write.answer
    }
    causes: Counter[Key] = Counter()
    others: Counter[Key] = Counter()
    tags: Counter[Key] = Counter()
    for before, stream in history.events:
        key, now, was = key_of(stream), unwell(stream), unwell(before) if before else {}
        tags[key] = max(tags[key], len(now))
        if identity(stream) not in ours:
            others[key] += 1
            causes[key] += sum(was.get(name) != seen for name, seen in now.items())
    written = Counter(write.key for write in history.writes if write.status == 200)
    refused = Counter(write.key for write in history.writes if write.status != 200)
    edits = sum(rules.edits for rules in crowd.rules.values())
    for key in written | refused | history.dry_runs:
        assert written[key] <= causes[key], f"{key}: {written[key]} writes, for {causes[key]} tags that others left unwell"
        assert refused[key] <= others[key], f"{key}: {refused[key]} refused writes, at {others[key]} writes of others"
        changes = others[key] + written[key] + edits + crowd.retries + seconds / (BACK_OFF * 0.8)
        most = 2 * tags[key] * changes  # two mirrors
        assert history.dry_runs[key] <= most, f"{key}: {history.dry_runs[key]} dry runs, which is more than {most:.0f}"
    saw["seed"], saw["rounds"], saw["actions"] = str(SEED), str(ROUNDS), str(crowd.actions)
    saw["writes"] = f"{written.total()} for {causes.total()} tags left unwell in {others.total()} writes of others"
    saw["conflicts"], saw["dry runs"] = str(refused.total()), str(history.dry_runs.total())
    print(saw)
