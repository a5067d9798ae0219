"""A small registry for tests and the demo: it serves what is put into it, and fails in each way that a test asks for."""

import base64
import http.server
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from e2e.testbed.registries.answers import BLOBS, MANIFESTS, PING, TOKEN, Answer, Answers
from e2e.testbed.registries.store import OCI, Base, Store, digest_of
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.serving import EndableServer


@dataclass(frozen=True)
class Failure:
    """How requests fail.

    `status` with an error `code`; `html`: a proxy's page; `wrong_digest`: other content than the digest says; `seconds`: a wait
    before the answer; `close`: the connection is cut; `redirect`: to the same place, without end;
    `redirect_to`: to the same path at another registry (`http://host:port`). `flapping`: only every other so many seconds, and
    not in between. `answers`: what is answered at single steps of a pull; all others are served.
    """

    status: int = 0
    code: str = "UNKNOWN"
    html: bool = False
    wrong_digest: bool = False
    seconds: float = 0
    close: bool = False
    redirect: bool = False
    redirect_to: str = ""
    flapping: float = 0
    answers: Answers = field(default_factory=dict)

    def is_now(self, seconds: float) -> bool:
        """Whether requests fail at this time (monotonic)."""
        return not self.flapping or int(seconds / self.flapping) % 2 == 0


FAILURES = {
    "unauthorized": Failure(401, "UNAUTHORIZED"),
    "forbidden": Failure(403, "DENIED"),
    "broken": Failure(500),
    "throttled": Failure(429, "TOOMANYREQUESTS"),
    "garbage": Failure(html=True),
    "wrongdigest": Failure(wrong_digest=True),
}
"""The ways of failing that recordings have names for."""


class Registry:
    """A registry on a port of 127.0.0.1; a context manager that serves it.

    `failure` holds for all requests but `/v2/`; `failures` for single repositories, by name. `credentials` asks for Basic
    authentication. A `writable` one takes what clients push.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        failure: Failure | None = None,
        credentials: tuple[str, str] | None = None,
        context: ssl.SSLContext | None = None,
        base: Base | None = None,
        writable: bool = False,
    ) -> None:
        self.store = Store(base)
        self.writable = writable
        self.uploads: dict[str, bytearray] = {}
        self.failure = failure
        self.failures: dict[str, Failure] = {}
        self.credentials = credentials
        self.requests: Counter[str] = Counter()
        self.stopping = threading.Event()
        registry = self

        class Bound(_Handler):
            owner = registry

        self._server = EndableServer(("127.0.0.1", port or free_port()), Bound)
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    @property
    def host(self) -> str:
        """`localhost:PORT`."""
        return f"localhost:{self._server.server_address[1]}"

    def put(self, repository: str, tag: str | None, kind: str = "docker", seed: str = "") -> str:
        """Put an image into the store; its digest."""
        return self.store.put(repository, tag, kind, seed)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.end()


class SilentPort:
    """A port whose packets go nowhere: its backlog is full, so a connection is never made."""

    def __init__(self, port: int = 0) -> None:
        self._sockets = [socket.socket() for _ in range(5)]
        self._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sockets[0].bind(("127.0.0.1", port or free_port()))
        self._sockets[0].listen(0)
        self.host = f"localhost:{self._sockets[0].getsockname()[1]}"
        for waiting in self._sockets[1:]:
            waiting.setblocking(False)
            waiting.connect_ex(self._sockets[0].getsockname())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for held in self._sockets:
            held.close()


class DeadPort:
    """A port that refuses connections for as long as this lives: it is bound, and nothing listens."""

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port or free_port()))
        self.host = f"localhost:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    owner: Registry

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Say nothing."""

    def do_GET(self) -> None:
        """Serve one request."""
        url = urlsplit(self.path)
        owner = self.owner
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags)/([^/]+)", url.path)
        if answer := self._answer_instead(match, url.path):
            self._give(answer)
            return
        if url.path in ("/v2/", "/v2") and not (owner.failure and owner.failure.status == 401):
            if not self._allowed():
                self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="test"'})
            else:
                self._answer(200, b"{}")
            return
        repository = match[1] if match else ""
        owner.requests[repository] += 1
        failure = owner.failures.get(repository) or owner.failure
        if failure and not failure.is_now(time.monotonic()):
            failure = None
        if failure and self._failed(failure):
            return
        if not self._allowed():
            self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="test"'})
        elif not match:
            self._error(404, "UNSUPPORTED")
        elif match[2] == "manifests":
            self._manifest(repository, match[3], corrupt=bool(failure and failure.wrong_digest))
        elif match[2] == "blobs":
            data = owner.store.blobs.get(match[3])
            self._error(404, "BLOB_UNKNOWN") if data is None else self._answer(200, data, "application/octet-stream")
        else:
            self._tags(repository, parse_qs(url.query))

    do_HEAD = do_GET  # noqa: N815  http.server's name

    def do_POST(self) -> None:
        """Take a part of a push, as the distribution API defines it: an upload begins, goes on and ends, then the manifest."""
        owner, url, body = self.owner, urlsplit(self.path), self._body()
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs/uploads)/([^/]*)", url.path)
        if not match or not owner.writable:
            self._error(405, "UNSUPPORTED")
        elif not self._allowed():
            self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="test"'})
        elif match[2] == "manifests":
            self._take_manifest(match[1], match[3], body)
        else:
            self._take_blob(match[1], match[3], body, parse_qs(url.query).get("digest", [""])[0])

    do_PATCH = do_PUT = do_POST  # noqa: N815  http.server's names

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _take_blob(self, repository: str, upload: str, body: bytes, digest: str) -> None:
        uploads = self.owner.uploads
        upload = upload or uuid4().hex
        data = uploads.setdefault(upload, bytearray())
        data += body
        location = {"Location": f"/v2/{repository}/blobs/uploads/{upload}", "Range": f"0-{max(len(data) - 1, 0)}"}
        if self.command != "PUT":
            self._answer(202, b"", headers=location)
            return
        content = bytes(uploads.pop(upload))
        if digest_of(content) != digest:
            self._error(400, "DIGEST_INVALID")
            return
        self.owner.store.blobs[digest] = content
        self._answer(201, b"", headers={"Location": f"/v2/{repository}/blobs/{digest}", "Docker-Content-Digest": digest})

    def _take_manifest(self, repository: str, name: str, body: bytes) -> None:
        store, digest = self.owner.store, digest_of(body)
        store.manifests[repository, digest] = (self.headers.get("Content-Type", OCI[0]), body)
        store.tags.setdefault(repository, {})
        if not name.startswith("sha256:"):
            store.tags[repository][name] = digest
        self._answer(201, b"", headers={"Location": f"/v2/{repository}/manifests/{digest}", "Docker-Content-Digest": digest})

    def _allowed(self) -> bool:
        if self.owner.credentials is None:
            return True
        expected = "Basic " + base64.b64encode(":".join(self.owner.credentials).encode()).decode()
        return self.headers.get("Authorization") == expected

    def _failed(self, failure: Failure) -> bool:
        """Fail as asked; whether that was the answer."""
        if failure.seconds:
            self.owner.stopping.wait(failure.seconds)
        if failure.close:
            self.close_connection = True
            return True
        if failure.redirect or failure.redirect_to:
            self._answer(307, b"", headers={"Location": failure.redirect_to + self.path})
            return True
        if failure.html:
            self._answer(200, b"<html>hello</html>", "text/html")
            return True
        if failure.status:
            challenge = {"WWW-Authenticate": 'Basic realm="test"'} if failure.status == 401 else {}
            self._error(failure.status, failure.code, challenge)
            return True
        return False

    def _answer_instead(self, match: re.Match[str] | None, path: str) -> Answer | None:
        """What is answered at this step instead of what a registry answers."""
        failure = (self.owner.failures.get(match[1]) if match else None) or self.owner.failure
        if failure is None or not failure.answers:
            return None
        step = (
            {"manifests": MANIFESTS, "blobs": BLOBS}.get(match[2], "") if match else {"/v2/": PING, "/token": TOKEN}.get(path, path)
        )
        return failure.answers.get(step)

    def _give(self, answer: Answer) -> None:
        if answer.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # At once: the server would end the connection in order first.
            socket.close(self.connection.detach())
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.media)
        self.send_header("Content-Length", str(len(answer.body) + answer.missing))
        if answer.location:
            self.send_header("Location", answer.location.format(host=self.headers["Host"]))
        if answer.challenge:
            self.send_header("WWW-Authenticate", answer.challenge.format(host=self.owner.host))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.wfile.flush()
        self.close_connection = self.close_connection or bool(answer.missing)

    def _manifest(self, repository: str, wanted: str, *, corrupt: bool) -> None:
        store = self.owner.store
        found = store.manifests.get((repository, store.tags.get(repository, {}).get(wanted, wanted)))
        if not found:
            self._error(404, "MANIFEST_UNKNOWN" if repository in store.tags else "NAME_UNKNOWN")
            return
        media, data = found
        served = data.replace(b'"schemaVersion": 2', b'"schemaVersion":  2') if corrupt else data
        self._answer(200, served, media, {"Docker-Content-Digest": digest_of(data)})

    def _tags(self, repository: str, query: dict[str, list[str]]) -> None:
        tags = self.owner.store.tags.get(repository)
        if tags is None:
            self._error(404, "NAME_UNKNOWN")
            return
        listed = sorted(tag for tag in tags if tag > query.get("last", [""])[0])
        count = int(query.get("n", ["1000"])[0])
        headers = {}
        if len(listed) > count:
            headers["Link"] = f'</v2/{repository}/tags/list?n={count}&last={listed[count - 1]}>; rel="next"'
        self._answer(200, json.dumps({"name": repository, "tags": listed[:count]}).encode(), headers=headers)

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        message = "authentication required" if status == 401 else code.lower()
        self._answer(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode(), headers=headers)

    def _answer(self, status: int, body: bytes, media: str = "application/json", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        all_headers = {"Content-Type": media, "Content-Length": str(len(body)), "Docker-Distribution-Api-Version": "registry/2.0"}
        for key, value in {**all_headers, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
