"""A small registry for tests and the demo: it serves what is put into it, and fails in each way that a test asks for."""

import base64
import gzip
import hashlib
import http.server
import io
import json
import re
import socket
import ssl
import tarfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from e2e.ports import free_port
from e2e.serving import EndableServer

DOCKER = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)
OCI = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar+gzip",
)
LISTS = {
    "list": ("application/vnd.docker.distribution.manifest.list.v2+json", "docker"),
    "index": ("application/vnd.oci.image.index.v1+json", "oci"),
}
ARCHITECTURES = ("amd64", "arm64")


def digest_of(data: bytes) -> str:
    """The sha256 digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Failure:
    """How requests fail.

    `status` with an error `code`; `html`: a proxy's page; `wrong_digest`: other content than the digest says; `seconds`: a wait
    before the answer; `hang`: no answer at all; `close`: the connection is cut; `redirect`: to the same place, for ever;
    `redirect_to`: to the same path at another registry (`http://host:port`). `flapping`: only every other so many seconds, and
    not in between.
    """

    status: int = 0
    code: str = "UNKNOWN"
    html: bool = False
    wrong_digest: bool = False
    seconds: float = 0
    hang: bool = False
    close: bool = False
    redirect: bool = False
    redirect_to: str = ""
    flapping: float = 0

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


class Store:
    """Manifests and blobs by repository. The same image has the same digest everywhere."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.tags: dict[str, dict[str, str]] = {}

    def put(self, repository: str, tag: str | None, kind: str = "docker", seed: str = "") -> str:
        """Put an image: `docker` (schema 2), `oci`, `list` (of docker images) or `index` (of OCI images); its digest."""
        if kind in LISTS:
            media, part = LISTS[kind]
            parts = [(architecture, *self._image(seed, architecture, part)) for architecture in ARCHITECTURES]
            for _, part_media, part_data in parts:
                self.manifests[repository, digest_of(part_data)] = (part_media, part_data)
            entries = [
                {"mediaType": m, "size": len(d), "digest": digest_of(d), "platform": {"architecture": a, "os": "linux"}}
                for a, m, d in parts
            ]
            data = json.dumps({"schemaVersion": 2, "mediaType": media, "manifests": entries}).encode()
        else:
            media, data = self._image(seed, "amd64", kind)
        digest = digest_of(data)
        self.manifests[repository, digest] = (media, data)
        if tag:
            self.tags.setdefault(repository, {})[tag] = digest
        return digest

    def clear(self) -> None:
        """Remove everything."""
        self.blobs.clear()
        self.manifests.clear()
        self.tags.clear()

    def remove(self, repository: str, tag: str) -> None:
        """Remove a tag."""
        self.tags.get(repository, {}).pop(tag, None)

    def _image(self, seed: str, architecture: str, kind: str) -> tuple[str, bytes]:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            info = tarfile.TarInfo("hello.txt")
            # The very bytes that recordings were made with: their digests are compared.
            content = (seed + architecture).encode()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        layer = gzip.compress(raw.getvalue(), mtime=0)
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "created": "2026-01-01T00:00:00Z",
                "config": {"Cmd": ["/bin/true"], "Labels": {"seed": seed}},
                "rootfs": {"type": "layers", "diff_ids": [digest_of(raw.getvalue())]},
                "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "test"}],
            }
        ).encode()
        for blob in (layer, config):
            self.blobs[digest_of(blob)] = blob
        media, config_media, layer_media = DOCKER if kind == "docker" else OCI
        manifest = {
            "schemaVersion": 2,
            "mediaType": media,
            "config": {"mediaType": config_media, "size": len(config), "digest": digest_of(config)},
            "layers": [{"mediaType": layer_media, "size": len(layer), "digest": digest_of(layer)}],
        }
        return media, json.dumps(manifest).encode()


class Registry:
    """A registry on a port of 127.0.0.1; a context manager that serves it.

    `failure` holds for all requests but `/v2/`; `failures` for single repositories, by name. `credentials` asks for Basic
    authentication.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        failure: Failure | None = None,
        credentials: tuple[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.store = Store()
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
        if url.path in ("/v2/", "/v2") and not (owner.failure and owner.failure.status == 401):
            if not self._allowed():
                self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="test"'})
            else:
                self._answer(200, b"{}")
            return
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags)/([^/]+)", url.path)
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

    def _allowed(self) -> bool:
        if self.owner.credentials is None:
            return True
        expected = "Basic " + base64.b64encode(":".join(self.owner.credentials).encode()).decode()
        return self.headers.get("Authorization") == expected

    def _failed(self, failure: Failure) -> bool:
        """Fail as asked; whether that was the answer."""
        if failure.seconds:
            self.owner.stopping.wait(failure.seconds)
        if failure.hang:
            self.owner.stopping.wait(600)
        if failure.hang or failure.close:
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
