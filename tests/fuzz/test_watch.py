"""Watches: whatever a stream of events looks like, in the end the index is what a fresh list says, without a tight loop."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from mirrorstream.kube.client import UNREADABLE, ApiError, ApiUnreachable, Watch, _api_error
from mirrorstream.kube.informer import Change, Informer

from e2e.testbed.support.waiting import wait_for
from tests.fuzz.bounds import LARGEST, examples, grows_linearly
from tests.fuzz.corpus import raw_cases
from tests.fuzz.values import json_values
from tests.kube.conftest import Cluster, Request, Script, Thing, client, informers, names, script, thing

__all__ = ["client", "informers", "script"]  # fixtures
Object = dict[str, Any]


class Chunks:
    """A response as Watch uses it."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def stream(self, amount: int) -> Iterator[bytes]:
        """The chunks, however large."""
        yield from self._chunks

    def close(self) -> None:
        """Nothing to do."""

    shutdown = close


class Server:
    """A cluster with a history; each watch is answered with what `damage` makes of the events that are asked for, then honestly."""

    def __init__(self, history: list[Object], damage: list[Any]) -> None:
        self.history, self.damage = history, list(damage)
        self.lists = self.watches = 0
        self.over: list[bool] = []

    def state(self, version: int) -> dict[str, Object]:
        """The objects as they were at a version."""
        found: dict[str, Object] = {}
        for event in self.history:
            metadata = event["object"]["metadata"]
            if int(metadata["resourceVersion"]) <= version:
                if event["type"] == "DELETED":
                    found.pop(metadata["name"], None)
                else:
                    found[metadata["name"]] = event["object"]
        return found

    @property
    def last(self) -> int:
        """The version that the cluster is at."""
        return int(self.history[-1]["object"]["metadata"]["resourceVersion"]) if self.history else 10

    def request(self, method: str, path: str, *, params: Object, decode: Any) -> Any:
        """A list: at first of an early version, so that there is something to watch."""
        self.lists += 1
        version = 10 if self.lists == 1 else self.last
        items = list(self.state(version).values())
        return decode(json.dumps({"metadata": {"resourceVersion": str(version)}, "items": items}).encode())

    def watch(self, path: str, params: Object, *, read_timeout: float) -> Watch:
        """A watch."""
        self.watches += 1
        version = int(params["resourceVersion"])
        assert version <= self.last, "it resumes from what has been"
        events = [event for event in self.history if int(event["object"]["metadata"]["resourceVersion"]) > version]
        lines = [json.dumps(event).encode() + b"\n" for event in events]
        if self.damage:
            chunks = _damaged(lines, self.damage.pop(0), self.last)
        else:
            chunks = lines
            self.over.append(True)
        return Watch(Chunks(chunks), "watch")  # type: ignore[arg-type]


JUNK = [
    b"\n", b"null\n", b"[]\n", b"{}\n", b'"x"\n', b"\xff\xfe\n", b"{" * 5000 + b"\n", b"[" * 200_000 + b"\n", b"<html>\n",
    b'{"type":"MODIFIED"}\n', b'{"type":1,"object":{}}\n', b'{"type":"MODIFIED","object":null}\n',
    b'{"type":"ADDED","object":[1]}\n',
    b'{"type":"MODIFIED","object":{"metadata":{"name":7}}}\n', b'{"type":"MODIFIED","object":{"metadata":null}}\n',
    b'{"type":"ERROR","object":null}\n', b'{"type":"ERROR","object":{"code":"x"}}\n', b'{"type":"ERROR","object":{"code":500}}\n',
    b'{"type":"ERROR","object":{"code":410}}\n', b'{"type":"MODIFIED","object":{"x":"\xff","metadata":{}}}\n',
    b'{"type":"BOOKMARK","object":{}}\n', b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":""}}}\n',
    b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1"}}}\n', b'\r\n', b" \n",
]  # fmt: skip
damages = st.tuples(
    st.sampled_from(["cut", "merge", "twice", "swap", "replay", "junk", "last-junk", "nothing", "bookmarks", "small", "one"]),
    st.integers(0, 1000),
    st.sampled_from(JUNK),
)


def _damaged(lines: list[bytes], damage: tuple[str, int, bytes], last: int) -> list[bytes]:
    """The chunks of a watch after one kind of damage that loses no event in silence."""
    kind, number, junk = damage
    place = number % (len(lines) + 1)
    whole = b"".join(lines)
    match kind:
        case "cut":
            return [whole[: number % (len(whole) + 1)]]
        case "merge":
            return [b"".join(lines).replace(b"}\n{", b"}{", 1)]
        case "twice":
            return [line for line in lines for _ in range(2)]
        case "swap":
            return [*lines[:place][:-2], *lines[:place][-2:][::-1], *lines[place:]]
        case "replay":
            return [*lines[:place], *lines[:place][::-1], *lines[place:]]
        case "junk":
            return [*lines[:place], junk, *lines[place:]]
        case "last-junk":
            return [*lines, junk[:-1]]
        case "bookmarks":
            bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(last)}}}
            return [*lines, *[json.dumps(bookmark).encode() + b"\n"] * 5]
        case "small":
            return [whole[n : n + 7] for n in range(0, len(whole), 7)]
        case "one":
            return [whole]
    return []


@st.composite
def histories(draw: st.DrawFn) -> list[Object]:
    """What happened in a cluster: objects that come, change and go, by name."""
    there: set[str] = set()
    found = []
    for version in range(1, draw(st.integers(1, 30))):
        name = draw(st.sampled_from("abc"))
        kind = "ADDED" if name not in there else draw(st.sampled_from(["MODIFIED", "DELETED"]))
        (there.discard if kind == "DELETED" else there.add)(name)
        found.append({"type": kind, "object": thing(name, version, version)})
    return found


def run_informer(server: Server) -> tuple[Informer[Thing], list[float], list[Change[Thing]]]:
    """An informer that ran in this thread until the server had answered honestly once; the waits that it asked for."""
    waits: list[float] = []
    changes: list[Change[Thing]] = []

    def wait(event: threading.Event, seconds: float) -> bool:
        waits.append(seconds)
        assert len(waits) < 100, "it never comes to an end"
        return bool(server.over) or event.is_set()

    read = msgspec.json.Decoder(Thing).decode
    informer = Informer(server, "/things", read, changes.append, name="things", wait=wait, uniform=lambda low, high: high)  # type: ignore[arg-type]
    informer._run()
    return informer, waits, changes


def check(server: Server) -> None:
    """The index, and what handlers were told, are what a fresh list says; between two watches there is a wait."""
    informer, waits, changes = run_informer(server)
    expected = {name: item["value"] for name, item in server.state(server.last).items()}
    assert names(informer) == expected
    told: dict[str, int] = {}
    for change in changes:
        assert (change.old.value if change.old else None) == told.get(change.key[1])
        told.pop(change.key[1], None)
        if change.new:
            told[change.key[1]] = change.new.value
    assert told == expected
    # Only the first of several 410s is answered at once.
    assert server.watches <= len(waits) + 1 + server.lists
    assert server.lists <= server.watches


@given(histories(), st.lists(damages, max_size=4))
@example([{"type": "ADDED", "object": thing("a", 11, 1)}, {"type": "DELETED", "object": thing("a", 12)}], [("replay", 2, b"")])
@examples(250)
def test_the_index_is_what_a_fresh_list_says(history: list[Object], damage: list[Any]) -> None:
    """An event that came late once brought back what had been deleted; junk once was asked for again and again."""
    check(Server(history, damage))


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:50]))
def test_a_stream_that_always_has_junk_does_not_stop_the_index(junk: bytes) -> None:
    """A server that sends the same event at each resume is asked for a list in the end."""
    history = [{"type": "ADDED", "object": thing("a", 11, 1)}, {"type": "ADDED", "object": thing("b", 12, 2)}]
    check(Server(history, [("junk", 0, junk)] * 5))


@given(json_values, st.sampled_from(["type", "object", "metadata", "name", "namespace", "resourceVersion", "value"]))
@examples(300)
def test_any_value_in_any_place_of_an_event(value: Any, place: str) -> None:
    """One that cannot be read is left out, as a list would, or the watch begins again. Without a name it once was an object."""
    assume(value not in ("a", "b"))
    line = json.dumps({"type": "MODIFIED", "object": thing("z", 20, 3)}).encode()
    damaged = (
        line.replace(b'"%s": ' % place.encode(), b'"%s": %s, "other": ' % (place.encode(), json.dumps(value).encode())) + b"\n"
    )
    server = Server(
        [{"type": "ADDED", "object": thing("a", 11, 1)}, {"type": "ADDED", "object": thing("b", 12, 2)}], [("junk", 0, damaged)]
    )
    informer, _, _ = run_informer(server)
    assert {"a": 1, "b": 2}.items() <= names(informer).items()
    assert informer.count() <= 3


@pytest.mark.parametrize("raw", raw_cases("frames"))
def test_what_once_broke_a_watch(raw: bytes) -> None:
    """Each file is a history, and what a watch made of it."""
    document = json.loads(raw)
    server = Server(document["history"], [("nothing", 0, b"")])
    first = server.watch

    def damaged(path: str, params: Object, *, read_timeout: float) -> Watch:
        watch = first(path, params, read_timeout=read_timeout)
        lines = [json.dumps(event).encode() + b"\n" for event in document.pop("watch", [])]
        return Watch(Chunks(lines), "watch") if lines else watch  # type: ignore[arg-type]

    server.watch = damaged  # type: ignore[method-assign]
    check(server)
    assert server.lists == 1, "what it knows is enough"


def test_through_a_socket(script: Script, client: Any, informers: Any) -> None:
    """All kinds of junk one after the other, in chunks of every size, on a real connection; then what is true."""
    cluster = Cluster(script, thing("a", 5))

    def send(junk: bytes) -> Any:
        def behave(request: Request) -> None:
            request.stream(json.dumps({"type": "ADDED", "object": thing("b", 11, 1)})[:-9].encode())
            request.event(b'"value":1}}\n'[-9:])
            for start in range(0, min(len(junk), 3000), 1000):
                request.event(junk[start : start + 1000])
            request.finish_stream()

        return behave

    def honest(request: Request) -> None:
        request.stream({"type": "ADDED", "object": thing("c", 1000, 3)})
        script.ended.wait(600)

    cluster.items.append(thing("b", 11, 1))
    cluster.watches = [*map(send, JUNK), honest]
    informer, _ = informers(client)
    wait_for("it agrees", lambda: names(informer) == {"a": 0, "b": 1, "c": 3})
    assert informer._thread is not None
    assert informer._thread.is_alive()
    assert len(script.requests) <= 2 * len(JUNK) + 4


FRAMES = {
    "one-event-in-small-chunks": lambda size: [b"x" * 16] * (size // 16) + [b"\n"],
    "one-event-in-large-chunks": lambda size: [b"x" * 4096] * (size // 4096) + [b"\n"],
    "bytes": lambda size: [b"x"] * size + [b"\n"],
    "empty-lines": lambda size: [b"\n" * size],
    "short-lines": lambda size: [b"{}\n" * (size // 3)],
    "chunks-of-nothing": lambda size: [b""] * size + [b"\n"],
}


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_frames_take_linear_time(make: Any) -> None:
    """An event of megabytes in chunks of a few bytes once took quadratic time."""
    grows_linearly(make, lambda chunks: list(Watch(Chunks(chunks), "watch")), largest=4 * LARGEST)  # type: ignore[arg-type]


@given(
    st.one_of(st.binary(max_size=50), json_values.map(lambda value: json.dumps({"kind": "Status", "details": value}).encode())),
    st.one_of(
        st.sampled_from(["nan", "inf", "-1", "1e999", "²", "", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 5000, "0.5"]),
        st.text(max_size=5),
    ),
)
@example(b"[" * 200_000, "nan")
@example(b'{"kind":"Status","details":{"retryAfterSeconds":-5}}', "")
@examples(300)
def test_any_answer_is_an_error_that_can_be_obeyed(data: bytes, retry_after: str) -> None:
    """`nan`, `-1` and a body of brackets once raised ValueError and RecursionError."""
    error = _api_error(503, data, {"Retry-After": retry_after})
    assert isinstance(error, ApiError)
    assert error.retry_after is None or 0 <= error.retry_after < float("inf")


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a": "\xff"}', b"<html>", b'{"a"'], ids=["deep", "utf-8", "html", "cut"])
def test_an_answer_that_cannot_be_read_is_no_answer(script: Script, client: Any, body: bytes) -> None:
    """Callers know ApiUnreachable."""
    script.handle = lambda request: request.answer(200, body)
    with pytest.raises(ApiUnreachable):
        client.get("/x")
    with pytest.raises(UNREADABLE):
        msgspec.json.decode(body)
