"""Whether a pod's service account may pull from a stream, asked of the API server and remembered briefly.

A review waits for an answer only for a moment, and once several questions have had no answer in time none waits until one comes
again: an API server that hangs must not hold up pods, nor pile up threads. One slow answer is only that: an authorizer may be slow
about one account. A pod that was admitted without an answer is mended once there is one, see `pending_pods`.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

import msgspec
import structlog
from mirrorstream.kube.client import Client, ClientError

log = structlog.get_logger(__name__)

PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
REQUEST_SECONDS = 2.0
"""The longest wait for the API server."""
WAIT_SECONDS = 0.8
"""The longest wait for the answer to a question, from when it was asked; well below the 3 s that the API server waits for us."""
FRESH_SECONDS = {True: 30.0, False: 5.0}
"""How long an answer counts: a right that was just given is noticed sooner than one that was taken away."""
STALE_SECONDS = 600.0
"""How long an old answer counts while the API server gives no new one."""
FAILED_SECONDS = 2.0
"""How long the same question is not asked again after a failure."""
ASKERS = 4
HANGS_FROM = 4
"""Questions without an answer in time, and none of another since, that make an API server one that hangs."""
REMEMBERED = 20_000
SWEEP_SECONDS = 60.0
"""How often answers that count no more are dropped: namespaces and accounts come and go."""

Question = tuple[str, str, str, str]
"""Namespace and name of the stream, namespace and name of the service account; the last two are empty for a pull without login."""
ANONYMOUS = ("", "")


class AnswerPendingError(Exception):
    """Raised in place of a wait where an event loop runs, which must not be held up; to ask again after `wait`."""

    def __init__(self, wait: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.wait = wait


@dataclass(slots=True)
class _Entry:
    """What is known about one question; `answer` is None until the API server has said anything."""

    answer: bool | None = None
    answered: float = 0.0
    failed: float = float("-inf")
    asked: bool = False
    asked_at: float = 0.0
    told: Future[None] = field(default_factory=Future)

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
        self._late: set[Question] = set()
        """Questions that had no answer in time, since the last answer."""
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

    def allowed(self, namespace: str, stream: str, pod_namespace: str, account: str) -> bool | None:
        """Whether the account may `get imagestreams/layers` of the stream; None while nobody can say.

        Raises AnswerPendingError in an event loop.
        """
        question = (namespace, stream, pod_namespace, account)
        entry = self._entries.get(question)
        if entry is not None and entry.answer is not None:
            age = self._clock() - entry.answered
            if age < FRESH_SECONDS[entry.answer]:
                return entry.answer
            if entry.answer and age < 2 * FRESH_SECONDS[True]:
                # Pods that come often never wait for the same answer again.
                self._ask(question)
                return entry.answer
        return self._wait_for(question, self._ask(question))

    def _ask(self, question: Question) -> _Entry:
        """Have a question asked, unless it is being asked, or has just failed."""
        with self._lock:
            if question not in self._entries:
                self._make_room()
            entry = self._entries.setdefault(question, _Entry())
            if not entry.asked and self._clock() - entry.failed >= FAILED_SECONDS:
                entry.asked, entry.asked_at, entry.told = True, self._clock(), Future()
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

    def _wait_for(self, question: Question, entry: _Entry) -> bool | None:
        """The answer, once it is there or has been waited for. Raises AnswerPendingError."""
        if entry.asked and len(self._late) < HANGS_FROM:
            told, left = entry.told, entry.asked_at + WAIT_SECONDS - self._clock()
            if left > 0 and _in_event_loop():
                raise AnswerPendingError(partial(self._until_told, question, told, left))
            if not wait([told], max(0.0, left)).done:
                self._late.add(question)
        if entry.answer is None or self._clock() - entry.answered > STALE_SECONDS:
            return None
        return entry.answer

    async def _until_told(self, question: Question, told: Future[None], seconds: float) -> None:
        done, _ = await asyncio.wait([asyncio.wrap_future(told)], timeout=seconds)
        if not done:
            self._late.add(question)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            question, entry = work
            answer = self._review(question)
            with self._lock:
                if answer is None:
                    entry.failed = self._clock()
                else:
                    self._late.clear()
                    entry.answer, entry.answered = answer, self._clock()
                entry.asked = False
                told = entry.told
            told.set_result(None)

    def _review(self, question: Question) -> bool | None:
        """Ask the API server; None if it does not answer."""
        namespace, stream, *account = question
        try:
            return ask(self._client, question)
        except ClientError as error:
            log.warning("SubjectAccessReview failed", account=account, stream=f"{namespace}/{stream}", error=str(error))
        except Exception:  # a bug must not end the thread that asks
            log.exception("SubjectAccessReview failed", account=account, stream=f"{namespace}/{stream}")
        return None


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def ask(client: Client, question: Question) -> bool:
    """Whether a service account, or anybody, may pull, by a SubjectAccessReview as the internal registry asks it.

    Raises ClientError.
    """
    namespace, stream, *account = question
    if tuple(account) == ANONYMOUS:
        user, groups = "system:anonymous", ["system:unauthenticated"]
    else:
        user = f"system:serviceaccount:{':'.join(account)}"
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{account[0]}", "system:authenticated"]
    attributes = {
        "namespace": namespace,
        "verb": "get",
        "group": "image.openshift.io",
        "resource": "imagestreams",
        "subresource": "layers",
        "name": stream,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
    }
    return client.request("POST", PATH, body=body, decode=_decode, timeout=REQUEST_SECONDS).status.allowed
