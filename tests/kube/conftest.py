"""A scripted API server: each request is answered by a function of the test. Informers of things on it."""

import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
import yaml
from mirrorstream.kube.client import Client, load_client
from mirrorstream.kube.informer import Change, Informer

from e2e.testbed.support.certificates import Authority

Object = dict[str, Any]
Handle = Callable[["Request"], None]


class Request(http.server.BaseHTTPRequestHandler):
    """One request, with ways to answer it."""

    protocol_version = "HTTP/1.1"
    script: "Script"

    def do_GET(self) -> None:
        """Hand the request to the script."""
        length = int(self.headers.get("Content-Length") or 0)
        self.body = json.loads(self.rfile.read(length)) if length else None
        self.script.requests.append((self.command, self.path))
        self.script.handle(self)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  http.server's names

    def answer(self, code: int, value: Any, **headers: str) -> None:
        """A JSON answer."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        for key, text in headers.items():
            self.send_header(key.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, code: int, reason: str, message: str = "", **headers: str) -> None:
        """A Status."""
        self.answer(code, {"kind": "Status", "code": code, "reason": reason, "message": message}, **headers)

    def stream(self, *events: Any) -> None:
        """The beginning of a watch."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            self.event(event)

    def event(self, event: Any) -> None:
        """One event of a watch."""
        data = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def finish_stream(self) -> None:
        """The end of a watch."""
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Say nothing."""


class Script:
    """The server; set `handle`."""

    def __init__(self) -> None:
        self.handle: Handle = lambda request: request.answer(200, {})
        self.requests: list[tuple[str, str]] = []
        self.ended = threading.Event()
        handler = type("Bound", (Request,), {"script": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def kubeconfig(self, path: Path, **user: Any) -> Path:
        """Write a kubeconfig for it."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        path.write_text(yaml.safe_dump(document))
        return path


def secured(authority: Authority) -> Script:
    """An API server that speaks TLS, with a certificate of this authority's."""
    pair = authority.issue("server", hosts=("localhost",))
    script = Script()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    script.server.socket = context.wrap_socket(script.server.socket, server_side=True, do_handshake_on_connect=False)
    return script


@pytest.fixture
def script() -> Iterator[Script]:
    """The scripted server."""
    found = Script()
    yield found
    found.ended.set()
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def client(script: Script, tmp_path: Path) -> Client:
    """A client of it that does not sleep."""
    found = load_client(str(script.kubeconfig(tmp_path / "kubeconfig")), in_cluster=False)
    found._sleep = lambda seconds: None
    return found


class Thing(msgspec.Struct):
    """What is kept of an object."""

    metadata: dict[str, Any]
    value: int = 0


def thing(name: str, version: int, value: Any = 0) -> Object:
    """An object."""
    return {"metadata": {"name": name, "namespace": "ns", "resourceVersion": str(version)}, "value": value}


class Cluster:
    """A script for lists and watches: `watches` says what each watch does, one after another; then they stay silent."""

    def __init__(self, script: Script, *items: Object, version: int = 10) -> None:
        self.script, self.items, self.version = script, list(items), version
        self.watches: list[Callable[[Request], None]] = []
        self.lists: list[Callable[[Request], None]] = []
        script.handle = self.handle

    def handle(self, request: Request) -> None:
        """Answer a list or a watch."""
        query = parse_qs(urlsplit(request.path).query)
        if "watch" in query:
            behave = self.watches.pop(0) if self.watches else self.silent
        else:
            behave = self.lists.pop(0) if self.lists else self.whole
        behave(request)

    def whole(self, request: Request) -> None:
        """A list."""
        request.answer(200, {"metadata": {"resourceVersion": str(self.version)}, "items": self.items})

    def silent(self, request: Request) -> None:
        """A watch without events."""
        request.stream()
        self.script.ended.wait(600)

    def count(self, watch: bool) -> int:
        """How many watches or lists were asked for."""
        return sum(("watch=1" in path) is watch for _, path in self.script.requests)


@pytest.fixture
def informers() -> Any:
    """Make informers that are stopped at the end and hardly wait."""
    made: list[Informer[Thing]] = []

    def make(client: Client, **more: Any) -> tuple[Informer[Thing], list[Change[Thing]]]:
        changes: list[Change[Thing]] = []
        read = msgspec.json.Decoder(Thing).decode
        more.setdefault("wait", lambda event, seconds: event.wait(min(seconds, 0.01)))
        informer = Informer(client, "/things", read, changes.append, name="things", **more)
        made.append(informer)
        informer.start()
        return informer, changes

    yield make
    for informer in made:
        informer.stop()


def names(informer: Informer[Thing]) -> dict[str, int]:
    """What it knows."""
    return {item.metadata["name"]: item.value for item in informer.objects()}
