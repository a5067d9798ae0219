"""Whether a pod's service account may pull from a namespace's streams, asked of the API server and remembered briefly.

A review waits for an answer only for a moment, and once an answer has not come in time none waits until one comes again: an API
server that hangs must not hold up pods, nor pile up threads.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

import msgspec
import structlog
from mirrorstream.kube.client import Client, ClientError

log = structlog.get_logger(__name__)

PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
REQUEST_SECONDS = 2.0
"""The longest wait for the API server."""
WAIT_SECONDS = 0.8
"""The longest wait of a review, well below the 3 s that the API server waits for us, and the second after which the server takes a
thread for held."""
FRESH_SECONDS = {True: 30.0, False: 5.0}
"""How long an answer counts: a right that was just given is noticed sooner than one that was taken away."""
STALE_SECONDS = 600.0
"""How long an old answer counts while the API server gives no new one."""
FAILED_SECONDS = 2.0
"""After a failure the same question is not asked again for so long."""
ASKERS = 4
REMEMBERED = 20_000
SWEEP_SECONDS = 60.0
"""How often answers that count no more are dropped: namespaces and accounts come and go."""

Question = tuple[str, str, str]
"""Namespace of the streams, namespace and name of the service account."""


@dataclass(slots=True)
class _Entry:
    """What is known about one question; `answer` is None until the API server has said anything."""

    answer: bool | None = None
    answered: float = 0.0
    failed: float = float("-inf")
    asked: bool = False
    told: threading.Event = field(default_factory=threading.Event)

    def counts(self, now: float) -> bool:
        """Whether anything about it is still of use."""
        answered = self.answer is not None and now - self.answered <= STALE_SECONDS
        return self.asked or answered or now - self.failed < FAILED_SECONDS


class _Status(msgspec.Struct):
    allowed: bool = False


class _Answer(msgspec.Struct):
    status: _Status


_decode = msgspec.json.Decoder(_Answer).decode


class Access:
    """Asks SubjectAccessReviews, each question by one thread at a time, and remembers the answers."""

    def __init__(self, client: Client, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[Question, _Entry] = {}
        self._queue: SimpleQueue[tuple[Question, _Entry] | None] = SimpleQueue()
        """Questions to ask; None ends the thread that takes it."""
        self._hangs = False
        self._swept = clock()
        self._threads = [threading.Thread(target=self._run, name=f"access-{n}", daemon=True) for n in range(ASKERS)]

    def start(self) -> None:
        """Answer questions in threads of its own."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads; those that wait for the API server end with the process."""
        for _ in self._threads:
            self._queue.put(None)

    def allowed(self, namespace: str, pod_namespace: str, account: str) -> bool | None:
        """Whether the account may `get imagestreams/layers` in `namespace`; None while nobody can say."""
        question = (namespace, pod_namespace, account)
        entry = self._entries.get(question)
        if entry is not None and entry.answer is not None:
            age = self._clock() - entry.answered
            if age < FRESH_SECONDS[entry.answer]:
                return entry.answer
            if entry.answer and age < 2 * FRESH_SECONDS[True]:
                # Pods that come often never wait for the same answer again.
                self._ask(question)
                return entry.answer
        return self._wait_for(self._ask(question))

    def _ask(self, question: Question) -> _Entry:
        """Have a question asked, unless it is being asked, or has just failed."""
        with self._lock:
            if question not in self._entries:
                self._make_room()
            entry = self._entries.setdefault(question, _Entry())
            if not entry.asked and self._clock() - entry.failed >= FAILED_SECONDS:
                entry.asked = True
                entry.told.clear()
                self._queue.put((question, entry))
        return entry

    def _make_room(self) -> None:
        """Drop what counts no more; where that is not enough, all that is not being asked."""
        now = self._clock()
        if now - self._swept >= SWEEP_SECONDS:
            self._swept = now
            self._entries = {key: entry for key, entry in self._entries.items() if entry.counts(now)}
        if len(self._entries) >= REMEMBERED:
            self._entries = {key: entry for key, entry in self._entries.items() if entry.asked}

    def _wait_for(self, entry: _Entry) -> bool | None:
        if entry.asked and not self._hangs and not entry.told.wait(WAIT_SECONDS):
            self._hangs = True
        if entry.answer is None or self._clock() - entry.answered > STALE_SECONDS:
            return None
        return entry.answer

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            question, entry = work
            answer = self._review(question)
            with self._lock:
                if answer is None:
                    entry.failed = self._clock()
                else:
                    self._hangs = False
                    entry.answer, entry.answered = answer, self._clock()
                entry.asked = False
            entry.told.set()

    def _review(self, question: Question) -> bool | None:
        """Ask the API server; None if it does not answer."""
        namespace, *account = question
        try:
            return ask(self._client, question)
        except ClientError as error:
            log.warning("the right to pull cannot be looked up", account=account, namespace=namespace, error=str(error))
        except Exception:  # a bug must not end the thread that asks
            log.exception("the right to pull cannot be looked up", account=account, namespace=namespace)
        return None


def ask(client: Client, question: Question) -> bool:
    """Whether a service account may pull, by a SubjectAccessReview; the internal registry asks the same. Raises ClientError."""
    namespace, pod_namespace, account = question
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{pod_namespace}", "system:authenticated"]
    attributes = {
        "namespace": namespace,
        "verb": "get",
        "group": "image.openshift.io",
        "resource": "imagestreams",
        "subresource": "layers",
    }
    user = f"system:serviceaccount:{pod_namespace}:{account}"
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
    }
    return client.request("POST", PATH, body=body, decode=_decode, timeout=REQUEST_SECONDS).status.allowed
