"""A local, current copy of one kind of object: paged list, then a watch that resumes where it broke off.

Objects are projected while they are decoded, so that what is not used is never kept, and one at a time, so that a single
malformed object is skipped, said and counted, never the whole list. Handlers are told a key and only enqueue it.

A page of a list is taken over as it comes: a list of a whole cluster is never in memory beside what is known already, and what was
read of it is not lost when its next page fails.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from mirrorstream.kube.answers import UNREADABLE
from mirrorstream.kube.client import ApiError, ApiUnreachable, Client, ClientError, EventTooLarge, Watch
from mirrorstream.kube.errors import retry_after_seconds
from mirrorstream.kube.objects import (
    EVENT,
    IDENTITY,
    PAGE,
    Broken,
    Expired,
    Key,
    Meta,
    TooLarge,
    WatchEvent,
    WentBack,
    identity_of,
    is_older,
    may_follow,
    watch_error,
)
from mirrorstream.kube.pager import PAGE_SIZE
from mirrorstream.kube.resumption import Listing, Resumption

log = structlog.get_logger(__name__)

T = TypeVar("T")

BACKOFF_INITIAL, BACKOFF_MAXIMUM = 0.5, 10.0
WATCH_SECONDS = (45, 60)
"""The server ends a watch after a random time in here, so that the watches of many clients do not end together. Two seconds before,
kube-apiserver sends a bookmark; when nothing happens, its first other one comes after two minutes."""
OVERDUE_SECONDS = 10.0
"""A watch that is still open this long after its time-out is dead, whatever its connection says: silence is noticed within 70 s."""
ABSENT_AFTER = 6
"""After this many 404s in a row, about 15 s, a kind that was served counts as gone."""
ABSENT_SECONDS = 6.0
"""How often a kind that the cluster does not serve, or does not let us see, is looked for again. A signature policy counts from its
first object on, and an upgrade brings the kinds of mirror rules: both are noticed within 10 s."""


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """An object that appeared, changed or went away; `old` and `new` are None where there is none."""

    key: Key
    old: T | None
    new: T | None


class Informer(Generic[T]):
    """Keeps every object under `path` as a `T`, and tells `on_change` of each difference, from one thread.

    `read` makes a T of an object's JSON (a msgspec decoder's `decode`). With `optional`, a cluster that does not serve the kind
    counts as synced with no objects; after each `ABSENT_SECONDS` it is asked again. `params` narrow lists and watches, by a field
    selector say: what leaves the selection counts as deleted. `clock`, `wait` (returns whether to stop) and `uniform` are injected
    for tests.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        read: Callable[[bytes], T],
        on_change: Callable[[Change[T]], None],
        *,
        name: str,
        optional: bool = False,
        params: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.name = name
        self._client = client
        self._path = path
        self._read = read
        self._on_change = on_change
        self._optional = optional
        self._params = dict(params or {})
        self._clock = clock
        self._wait = wait
        self._uniform = uniform
        self._objects: dict[Key, tuple[str, T]] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._watch: Watch | None = None
        self._listing: Listing | None = None
        """The list that is being read; it outlives the failure of a page."""
        self.synced = threading.Event()
        self.settled = threading.Event()
        """Set once the first attempt has had a definite outcome: a list, or that there is none to be had."""
        self.problem: str | None = None
        self.last_contact = clock()
        self.lists = self.watches = self.malformed = 0
        self._missing = 0

    # What others read.

    def get(self, key: Key) -> T | None:
        """The object, or None."""
        found = self._objects.get(key)
        return found[1] if found else None

    def objects(self) -> list[T]:
        """All objects as they are now."""
        return [value for _, value in list(self._objects.values())]

    def all_keys(self) -> list[Key]:
        """The keys of all objects as they are now."""
        return list(self._objects)

    def count(self) -> int:
        """How many objects there are now."""
        return len(self._objects)

    def staleness(self) -> float:
        """Seconds since the API server last said how things are.

        A refusal is an answer, but no news: what is known grows old, and that is what the administrator has to be told.
        """
        return self._clock() - self.last_contact

    # The thread.

    def start(self) -> None:
        """List and watch in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name=f"informer-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, waking it from whatever it reads."""
        self._stopped.set()
        if self._watch:
            self._watch.close()
        if self._thread:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        resumption = Resumption()
        while not self._stopped.is_set():
            began, asked = self._clock(), 0.0
            try:
                if not resumption.version:
                    resumption.listed(self._list())
                elif resumption.doubtful:
                    self._check(resumption.version)
                    resumption.checked()
                version = self._follow(resumption.version)
                resumption.ended(version, self._clock() - began)
            except Expired as expired:
                self._listing = None
                resumption.expired()
                log.info(expired.event, resource=self.name, reason=str(expired))
            except Broken as broken:
                resumption.broke(broken, self._clock() - began)
                log.debug("watch ended", resource=self.name, error=str(broken))
            except ClientError as error:
                if self._absent(error):
                    self._listing = None
                    resumption.start_over()
                    if self._wait(self._stopped, self._uniform(0.8, 1.2) * ABSENT_SECONDS):
                        return
                    continue
                resumption.failed(error, advanced=self._listing is not None and self._listing.advanced)
                if self._listing and not self._listing.failed(error):
                    self._listing = self._listing.again()
                    self.lists += 1
                asked = retry_after_seconds(error)
                self._report(str(error))
            except Exception:  # a bug must not end the watch for good: say it whole and start over
                self._listing = None
                resumption.start_over()
                log.exception("the informer failed", resource=self.name)
            if resumption.failures and self._wait(self._stopped, asked + self._backoff(resumption.failures)):
                return

    def _backoff(self, failures: int) -> float:
        """Exponential, with full jitter above a floor, so that clients that were cut off together come back apart."""
        ceiling = min(BACKOFF_MAXIMUM, BACKOFF_INITIAL * 2 ** min(failures - 1, 10))
        return self._uniform(ceiling / 2, ceiling)

    def _report(self, problem: str | None) -> None:
        """Log a new state once."""
        if problem == self.problem:
            return
        self.problem = problem
        if problem:
            log.warning("watch failed, will retry", resource=self.name, error=problem)
        else:
            log.info("watch resumed", resource=self.name)

    def _absent(self, error: ClientError) -> bool:
        """Whether the cluster has said for sure that there is nothing for us to see."""
        if not isinstance(error, ApiError) or error.status not in (403, 404):
            self._missing = 0
            return False
        self._missing += 1
        if self._objects and self._missing < ABSENT_AFTER:
            # An API server that is just starting may not know its own kinds yet.
            return False
        if error.status == 403:
            self._report(f"not allowed to list and watch {self.name}: {error.message}")
        elif self._optional:
            if self.problem is None:
                log.info("kind not served by the cluster, continuing without it", resource=self.name)
            self.problem = f"the cluster does not serve {self.name}"
        else:
            self._report(f"the cluster does not serve {self.name}")
        self.settled.set()
        if error.status == 404:
            # Not on a 403: what we may not see any more is not gone, and a rule that forbids something must not vanish with it.
            self._keep(())
            if self._optional:
                self.last_contact = self._clock()
                self.synced.set()
        return True

    def _list(self) -> str:
        """Read the pages that are left of a list, or all of a new one, and take each over; the resourceVersion to watch from."""
        if self._listing is None:
            self._listing = Listing()
            self.lists += 1
        listing = self._listing
        while True:
            params = {**self._params, "limit": str(PAGE_SIZE), **({"continue": listing.next} if listing.next else {})}
            try:
                page = self._client.request("GET", self._path, params=params, decode=PAGE.decode)
            except ApiError as error:
                if error.status != 410 or not listing.next:
                    raise
                raise Expired("the list's pages expired while they were read") from error
            self.last_contact, self._missing = self._clock(), 0
            for raw in page.items or ():
                if (found := self._decode(bytes(raw))) is not None:
                    listing.keys.add(found[0])
                    # Not by their versions alone: the server computes some fields when it reads, and a restored etcd uses versions
                    # again.
                    if self._objects.get(found[0]) != found[1]:
                        self._apply(*found)
            if not listing.came(page.metadata.continue_):
                break
            if self._stopped.is_set():
                return ""
        if self.problem is not None:
            self._report(None)
        self._keep(listing.keys)
        self._listing = None
        self.settled.set()
        self.synced.set()
        return page.metadata.resource_version

    def _check(self, version: str) -> None:
        """Raise WentBack if the server is at an older version than this one."""
        page = self._client.request("GET", self._path, params={**self._params, "limit": "1"}, decode=PAGE.decode)
        if is_older(page.metadata.resource_version, version):
            raise WentBack(f"it is at version {page.metadata.resource_version}, and was at {version}")

    def _keep(self, keys: Collection[Key]) -> None:
        """Forget all objects but these, which a whole list had: the others were deleted unseen."""
        for key in [key for key in self._objects if key not in keys]:
            self._apply(key, None)

    def _follow(self, version: str) -> str:
        """Watch from `version` until the server ends it; the version to resume from."""
        began, seconds = self._clock(), int(self._uniform(*WATCH_SECONDS))
        params = {
            **self._params,
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        self.watches += 1
        try:
            self._watch = self._client.watch(self._path, params, read_timeout=seconds + OVERDUE_SECONDS)
        except ApiError as error:
            if error.status == 410:
                raise Expired(error.message) from error
            raise
        self._missing = 0
        if self.problem is not None:
            self._report(None)
        try:
            for reached in self._events(self._watch, version):
                version = reached
                if self._stopped.is_set():
                    break
        finally:
            with contextlib.suppress(ClientError):
                self._watch.close()
        if self._clock() - began >= seconds:
            # It went its whole way: whatever happened until now was in it.
            self.last_contact = self._clock()
        return version

    def _events(self, watch: Watch, version: str) -> Iterator[str]:
        """Apply each event, yielding the resourceVersion that it brings us to."""
        began, deleted = version, dict[Key, str]()
        try:
            for line in watch:
                event = EVENT.decode(line)
                self.last_contact = self._clock()
                if event.type == "ERROR":
                    raise watch_error(event, version)
                try:
                    identity = IDENTITY.decode(event.object).metadata
                except UNREADABLE as error:
                    # A list would leave it out as well.
                    self._malformed("", error)
                    continue
                reached = identity.resource_version or version
                if is_older(reached, began):
                    raise WentBack(f"it sent version {reached:.30} to a watch from {began}")
                # Without a version to begin with, all objects come first, in any order.
                if began in ("", "0") or may_follow(reached, version):
                    version = reached
                if event.type != "BOOKMARK":
                    self._on_event(event, identity, began, deleted)
                yield version
        except ApiUnreachable as error:
            raise Broken(str(error), version) from error
        except EventTooLarge as error:
            raise TooLarge(str(error)) from error
        except UNREADABLE as error:
            raise Broken(f"an event cannot be read: {error}", version, refused=True) from error

    def _on_event(self, event: WatchEvent, identity: Meta, began: str, deleted: dict[Key, str]) -> None:
        """Apply an event, unless it is older than what is known; `deleted` has what went away since the watch `began`."""
        key = (identity.namespace, identity.name)
        known = self._objects.get(key)
        if is_older(identity.resource_version, known[0] if known is not None else deleted.get(key, began)):
            return
        if event.type == "DELETED":
            deleted[key] = identity.resource_version
            self._apply(key, None)
            return
        found = self._decode(bytes(event.object))
        if found is None:
            # It is not what we knew either.
            deleted[key] = identity.resource_version
            self._apply(key, None)
        elif found[1] != known:
            self._apply(key, found[1])

    def _decode(self, raw: bytes) -> tuple[Key, tuple[str, T]] | None:
        try:
            meta = identity_of(raw)
            return (meta.namespace, meta.name), (meta.resource_version, self._read(raw))
        except (*UNREADABLE, TypeError, ValueError) as error:
            name = ""
            with contextlib.suppress(*UNREADABLE):
                meta = IDENTITY.decode(raw).metadata
                name = f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name
            self._malformed(name, error)
            return None

    def _malformed(self, name: str, error: Exception) -> None:
        self.malformed += 1
        log.warning("skipping an object that cannot be decoded", resource=self.name, object=name, error=str(error))

    def _apply(self, key: Key, value: tuple[str, T] | None) -> None:
        old = self._objects.get(key)
        if value is None:
            if old is None:
                return
            del self._objects[key]
        else:
            self._objects[key] = value
        self._on_change(Change(key, old[1] if old else None, value[1] if value else None))
