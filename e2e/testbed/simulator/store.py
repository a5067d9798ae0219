"""Objects in memory with etcd's rules: one counter of versions, optimistic concurrency, and a log that watches resume from."""

import bisect
import collections
import copy
import datetime
import itertools
import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from e2e.testbed.simulator import errors

Object = dict[str, Any]
FIRST_VERSION = 1000
"""Well above 1, so that a resourceVersion of 1 is one that was compacted away."""


def timestamp() -> str:
    """The present second, as metadata has it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Kind:
    """What identifies a kind of objects."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`group/version`, or the version of the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True)
class Event:
    """One change; `object` is the new state, or, for DELETED, the last one with the deletion's version."""

    version: int
    type: str
    resource: Kind
    object: Object
    before: Object | None


@dataclass(eq=False)
class Subscription:
    """A queue of the events of one resource after a version; None in it means that the events before were dropped."""

    resource: Kind
    since: int
    events: "queue.SimpleQueue[Event | None]" = field(default_factory=queue.SimpleQueue)


class Store:
    """All objects. What is stored is never changed in place: every write puts a new object."""

    def __init__(self, log_length: int = 20000) -> None:
        self.lock = threading.RLock()
        self._objects: dict[Kind, dict[tuple[str, str], Object]] = collections.defaultdict(dict)
        self._keys: dict[Kind, list[tuple[str, str]]] = collections.defaultdict(list)
        """The keys of the objects in their order: a page of 100,000 objects must not sort them all."""
        self._log: collections.deque[Event] = collections.deque(maxlen=log_length)
        self._subscriptions: set[Subscription] = set()
        self.version = FIRST_VERSION
        self._compacted = FIRST_VERSION
        self._backup: tuple[int, dict[Kind, dict[tuple[str, str], Object]]] | None = None

    def get(self, resource: Kind, namespace: str, name: str) -> Object:
        """The stored object, not to be changed. Raises a 404."""
        found = self._objects[resource].get((namespace, name))
        if found is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return found

    def may_create(self, resource: Kind, user: str, groups: tuple[str, ...]) -> bool:
        """Whether somebody may create objects of a cluster-wide kind: everybody, where no kube-apiserver knows better."""
        return True

    def page(
        self, resource: Kind, namespace: str, limit: int, version: int | None = None, after: tuple[str, str] = ("", "")
    ) -> tuple[int, list[Object], int]:
        """The objects that follow the key `after`, as they were at `version` (None: now); at most `limit`, if that is not 0.

        Returns the version, the objects, and how many more there are. Raises a 410.
        """
        with self.lock:
            keys, objects = self._keys_after(resource, namespace, after), self._objects[resource]
            undone: dict[tuple[str, str], Object] = {}
            if version is None:
                version = self.version
            elif self.is_compacted(version):
                raise errors.expired(version, self.version)
            for event in itertools.takewhile(lambda event: event.version > version, reversed(self._log)):
                metadata = event.object["metadata"]
                key = (metadata.get("namespace", ""), metadata["name"])
                if event.resource != resource or key <= after or namespace not in ("", key[0]):
                    continue
                undone.pop(key, None)
                position = bisect.bisect_left(keys, key)
                if position < len(keys) and keys[position] == key:
                    del keys[position]
                if event.before is not None:
                    undone[key] = event.before
                    keys.insert(position, key)
            chosen = keys[:limit] if limit else keys
            return version, [undone[key] if key in undone else objects[key] for key in chosen], len(keys) - len(chosen)

    def _keys_after(self, resource: Kind, namespace: str, after: tuple[str, str]) -> list[tuple[str, str]]:
        keys = self._keys[resource]
        first = bisect.bisect_right(keys, max(after, (namespace, "")))
        end = bisect.bisect_left(keys, (f"{namespace}\0", "")) if namespace else len(keys)
        return keys[first:end]

    def list(self, resource: Kind, namespace: str = "") -> tuple[int, list[Object]]:
        """The version of the moment and the objects in the order of their keys."""
        return self.page(resource, namespace, 0)[:2]

    def create(self, resource: Kind, namespace: str, item: Object) -> Object:
        """Store a new object, which gets its identity here. Raises a 409."""
        with self.lock:
            metadata = item["metadata"]
            name = metadata["name"]
            if (namespace, name) in self._objects[resource]:
                raise errors.already_exists(resource.group, resource.plural, name)
            metadata["uid"] = str(uuid.uuid4())
            metadata["creationTimestamp"] = timestamp()
            if resource.namespaced:
                metadata["namespace"] = namespace
            return self._put("ADDED", resource, namespace, item, None)

    def update(self, resource: Kind, namespace: str, name: str, change: Callable[[Object], Object]) -> Object:
        """Replace an object by what `change` makes of (a copy of) it; an equal result writes nothing. Raises a 404."""
        with self.lock:
            old = self.get(resource, namespace, name)
            new = change(copy.deepcopy(old))
            for key in ("uid", "creationTimestamp", "resourceVersion", "namespace"):
                if key in old["metadata"]:
                    new["metadata"][key] = old["metadata"][key]
            if new == old:
                return old
            if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
                return self.delete(resource, namespace, name)
            return self._put("MODIFIED", resource, namespace, new, old)

    def delete(self, resource: Kind, namespace: str, name: str, uid: str | None = None) -> Object:
        """Remove an object, at once. Raises a 404, or a 409 for another uid."""
        with self.lock:
            old = self.get(resource, namespace, name)
            if uid and old["metadata"]["uid"] != uid:
                raise errors.conflict(resource.group, resource.plural, name, f"Precondition failed: UID in precondition: {uid}")
            del self._objects[resource][namespace, name]
            del self._keys[resource][bisect.bisect_left(self._keys[resource], (namespace, name))]
            self.version += 1
            gone = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}
            self._publish(Event(self.version, "DELETED", resource, gone, old))
            return old

    def _put(self, kind: str, resource: Kind, namespace: str, item: Object, old: Object | None) -> Object:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        key = (namespace, item["metadata"]["name"])
        if key not in self._objects[resource]:
            bisect.insort(self._keys[resource], key)
        self._objects[resource][key] = item
        self._publish(Event(self.version, kind, resource, item, old))
        return item

    def _publish(self, event: Event) -> None:
        if len(self._log) == self._log.maxlen:
            self._compacted = self._log[0].version
        self._log.append(event)
        for subscription in self._subscriptions:
            if subscription.resource == event.resource and event.version > subscription.since:
                subscription.events.put(event)

    def compact(self) -> None:
        """Forget the log: watches and pages from before get a 410."""
        with self.lock:
            self._log.clear()
            self._compacted = self.version

    def back_up(self) -> None:
        """Remember everything as it is now."""
        with self.lock:
            self._backup = self.version, {resource: dict(items) for resource, items in self._objects.items()}

    def restore(self) -> None:
        """Go back to the backup, its version included; all watches end, and one from a later version gets nothing until then."""
        with self.lock:
            assert self._backup, "there is no backup"
            self.version, objects = self._backup
            self._objects = collections.defaultdict(dict, {resource: dict(items) for resource, items in objects.items()})
            self._keys = collections.defaultdict(list, {resource: sorted(items) for resource, items in objects.items()})
            self.compact()
            self.drop_watches()

    def is_compacted(self, version: int) -> bool:
        """Whether what happened since `version` is no longer known."""
        return version < self._compacted

    def drop_watches(self) -> None:
        """End every running watch."""
        with self.lock:
            for subscription in self._subscriptions:
                subscription.events.put(None)

    def subscribe(self, resource: Kind, since: int | None) -> Subscription:
        """Everything that happens to `resource` after `since` (None: to what exists now, then from now on).

        Raises a 410 if that is no longer known.
        """
        with self.lock:
            subscription = Subscription(resource, since or 0)
            if since is None:
                for item in self.list(resource)[1]:
                    subscription.events.put(Event(self.version, "ADDED", resource, item, None))
            else:
                if self.is_compacted(since):
                    raise errors.expired(since, self._compacted)
                for event in self._log:
                    if event.version > since and event.resource == resource:
                        subscription.events.put(event)
            self._subscriptions.add(subscription)
            return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        with self.lock:
            self._subscriptions.discard(subscription)

    def contents(self, namespace: str) -> Iterator[tuple[Kind, str]]:
        """Every object of a namespace, for its deletion."""
        with self.lock:
            found = [(resource, name) for resource, items in self._objects.items() for ns, name in items if ns == namespace]
        yield from found
