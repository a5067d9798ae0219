"""One pod that hangs: deciding what becomes of it, patching it, and telling its owner."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import structlog
from mirrorstream.diagnose.pods import DISABLED, NOT_REPAIRED, REWRITE_LABEL
from mirrorstream.kube.client import JSON_PATCH, ApiError, Client, ClientError
from mirrorstream.kube.errors import retry_after_seconds
from mirrorstream.kube.events import NORMAL, WARNING, EventRecorder, Involved
from mirrorstream.kube.leaderelection import NotLeadingError
from mirrorstream.kube.objects import Key
from mirrorstream.text.sanitize import shortened

from mirrorstream_webhook.metrics import PendingPodMetrics
from mirrorstream_webhook.patch import Decision, Result, Way
from mirrorstream_webhook.pending_pods.hangs import Hang, PendingPod, Plan, plan, refusal
from mirrorstream_webhook.pending_pods.pod_patch import json_patch
from mirrorstream_webhook.pods import Pod
from mirrorstream_webhook.ways import Subject

log = structlog.get_logger(__name__)

REPAIRED = "PendingPodRepaired"
"""The reason of an Event; users' alerts may match it, so it never changes."""
REQUEST_SECONDS = 10.0
AGAIN_SECONDS = 5.0
"""How often a pod that hangs is evaluated though nothing changed: some answers are a matter of time."""
TEXT_LIMIT = 900
"""Characters of what is logged and told of one pod: it may have hundreds of containers."""
NAMESPACE_SECONDS = 10.0
"""How long a namespace's label counts."""
NAMESPACES = 1_000
RETRY_SECONDS, RETRY_LIMIT = 0.5, 60.0
"""Between attempts of one pod after a conflict or an error, doubled each time."""
REFUSED_SECONDS = 600.0
"""A pod whose change was refused is tried again after that: a quota may have been raised. It is not told again."""
SEEN_SECONDS = 30.0
"""How long a change of ours may take to come back by the watch."""
BURST_SECONDS = 1.0
"""For how long the rate may be made up for: while the API server was slow nobody used it."""

_STARTING = re.compile(r"failed to configure policy|not yet synced to use for admission|not yet ready to handle request")
"""How kube-apiserver refuses requests while it starts: for up to 30 seconds it cannot resolve a policy's paramKind."""
STARTING_ATTEMPTS = 7
"""So many in a row, within a minute, are no refusal. Then the denial is one: a policy's paramKind may be gone for good."""


class Deciding(Protocol):
    """What is asked of the decider."""

    def version(self) -> object:
        """The same as long as the answers are."""

    def left_alone(self, pod: Pod, namespace: str) -> Decision | None:
        """Why no image of the pod is rewritten."""

    def subject(self, pod: Pod, namespace: str) -> Subject:
        """Whose images they are."""

    def image(self, text: str, subject: Subject, *, without: frozenset[Way] = frozenset()) -> Decision:
        """What is done about a reference."""


class Right(Protocol):
    """Whether pods may be changed."""

    def check_lead(self) -> float:
        """Raise NotLeadingError unless this replica leads."""

    def problem(self) -> str | None:
        """Why pods are told of only; None if they are changed."""

    @property
    def observes(self) -> bool:
        """Whether nothing is written, no Event either."""

    def withdrawn(self) -> None:
        """The API server says that this account may not patch pods."""


class _Metadata(msgspec.Struct, frozen=True):
    labels: dict[str, str] = {}


class _Namespace(msgspec.Struct, frozen=True):
    metadata: _Metadata = _Metadata()


_decode_namespace = msgspec.json.Decoder(_Namespace).decode


@dataclass(slots=True)
class PodState:
    """What is remembered of a pod that hangs, or did, for as long as it is pending."""

    uid: str
    hangs: dict[str, Hang] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    switches: int = 0
    failures: int = 0
    starting: int = 0
    """How often in a row a kube-apiserver that starts has denied the change."""
    not_before: float = 0.0
    """When the next request about it may be made; the images being others than before, at once."""
    busy: bool = False
    told: set[str] = field(default_factory=set)


class Pace:
    """At most this many a second, over all threads."""

    def __init__(self, rate: float, clock: Callable[[], float], stopped: threading.Event) -> None:
        self._rate, self._clock, self._stopped = rate, clock, stopped
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> bool:
        """Wait for a turn; False if the program ends."""
        with self._lock:
            now = self._clock()
            turn = max(now - BURST_SECONDS, self._next)
            self._next = turn + 1 / self._rate
        return not self._stopped.wait(max(0.0, turn - now))


class Namespaces:
    """Whether a namespace opted out, asked of the API server and remembered briefly."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self._client, self._clock = client, clock
        self._known: dict[str, tuple[float, bool | None]] = {}

    def opted_out(self, namespace: str) -> bool | None:
        """Whether its label keeps its pods from being changed; None while nobody can say."""
        now = self._clock()
        known = self._known.get(namespace)
        if known and now - known[0] < NAMESPACE_SECONDS:
            return known[1]
        answer = self._ask(namespace)
        if len(self._known) >= NAMESPACES:
            self._known.clear()
        self._known[namespace] = (now, answer)
        return answer

    def _ask(self, namespace: str) -> bool | None:
        path = f"/api/v1/namespaces/{namespace}"
        try:
            found = self._client.request("GET", path, decode=_decode_namespace, timeout=REQUEST_SECONDS)
        except ClientError as error:
            log.warning("cannot read a namespace, its pods wait", namespace=namespace, error=str(error))
            return None
        return found.metadata.labels.get(REWRITE_LABEL) == DISABLED


class Repairs:
    """Deals with one pod at a time; several threads may, with a pod each."""

    def __init__(
        self,
        client: Client,
        decider: Deciding,
        events: EventRecorder,
        metrics: PendingPodMetrics,
        right: Right,
        pace: Pace,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._decider = decider
        self._events = events
        self._metrics = metrics
        self._right = right
        self._pace = pace
        self._clock = clock
        self._namespaces = Namespaces(client, clock)

    def evaluate(self, key: Key, pending: PendingPod, state: PodState, usual: float) -> float:
        """Deal with one pod; the seconds until it is to be evaluated again, `usual` if nothing else is to be waited for."""
        now = self._clock()
        if now < state.not_before:
            return state.not_before - now
        left = self._decider.left_alone(pending.pod, key[0])
        if left is not None:
            return AGAIN_SECONDS if left.result is Result.NOT_SYNCED else max(usual, RETRY_LIMIT)
        subject = self._decider.subject(pending.pod, key[0])

        def decide(text: str, without: frozenset[Way]) -> Decision:
            return self._decider.image(text, subject, without=without)

        found = plan(pending, decide, state.hangs, now, switches=state.switches)
        soon = min(usual, found.again) if found.again else usual
        if not found.changes and not found.told:
            return soon
        if self._namespaces.opted_out(key[0]) is not False:
            return max(usual, NAMESPACE_SECONDS)
        return self._act(key, pending, state, found) or soon

    def _act(self, key: Key, pending: PendingPod, state: PodState, found: Plan) -> float:
        """Tell and change what is planned; the seconds until the next attempt, 0 for the usual time."""
        for text in found.told:
            self._tell(key, pending, state, text)
        if not found.changes:
            return 0.0
        if problem := self._right.problem():
            self._tell(key, pending, state, f"hangs on its pull and is not changed ({problem}); it would be: {_text(found)}")
            return 0.0
        return self._patch(key, pending, state, found)

    def _patch(self, key: Key, pending: PendingPod, state: PodState, found: Plan) -> float:
        if not self._pace.wait():
            return RETRY_SECONDS
        try:
            self._right.check_lead()
            self._client.request(
                "PATCH",
                f"/api/v1/namespaces/{key[0]}/pods/{key[1]}",
                params={"fieldManager": "mirrorstream-webhook"},
                body=json_patch(pending, found.changes),
                content_type=JSON_PATCH,
                timeout=REQUEST_SECONDS,
                decode=len,
            )
        except NotLeadingError:
            return RETRY_SECONDS
        except ApiError as error:
            return self._not_patched(key, pending, state, error)
        except ClientError as error:
            return self._failed(key, state, "failed", error)
        state.switches += found.next_way
        if state.images == pending.images():
            # Until the watch shows others, what it shows is old.
            state.failures, state.not_before = 0, self._clock() + SEEN_SECONDS
        changes = _text(found)
        self._metrics.counted("repaired")
        log.info("pending pod repaired", namespace=key[0], pod=key[1], changes=changes)
        # Each Event says something new: counting an old one up would take another right.
        again = f" (another way was taken {state.switches} times)" if state.switches else ""
        self._event(key, pending, NORMAL, REPAIRED, f"hung on its pull, images replaced{again}: {changes}")
        return 0.0

    def _not_patched(self, key: Key, pending: PendingPod, state: PodState, error: ApiError) -> float:
        if error.status == 404:
            return RETRY_LIMIT
        if error.status == 403 and 'cannot patch resource "pods"' in error.message:
            # The role is gone: that is no pod's own trouble.
            log.warning("patching pending pods is forbidden, reporting them for now", error=error.message)
            self._right.withdrawn()
            return RETRY_SECONDS
        starting = state.starting < STARTING_ATTEMPTS and _STARTING.search(error.message) is not None
        state.starting = state.starting + 1 if starting else 0
        if starting:
            return self._failed(key, state, "failed", error)
        # A test of the patch that fails is a 422, too.
        if error.status == 403 or (error.status == 422 and any(word in error.message for word in ("forbidden", "Too long"))):
            state.not_before = self._clock() + REFUSED_SECONDS
            text = refusal(error.message)
            if self._tell(key, pending, state, f"hangs on its pull, and {text}"):
                self._metrics.counted("refused")
                log.warning("pending pod may not be changed", namespace=key[0], pod=key[1], error=error.message)
            return REFUSED_SECONDS
        return self._failed(key, state, "conflict" if error.status in (409, 422) else "failed", error)

    def _failed(self, key: Key, state: PodState, result: str, error: ClientError) -> float:
        """Try again, later each time; what changed since comes by the watch."""
        self._metrics.counted(result)
        state.failures += 1
        log.info("pending pod not changed, will retry", namespace=key[0], pod=key[1], result=result, error=str(error))
        wait: float = max(retry_after_seconds(error), min(RETRY_SECONDS * 2 ** min(state.failures - 1, 10), RETRY_LIMIT))
        state.not_before = self._clock() + wait
        return wait

    def _tell(self, key: Key, pending: PendingPod, state: PodState, text: str) -> bool:
        """Say why a pod is not changed, once for each text: by an Event, or in the log; whether it was the first time."""
        if text in state.told:
            return False
        state.told.add(text)
        self._metrics.counted("reported")
        if self._right.observes:
            log.info("pending pod not repaired", namespace=key[0], pod=key[1], reason=text)
        else:
            self._event(key, pending, WARNING, NOT_REPAIRED, text)
        return True

    def _event(self, key: Key, pending: PendingPod, kind: str, reason: str, text: str) -> None:
        self._events.event(Involved("v1", "Pod", key[0], key[1], pending.uid), kind, reason, text)


def _text(found: Plan) -> str:
    return shortened("; ".join(map(str, found.changes)), TEXT_LIMIT)
