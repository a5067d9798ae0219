"""Everything that became of some namespaces' streams, write for write, and what must hold of each write by any client."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
from mirrorstream.kube.client import Client

from e2e.testbed.faults.contents import Contents, Source
from e2e.testbed.faults.streams import (
    Identity,
    Key,
    Object,
    condition_of,
    identity,
    is_importable,
    is_pending,
    items_of,
    key_of,
    opted_out,
    spec_tags,
    statuses,
    unwell,
    users_part,
)
from e2e.testbed.interceptor import Exchange
from e2e.testbed.streams import IMAGE_API

STREAMS = f"{IMAGE_API}/imagestreams"


@dataclass(frozen=True)
class Write:
    """A status write of mirrorstream's: what it wrote into, the answer's status, and the stream as it is then."""

    key: Key
    into: Identity
    status: int
    answer: Object | None


@dataclass
class History:
    """What the API server tells, and what was written: by users (`users`, `deleted`) and by mirrorstream (`writes`)."""

    client: Client
    contents: Mapping[str, Contents]
    users: set[Identity] = field(default_factory=set)
    deleted: set[tuple[str, str, str]] = field(default_factory=set)
    """The tags that users deleted or are about to, each with namespace and stream."""
    writes: list[Write] = field(default_factory=list)
    dry_runs: Counter[Key] = field(default_factory=Counter)
    states: dict[Identity, Object] = field(default_factory=dict)
    events: list[tuple[Object | None, Object]] = field(default_factory=list)
    """Each state of a stream, with the one before it."""
    sources: dict[tuple[str, str], set[Source]] = field(default_factory=dict)
    """What each tag imported from, ever, by the stream's uid."""
    followed: set[tuple[str, str]] = field(default_factory=set)
    """The tags that others followed at any time, by the stream's uid."""
    _last: dict[str, Object] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _checked: int = 0
    _unchecked: list[Write] = field(default_factory=list)
    _mistakes: list[BaseException] = field(default_factory=list)

    # Hearing of it.

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch all streams for as long as the context lasts."""
        version = self.client.get(STREAMS)["metadata"]["resourceVersion"]
        params = {"watch": "1", "resourceVersion": version}
        watch = self.client.watch(STREAMS, params, read_timeout=3600)

        def read() -> None:
            try:
                for line in watch:
                    self._take(msgspec.json.decode(line))
            except BaseException as error:  # noqa: BLE001  told by the test's own thread
                self._mistakes.append(error)

        thread = threading.Thread(target=read, name="history")
        thread.start()
        try:
            yield
            assert not self._mistakes, self._mistakes[0]
            assert thread.is_alive(), "the API server ended the watch, so that something may have been missed"
        finally:
            watch.close()
            thread.join(10)

    def _take(self, event: Object) -> None:
        assert event["type"] in ("ADDED", "MODIFIED", "DELETED"), event
        stream = event["object"]
        if stream["metadata"]["namespace"] not in self.contents or event["type"] == "DELETED":
            return
        uid = stream["metadata"]["uid"]
        contents = self.contents[stream["metadata"]["namespace"]]
        with self._lock:
            before = self._last.get(uid)
            self._last[uid] = self.states[identity(stream)] = stream
            for name, tag in spec_tags(stream).items():
                source = (tag.get("from") or {}).get("name", "")
                if is_importable(tag):
                    self.sources.setdefault((uid, name), set()).add(contents.source(source))
                else:
                    self.followed.add((uid, source.rpartition(":")[2]))
            self.events.append((before, stream))

    def recorder(self, pause: Callable[[], None]) -> Callable[[Exchange], None]:
        """For the interceptor: notes status writes and dry runs of mirrorstream's, and pauses before and after each."""

        def act(exchange: Exchange) -> None:
            pause()
            answer = exchange.forward()
            data = exchange.read(answer)
            self._note(exchange, answer.status, data)
            pause()
            exchange.answer(answer.status, data)

        return act

    def _note(self, exchange: Exchange, status: int, data: bytes) -> None:
        body = exchange.json()
        if exchange.verb != "update":
            with self._lock:
                self.dry_runs[exchange.path.split("/")[-2], body["metadata"]["name"]] += 1
            return
        write = Write(key_of(body), identity(body), status, msgspec.json.decode(data) if status == 200 else None)
        with self._lock:
            self.writes.append(write)
            self._unchecked.append(write)

    # What must hold.

    def problems(self, *, last: bool = False) -> list[str]:
        """What is wrong with anything that has happened since the last call.

        Every user's write must have its answer by now. `last`: all of mirrorstream's have, too.
        """
        with self._lock:
            events, self._checked = self.events[self._checked :], len(self.events)
            known = [write for write in self._unchecked if write.answer is None or identity(write.answer) in self.states]
            late = [write for write in self._unchecked if write not in known]
            self._unchecked = late
        found = [f"no event tells of {write}" for write in late if last]
        for before, stream in events:
            found += [f"{'/'.join(key_of(stream))}: {text}" for text in self._wrong_state(before, stream)]
        for write in known:
            if write.answer is not None:
                found += [f"{'/'.join(write.key)}: mirrorstream {text}" for text in self._wrong_write(write, write.answer)]
        return found

    def _wrong_state(self, before: Object | None, stream: Object) -> Iterator[str]:
        """States that no client may write."""
        if before and users_part(stream) != users_part(before) and not self._by_users(before, stream):
            yield f"no user wrote {users_part(stream)} over {users_part(before)}"
        uid, tags = stream["metadata"]["uid"], spec_tags(stream)
        for name, entry in statuses(stream).items():
            items = items_of(entry)
            for newer, older in itertools.pairwise(items):
                if (newer["image"], newer["dockerImageReference"]) == (older["image"], older["dockerImageReference"]):
                    was = items_of(statuses(before).get(name, {})) if before else []
                    yield f"{name} has twice {newer['image']}: {items}, from {was}"
            if name in tags and is_importable(tags[name]) and items:
                # The platform gives the item of a tag the generation of one that begins to follow it.
                highest = stream["metadata"]["generation"] if (uid, name) in self.followed else tags[name]["generation"]
                if items[0]["generation"] > highest:
                    yield f"{name} has an item of generation {items[0]['generation']}, above {highest}"
            for item in items:
                yield from self._wrong_image(stream, name, item["image"])

    def _by_users(self, before: Object, stream: Object) -> bool:
        if identity(stream) in self.users:
            return True
        old, new = users_part(before), users_part(stream)
        gone = spec_tags(before).keys() - spec_tags(stream).keys()
        rest = [tag for tag in old["spec"]["tags"] if tag["name"] not in gone]
        return all((*key_of(stream), tag) in self.deleted for tag in gone) and new == {**old, "spec": {**old["spec"], "tags": rest}}

    def _wrong_image(self, stream: Object, name: str, image: str) -> Iterator[str]:
        """An image that the tag cannot have got from any source that it ever had."""
        contents = self.contents[stream["metadata"]["namespace"]]
        origin = contents.origin(image)
        if origin is None:
            yield f"{name} has {image}, which nobody ever served"
        elif sources := self.sources.get((stream["metadata"]["uid"], name)):
            tag = spec_tags(stream).get(name)
            if (tag is None or is_importable(tag)) and origin not in sources:
                yield f"{name} has {image} of {origin}, and only ever was of {sources}"

    def _wrong_write(self, write: Write, after: Object) -> Iterator[str]:
        """What mirrorstream may not write."""
        before = self.states.get(write.into)
        if before is None:
            yield f"wrote into a state that never was: {write.into}"
            return
        if identity(before) == identity(after):
            yield "wrote what was there"
        if before["spec"] != after["spec"]:
            yield f"changed the spec {before['spec']} to {after['spec']}"
        if _unversioned(before) != _unversioned(after):
            yield f"changed the metadata {before['metadata']} to {after['metadata']}"
        if opted_out(before):
            yield "wrote into a stream that had opted out"
        if not unwell(before).keys() - unwell(after).keys():
            yield f"healed nothing, {unwell(before)} before and {unwell(after)} after"
        tags, old, new = spec_tags(before), statuses(before), statuses(after)
        for name in old.keys() | new.keys():
            if old.get(name) != new.get(name):
                if name not in new or name not in tags:
                    yield f"touched {name}, which nobody imports"
                elif is_importable(tags[name]):
                    yield from self._wrong_record(before, tags[name], old.get(name, {}), new[name])
                else:
                    yield from _wrong_follower(tags[name], new, items_of(old.get(name, {})), items_of(new[name]))

    def _wrong_record(self, before: Object, tag: Object, old: Object, new: Object) -> Iterator[str]:
        name, was, items = tag["name"], items_of(old), items_of(new)
        contents = self.contents[before["metadata"]["namespace"]]
        if name not in unwell(before):
            yield f"recorded {name}, which was well"
        if condition_of(new) or is_pending(tag, new):
            yield f"left {name} unwell: {new}"
        added = len(items) - len(was)
        if added not in (0, 1) or items[added + 1 :] != was[1:] or (added and was and items[1] != was[0]):
            yield f"changed the history of {name} from {was} to {items}"
        elif not added and any(items[0][field] != was[0][field] for field in ("image", "created")):
            yield f"changed the newest item of {name} from {was[0]} to {items[0]}"
        elif added and (items[0]["generation"] != tag["generation"]):
            yield f"recorded {items[0]} for {tag}"
        if contents.origin(items[0]["image"]) != contents.source(tag["from"]["name"]):
            yield f"recorded an image of {contents.origin(items[0]['image'])} for {tag}"


def _unversioned(stream: Object) -> Object:
    return {key: value for key, value in stream["metadata"].items() if key not in ("resourceVersion", "managedFields")}


def _wrong_follower(tag: Object, entries: Mapping[str, Object], was: list[Object], items: list[Object]) -> Iterator[str]:
    """A tag that follows another of its stream gets what that one got."""
    source, name = tag["from"], tag["name"]
    followed = items_of(entries.get(source["name"], {}))
    if source["kind"] != "ImageStreamTag" or not followed:
        yield f"touched {name}, which is nothing that follows"
    elif items[0]["image"] != followed[0]["image"] or items[-len(was) :][1:] != was[1:]:
        yield f"changed {name} from {was} to {items}, when {source['name']} became {followed[0]}"
