"""HTTP in front of the API: routes, discovery, chunked watches, the log of requests, and faults."""

import collections
import contextlib
import http.server
import json
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import yaml

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.api import Api, Target
from e2e.testbed.simulator.discovery import discovery
from e2e.testbed.simulator.faults import Faults
from e2e.testbed.simulator.identity import ADMINISTRATOR, FrontProxy, Identity
from e2e.testbed.simulator.service_accounts import account_of
from e2e.testbed.simulator.store import Subscription
from e2e.testbed.support.serving import EndableServer

BOOKMARK_SECONDS = 5.0
LOGGED_REQUESTS = 100000
METADATA_LIST = "as=PartialObjectMetadataList"
Control = Callable[[Any], Any]


class _CutConnection(Exception):  # noqa: N818  control flow
    """A fault wants the connection closed without an answer."""


class Server(EndableServer):
    """Serves one Api on 127.0.0.1."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, port: int, api: Api, context: ssl.SSLContext | None = None, front_proxy: FrontProxy | None = None) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self._context = context
        self._secure()
        self.scheme = "https" if context else "http"
        self.api = api
        self.front_proxy = front_proxy
        self.faults = Faults()
        self.stopping = threading.Event()
        self.requests: collections.deque[dict[str, Any]] = collections.deque(maxlen=LOGGED_REQUESTS)
        self.request_count = 0
        self.controls: dict[str, Control] = {}
        self._log_lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def log_request(self, verb: str, path: str, status: int, agent: str, seconds: float) -> None:
        """Remember a request, for tests that count them."""
        with self._log_lock:
            self.request_count += 1
            entry = {"number": self.request_count, "time": time.time(), "verb": verb, "path": path, "status": status}
            self.requests.append({**entry, "userAgent": agent, "seconds": round(seconds, 4)})

    def _secure(self) -> None:
        if self._context:
            self.socket = self._context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def come_back(self) -> None:
        """Listen again on the same port. Raises OSError when somebody else has taken it."""
        self.socket = socket.socket(self.address_family, self.socket_type)
        self.server_bind()
        self.server_activate()
        self._secure()


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """The log of requests is the server's."""

    def do_GET(self) -> None:
        """Serve one request, whatever its method."""
        self._started = time.monotonic()
        self._sent, self._logged = 0, False
        self._verb = self.command.lower()
        url = urlsplit(self.path)
        self._query = dict(parse_qsl(url.query, keep_blank_values=True))
        agent = self.headers.get("User-Agent", "")
        try:
            length = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(length) if length else b""
            try:
                self._serve(url.path, data, agent)
            except errors.StatusError as error:
                retry = (error.details or {}).get("retryAfterSeconds")
                headers = {} if retry is None else {"Retry-After": str(retry)}
                self._send(error.code, error.body(), headers)
        except _CutConnection:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.close_connection = True
        self._log()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  http.server's names

    def _log(self) -> None:
        """Log the request, once: before its answer leaves, so that a client that has the answer finds it, or at its end."""
        path = urlsplit(self.path).path
        if self._logged or path.startswith(("/simulator/", "/readyz")):
            return
        self._logged = True
        seconds = time.monotonic() - self._started
        self.server.log_request(self._verb, path, self._sent, self.headers.get("User-Agent", ""), seconds)

    def _serve(self, path: str, data: bytes, agent: str) -> None:
        if path in ("/readyz", "/healthz", "/livez"):
            self._send_text(200, "ok")
            return
        proxy = self.server.front_proxy
        if proxy:
            proxy.check(self.connection)
        if path.startswith("/simulator/"):
            self._control(path.removeprefix("/simulator/"), data)
        elif path == "/version":
            self._fault_before(self.server.faults.match("get", path, urlsplit(self.path).query, agent))
            self._send(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.0-simulator", "platform": "linux/amd64"})
        elif (target := self._target(path)) is not None:
            self._resource(target, path, data, agent)
        elif (found := discovery(self.server.api.registry, path)) is not None:
            self._send(200, found)
        else:
            self._send_text(404, "404 page not found\n")

    # Paths.

    def _target(self, path: str) -> Target | None:
        """What a path names; None for discovery and for what is not served."""
        match = re.fullmatch(
            r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
            r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?/?",
            path,
        )
        if not match:
            return None
        group, version = match["group"] or "", match["version"] or match["core"]
        namespace, plural, name, sub = match["namespace"] or "", match["plural"], match["name"] or "", match["sub"] or ""
        if namespace and plural in ("status", "finalize") and not group:
            namespace, plural, name, sub = "", "namespaces", namespace, plural
        resource = self.server.api.registry.find(group, version, plural)
        if resource is None:
            return None
        if sub and sub not in resource.subresources and not (sub == "status" and resource.has_status):
            raise errors.StatusError(404, "NotFound", "the server could not find the requested resource", {})
        return Target(resource, namespace, name, sub)

    # Requests on resources.

    def _resource(self, target: Target, path: str, data: bytes, agent: str) -> None:
        watching = self.command == "GET" and self._query.get("watch") in ("1", "true")
        named = bool(target.name)
        self._verb = {
            "GET": "watch" if watching else "get" if named else "list",
            "POST": "create",
            "PUT": "update",
            "PATCH": "patch",
            "DELETE": "delete" if named else "deletecollection",
        }.get(self.command, "unknown")
        action = self.server.faults.match(self._verb, path, urlsplit(self.path).query, agent)
        if action:
            self._fault_before(action)
        if watching:
            self._watch(target, action)
            return
        code, answer = self._carry_out(target, data)
        if "loseAnswer" in action:
            raise _CutConnection
        self._send(code, answer, truncate="truncate" in action)

    def _fault_before(self, action: dict[str, Any]) -> None:
        if seconds := action.get("latencySeconds"):
            self.server.stopping.wait(seconds)
        if action.get("reset"):
            raise _CutConnection
        if action.get("hang"):
            self.server.stopping.wait(3600)
            raise _CutConnection
        if action.get("conflict"):
            raise errors.conflict("image.openshift.io", "imagestreams", "fault")
        if code := action.get("status"):
            details = {"retryAfterSeconds": action["retryAfter"]} if "retryAfter" in action else {}
            message = action.get("message", "a fault was asked for")
            raise errors.StatusError(code, action.get("reason", "InternalError"), message, details)

    def _carry_out(self, target: Target, data: bytes) -> tuple[int, Any]:
        api = self.server.api
        who = self._who()
        context = api.context(target, who, dry_run="All" in self._query.get("dryRun", ""))
        media = self.headers.get("Content-Type", "application/json").partition(";")[0].strip()
        body = self._body(data, media)
        match self._verb:
            case "create":
                return 201, api.create(target, body, context)
            case "get":
                return 200, api.get(target, context)
            case "list":
                found = api.list(target, self._query)
                if METADATA_LIST in self.headers.get("Accept", ""):
                    found = metadata_only(found)
                # One by one: while 500 streams are encoded at once no other request is answered, unlike on an API server.
                return 200, {**found, "items": [msgspec.Raw(msgspec.json.encode(item)) for item in found["items"]]}
            case "update":
                return 200, api.update(target, body, context)
            case "patch":
                return 200, api.patch(target, body, media, context)
            case "delete":
                return 200, api.delete(target, body, context)
            case "deletecollection":
                return 200, api.delete_collection(target, self._query, context)
        raise errors.StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _who(self) -> Identity:
        """Whom the proxy speaks for; without one the account of a token, or the administrator."""
        if self.server.front_proxy:
            return self.server.front_proxy.identity(self.headers)
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            return ADMINISTRATOR
        account = account_of(self.server.api.store, token)
        if account is None:
            raise errors.unauthorized("Unauthorized")
        return account

    def _body(self, data: bytes, media: str) -> Any:
        if not data:
            return None
        if "protobuf" in media:
            raise errors.StatusError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {media}")
        try:
            return yaml.safe_load(data) if "yaml" in media else msgspec.json.decode(data)
        except (msgspec.MsgspecError, yaml.YAMLError) as error:
            raise errors.bad_request(f"the object provided cannot be read: {error}") from error

    def _watch(self, target: Target, action: dict[str, Any]) -> None:
        api = self.server.api
        if "dropWatches" in action:
            raise _CutConnection
        if self._query.get("sendInitialEvents"):
            raise errors.watch_list()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()  # a client waits for the answer to begin, not for the first event
        self._sent = 200
        try:
            if "gone" in action:
                raise errors.expired(0, api.store.version)
            subscription = api.subscribe(target, self._query)
        except errors.StatusError as error:
            self._chunk({"type": "ERROR", "object": {k: v for k, v in error.body().items() if k != "details"}})
            self._chunk(None)
            return
        try:
            self._follow(target, subscription)
        finally:
            api.store.unsubscribe(subscription)
        self._chunk(None)

    def _follow(self, target: Target, subscription: Subscription) -> None:
        events = subscription.events
        end = time.monotonic() + float(self._query.get("timeoutSeconds") or 3600)
        bookmarks = self._query.get("allowWatchBookmarks") in ("1", "true")
        next_bookmark = time.monotonic() + BOOKMARK_SECONDS
        api = self.server.api
        while not self.server.stopping.is_set() and time.monotonic() < end:
            try:
                event = events.get(timeout=max(0.01, min(next_bookmark, end) - time.monotonic()))
            except queue.Empty:
                next_bookmark = time.monotonic() + BOOKMARK_SECONDS
                with api.store.lock:
                    version = api.store.version if events.empty() else None
                if bookmarks and version is not None and version >= subscription.since:
                    item = {"kind": target.resource.kind, "apiVersion": target.resource.api_version}
                    self._chunk({"type": "BOOKMARK", "object": {**item, "metadata": {"resourceVersion": str(version)}}})
                continue
            if event is None:
                raise _CutConnection
            for shown in api.watched(target, self._query, event):
                self._chunk(shown)

    # Answers.

    def _chunk(self, value: Any) -> None:
        data = b"" if value is None else msgspec.json.encode(value) + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _send(self, code: int, value: Any, headers: dict[str, str] | None = None, *, truncate: bool = False) -> None:
        self._send_bytes(code, msgspec.json.encode(value), "application/json", headers, truncate=truncate)

    def _send_text(self, code: int, text: str) -> None:
        self._send_bytes(code, text.encode(), "text/plain; charset=utf-8", None)

    def _send_bytes(self, code: int, data: bytes, media: str, headers: dict[str, str] | None, *, truncate: bool = False) -> None:
        self.send_response(code)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(data)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self._sent = code
        self._log()
        self.wfile.write(data[: len(data) // 2] if truncate else data)
        self.wfile.flush()
        if truncate:
            raise _CutConnection

    def _control(self, name: str, data: bytes) -> None:
        """Faults, the log of requests, and what the simulator's parts let be controlled."""
        body = json.loads(data) if data else None
        server = self.server
        if name == "faults":
            if self.command == "POST":
                server.faults.add(body)
            elif self.command == "DELETE":
                server.faults.clear()
            self._send(200, server.faults.listed())
        elif name == "requests":
            since, agent = int(self._query.get("since") or 0), self._query.get("userAgent", "")
            found = [r for r in list(server.requests) if r["number"] > since and re.search(agent, r["userAgent"])]
            self._send(200, {"last": server.request_count, "requests": found})
        elif name == "compact":
            server.api.store.compact()
            self._send(200, {})
        elif name == "drop-watches":
            server.api.store.drop_watches()
            self._send(200, {})
        elif name in server.controls:
            self._send(200, server.controls[name](body) or {})
        else:
            self._send_text(404, f"no control {name!r}\n")


def metadata_only(found: dict[str, Any]) -> dict[str, Any]:
    """A list as a client sees it that asks for metadata only."""
    items = [{"metadata": item["metadata"]} for item in found["items"]]
    return {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": found["metadata"], "items": items}
