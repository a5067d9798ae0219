"""Events on the objects that users look at: what was imported, from where, or why not.

They are written by a thread of their own from a bounded queue: a decision never waits for an Event, and an API server that
refuses them costs us a line in the log, no more. Namespaces take turns, so that one with thousands of failures delays only its own.
"""

import collections
import datetime
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import structlog

from mirrorstream.kube.client import MERGE_PATCH, ApiError, Client, ClientError

log = structlog.get_logger(__name__)

QUEUE_LIMIT = 5000
NAMESPACE_LIMIT = 1000
"""How many Events of one namespace may wait."""
REMEMBERED = 5000
MESSAGE_LIMIT = 1024
NORMAL, WARNING = "Normal", "Warning"
Annotations = tuple[tuple[str, str], ...]
"""Names and values of an Event's annotations."""


@dataclass(frozen=True, slots=True)
class Involved:
    """The object that an Event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""


_Event = tuple[Involved, str, str, str, Annotations]


class EventRecorder:
    """Writes core/v1 Events; the same Event again raises the count of the one that there is."""

    def __init__(
        self,
        client: Client,
        component: str,
        instance: str,
        *,
        on_drop: Callable[[], None] = lambda: None,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._client = client
        self._component = component
        self._instance = instance
        self._on_drop = on_drop
        self._now = now
        self._condition = threading.Condition()
        self._turns: collections.OrderedDict[str, collections.deque[_Event]] = collections.OrderedDict()
        self._waiting = 0
        self._stopped = False
        self._written: collections.OrderedDict[bytes, tuple[str, int]] = collections.OrderedDict()
        """The name and count of each Event by what it says, as a digest: the texts of one take kilobytes."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Write in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def event(self, involved: Involved, event_type: str, reason: str, message: str, annotations: Annotations = ()) -> None:
        """Queue an Event; never blocks and never raises. What is too much, in all or of a namespace, is dropped and counted."""
        if len(message) > MESSAGE_LIMIT:
            message = message[: MESSAGE_LIMIT - 1] + "…"
        with self._condition:
            waiting = self._turns.get(involved.namespace, ())
            if taken := self._waiting < QUEUE_LIMIT and len(waiting) < NAMESPACE_LIMIT and not self._stopped:
                item = (involved, event_type, reason, message, annotations)
                self._turns.setdefault(involved.namespace, collections.deque()).append(item)
                self._waiting += 1
                self._condition.notify()
        if not taken:
            self._on_drop()

    def stop(self, timeout: float = 3.0) -> None:
        """Write what is queued, for at most `timeout` seconds."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        if self._thread:
            self._thread.join(timeout)

    def _next(self) -> _Event | None:
        """The next Event, of the namespace whose turn it is; None once all are written and no more come."""
        with self._condition:
            while not self._turns:
                if self._stopped:
                    return None
                self._condition.wait()
            namespace, waiting = self._turns.popitem(last=False)
            item = waiting.popleft()
            if waiting:
                self._turns[namespace] = waiting
            self._waiting -= 1
            return item

    def _run(self) -> None:
        while (item := self._next()) is not None:
            try:
                self._write(*item)
            except ClientError as error:
                self._on_drop()
                log.warning(
                    "failed to write an Event", reason=item[2], object=f"{item[0].namespace}/{item[0].name}", error=str(error)
                )
            except Exception:  # a bug in one Event must not cost all others
                self._on_drop()
                log.exception("failed to write an Event", reason=item[2], object=f"{item[0].namespace}/{item[0].name}")

    def _write(self, involved: Involved, event_type: str, reason: str, message: str, annotations: Annotations) -> None:
        key = hashlib.sha256(repr((involved, reason, message, annotations)).encode(errors="surrogatepass")).digest()
        path = f"/api/v1/namespaces/{involved.namespace}/events"
        known = self._written.get(key)
        if known and self._count_up(f"{path}/{known[0]}", known[1] + 1):
            self._written[key] = (known[0], known[1] + 1)
            self._written.move_to_end(key)
            return
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        name = f"{involved.name[:200]}.{uuid4().hex[:16]}"
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": name,
                "namespace": involved.namespace,
                **({"annotations": dict(annotations)} if annotations else {}),
            },
            "involvedObject": {
                "apiVersion": involved.api_version,
                "kind": involved.kind,
                "namespace": involved.namespace,
                "name": involved.name,
                **({"uid": involved.uid} if involved.uid else {}),
            },
            "type": event_type,
            "reason": reason,
            "message": message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance[:128],
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        self._client.request("POST", path, body=body, timeout=10)
        self._written[key] = (name, 1)
        if len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    def _count_up(self, path: str, count: int) -> bool:
        """Whether the Event was still there to be counted up."""
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        patch = {"count": count, "lastTimestamp": stamp}
        try:
            self._client.request("PATCH", path, body=patch, content_type=MERGE_PATCH, timeout=10)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True
