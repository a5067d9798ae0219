"""A small client for the Kubernetes API: JSON over kept-alive connections, with a limit on every wait.

The generated classes of the kubernetes package decode whole objects and have no timeouts by default; here a request says
how it wants its answer decoded, and none can hang without end.
"""

import contextlib
import math
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, overload
from urllib.parse import urlencode

import msgspec
import urllib3
from urllib3.connection import HTTPConnection

from mirrorstream.kube.answers import UNREADABLE, decode_answer
from mirrorstream.kube.credentials import find_credentials
from mirrorstream.kube.errors import ApiError, ApiTimeout, ApiUnreachable, ClientError, ConfigurationError, EventTooLarge
from mirrorstream.kube.proxy import connection_pools, connection_steps
from mirrorstream.kube.ratelimit import RateLimiter
from mirrorstream.kube.rest_config import Loader, RestConfig, check_server
from mirrorstream.kube.verbs import verb

__all__ = [
    "ApiError",
    "ApiTimeout",
    "ApiUnreachable",
    "Client",
    "ClientError",
    "ConfigurationError",
    "EventTooLarge",
    "Watch",
    "load_client",
]

T = TypeVar("T")
CONNECT_TIMEOUT = 5.0
REQUEST_TIMEOUT = 30.0
THROTTLE_RETRIES = 3
THROTTLE_LIMIT = 10.0
EVENT_LIMIT = 32 * 1024 * 1024
"""No event of a watch is larger, in bytes: etcd stores no object over 1.5 MB, a few times that as JSON."""
JSON, JSON_PATCH, MERGE_PATCH = "application/json", "application/json-patch+json", "application/merge-patch+json"

Observer = Callable[[str, int, float], None]
"""Called after each request with Kubernetes' verb, the status code (0: no answer) and the seconds it took."""
BeforeWrite = Callable[[], float]
Timer = Callable[[float], None]
"""Called with the seconds that the server took for an answer, without the waits before the request."""

_KEEPALIVE = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # A peer that vanished is noticed after a minute, also on a watch that would read nothing for long.
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 4), 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class Client:
    """Requests to one API server; safe to use from many threads.

    `observe` is told of every request. `limiter` delays requests; a client without one is for what must not wait, such as leases.
    `before_write` is called just before each request that may change something is sent; it returns for how many seconds at most
    that may wait for a new connection.
    """

    def __init__(
        self,
        load: Loader,
        *,
        user_agent: str = "mirrorstream",
        pool_size: int = 32,
        limiter: RateLimiter | None = None,
        observe: Observer = lambda verb, code, seconds: None,
        before_write: BeforeWrite = lambda: math.inf,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._load = load
        self._user_agent = user_agent
        self._pool_size = pool_size
        self.limiter = limiter
        self._observe = observe
        self._before_write = before_write
        self._sleep = sleep
        self._lock = threading.Lock()
        self._config, self._pool = self._connect()

    @property
    def server(self) -> str:
        """The API server's URL, as errors name it."""
        return self._config.host.rstrip("/")

    def unlimited(self) -> "Client":
        """A client of the same server and credentials, with connections of its own, no rate limit and nothing before a write."""
        return Client(self._load, user_agent=self._user_agent, pool_size=2, observe=self._observe)

    def _connect(self) -> tuple[RestConfig, urllib3.PoolManager]:
        config = self._load()
        check_server(config.host)
        options: dict[str, Any] = {
            "num_pools": 2,
            "maxsize": self._pool_size,
            "retries": False,
            "socket_options": _KEEPALIVE,
        }
        if config.host.startswith("https:") or (config.proxy and config.proxy.scheme == "https"):
            options |= {
                "cert_reqs": "CERT_NONE" if config.insecure else "CERT_REQUIRED",
                "ca_certs": config.ca_file,
                "cert_file": config.cert_file,
                "key_file": config.key_file,
            }
            if config.server_name:
                options |= {"server_hostname": config.server_name, "assert_hostname": config.server_name}
        return config, connection_pools(config.proxy, options)

    def _reconnect(self, seen: RestConfig) -> None:
        """Read the credentials again, unless another thread has since `seen`. Raises ApiUnreachable when they cannot be used."""
        with self._lock:
            if self._config is seen:
                try:
                    self._config, self._pool = self._connect()
                except ConfigurationError as error:
                    # A file that is just being written, say: the next refusal reads it again.
                    raise ApiUnreachable(f"{self.server}: the credentials cannot be read again: {error}") from error

    def _headers(self, config: RestConfig, accept: str = JSON) -> dict[str, str]:
        headers = {"Accept": accept, "User-Agent": self._user_agent}
        with self._lock:
            authorization = config.authorization()
        if authorization:
            headers["Authorization"] = authorization
        return headers

    @overload
    def request(self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Any = None,
                content_type: str = JSON, accept: str = JSON, timeout: float = REQUEST_TIMEOUT,
                answered: Timer | None = None) -> Any: ...  # fmt: skip
    @overload
    def request(self, method: str, path: str, *, decode: Callable[[bytes], T], params: Mapping[str, str] | None = None,
                body: Any = None, content_type: str = JSON, accept: str = JSON, timeout: float = REQUEST_TIMEOUT,
                answered: Timer | None = None) -> T: ...  # fmt: skip
    def request(
        self,
        method: str,
        path: str,
        *,
        decode: Callable[[bytes], Any] | None = None,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
        timeout: float = REQUEST_TIMEOUT,
        answered: Timer | None = None,
    ) -> Any:
        """Send one request and decode its answer; without `decode` as JSON values, or None if a write has an empty answer.

        `decode` is the method of a msgspec Decoder that was made before any thread: msgspec 0.22 crashes the interpreter when two
        threads are the first to use a type. `accept` asks for another form of the answer. `timeout` bounds, in seconds, the wait
        for the answer's next bytes. Expired credentials are read again and a 429 is obeyed, both a bounded number of times.
        `answered` is told how long each answer took.
        Raises ApiError for an error answer, ApiUnreachable when none came that `decode` can read, as ApiTimeout if the request was
        sent.
        """
        encoded = body if isinstance(body, bytes) else None if body is None else msgspec.json.encode(body)
        throttled = 0.0
        for attempt in range(THROTTLE_RETRIES + 1):
            try:
                data = self._send(method, path, params, encoded, content_type, accept, timeout, answered)
            except ApiError as error:
                delay = error.retry_after
                if error.status != 429 or attempt == THROTTLE_RETRIES:
                    raise
                # Spread out those who were refused together.
                delay = (delay if delay is not None else 1.0) + random.uniform(0, 0.25)  # noqa: S311  spreads requests, guards nothing
                throttled += delay
                if throttled > THROTTLE_LIMIT:
                    raise
                self._sleep(delay)
            else:
                break
        try:
            if decode is None:
                return msgspec.json.decode(data) if data or method == "GET" else None
            return decode(data)
        except UNREADABLE as error:
            raise ApiUnreachable(f"{self.server}: {method} {path}: the answer cannot be read: {error}") from error

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        content_type: str,
        accept: str,
        timeout: float,
        answered: Timer | None,
    ) -> bytes:
        """One exchange; a 401 is answered once by reading the credentials again."""
        for attempt in (1, 2):
            if self.limiter:
                self.limiter.wait()
            config = self._config
            began = time.monotonic()
            response = self._exchange(config, method, path, params, body, content_type, timeout, accept=accept, stream=False)
            if answered:
                answered(time.monotonic() - began)
            if response.status == 401 and attempt == 1:
                self._reconnect(config)
                continue
            break
        if response.status >= 400:
            raise _api_error(response.status, response.data, response.headers)
        return response.data

    def _exchange(
        self,
        config: RestConfig,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        content_type: str,
        timeout: float,
        *,
        accept: str = JSON,
        stream: bool,
    ) -> urllib3.BaseHTTPResponse:
        url = config.host.rstrip("/") + path + (f"?{urlencode(params)}" if params else "")
        headers = self._headers(config, accept)
        if body is not None:
            headers["Content-Type"] = content_type
        # Last, since new credentials and the rate limit may have taken their time.
        connect = (
            CONNECT_TIMEOUT if method == "GET" else min(CONNECT_TIMEOUT, self._before_write() / connection_steps(config.proxy))
        )
        through = f"through the proxy {config.proxy.url}: " if config.proxy else ""
        started = time.monotonic()
        code = 0
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=connect, read=timeout),
                preload_content=not stream,
                redirect=False,
            )
            code = response.status
        except urllib3.exceptions.SSLError as error:
            # The authority may be another one by now: a file is read for each connection, what is in the kubeconfig itself is not.
            self._reconnect(config)
            raise ApiUnreachable(f"{self.server}: {method} {path}: {through}{_cause(error)}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            # A handshake that takes too long looks the same, and ends after the connect timeout.
            late = isinstance(error, urllib3.exceptions.ReadTimeoutError) and time.monotonic() - started >= timeout
            kind = ApiTimeout if late else ApiUnreachable
            raise kind(f"{self.server}: {method} {path}: {through}{_cause(error)}") from error
        finally:
            self._observe(verb(method, path, params), code, time.monotonic() - started)
        return response

    def get(self, path: str, params: Mapping[str, str] | None = None, *, timeout: float = REQUEST_TIMEOUT) -> dict[str, Any]:
        """GET `path`; the answer as a JSON object. Raises as `request` does."""
        return self.request("GET", path, decode=decode_answer, params=params, timeout=timeout)

    def watch(self, path: str, params: Mapping[str, str], *, read_timeout: float) -> "Watch":
        """Start a watch; no bytes for `read_timeout` seconds end it with ApiUnreachable. Raises as `request` does."""
        for attempt in (1, 2):
            if self.limiter:
                self.limiter.wait()
            config = self._config
            response = self._exchange(config, "GET", path, params, None, JSON, read_timeout, stream=True)
            if response.status == 401 and attempt == 1:
                response.drain_conn()
                self._reconnect(config)
                continue
            break
        if response.status >= 400:
            try:
                data = response.read()
            except (urllib3.exceptions.HTTPError, OSError):
                data = b""
            raise _api_error(response.status, data, response.headers)
        return Watch(response, f"{self.server}: watch {path}")

    def close(self) -> None:
        """Drop idle connections."""
        self._pool.clear()


class Watch:
    """The events of a running watch, as raw lines of JSON; `close` from any thread ends it at once."""

    def __init__(self, response: urllib3.BaseHTTPResponse, name: str) -> None:
        self._response = response
        self._name = name
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        """Each event's bytes; ends when the server or `close` ends it.

        Raises ApiUnreachable when the connection breaks, EventTooLarge for more than EVENT_LIMIT bytes without an end.
        """
        rest: list[bytes] = []  # of one event, put together once: it may be megabytes, in chunks of a few bytes
        size = 0
        try:
            for chunk in self._response.stream(65536):
                first, *lines = chunk.split(b"\n")
                rest.append(first)
                size += len(first)
                for line in lines:
                    whole, rest, size = b"".join(rest), [line], len(line)
                    if whole.strip():
                        yield whole
                if size > EVENT_LIMIT:
                    raise EventTooLarge(f"{self._name}: an event of more than {EVENT_LIMIT} bytes")
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # A response that another thread shuts down fails in many ways, all of which mean that it was closed.
            if not self._closed:
                raise ApiUnreachable(f"{self._name}: {_cause(error)}") from error
        finally:
            self._response.close()
        if b"".join(rest).strip() and not self._closed:
            raise ApiUnreachable(f"{self._name}: the stream ended in the middle of an event")

    def close(self) -> None:
        """End the watch, waking a reader that waits for bytes."""
        self._closed = True
        with contextlib.suppress(Exception):  # already ended
            self._response.shutdown()


def load_client(
    kubeconfig: str | None = None,
    context: str | None = None,
    *,
    in_cluster: bool = True,
    user_agent: str = "mirrorstream",
    requests_per_second: float | None = None,
    observe: Observer = lambda verb, code, seconds: None,
    before_write: BeforeWrite = lambda: math.inf,
) -> Client:
    """A client for the cluster that `kubeconfig` and `context`, the pod or the user's own configuration name.

    Raises ConfigurationError with one line that names the file and what is wrong with it.
    """
    limiter = RateLimiter(requests_per_second) if requests_per_second else None
    load = find_credentials(kubeconfig, context, in_cluster=in_cluster)
    return Client(load, user_agent=user_agent, limiter=limiter, observe=observe, before_write=before_write)


def _api_error(status: int, data: bytes, headers: Mapping[str, str]) -> ApiError:
    """The error that an answer describes: from its Status object, or from its text where something else answered."""
    retry_after = _seconds(headers.get("Retry-After", ""))
    try:
        body = msgspec.json.decode(data)
    except UNREADABLE:
        body = None
    if isinstance(body, dict) and body.get("kind") == "Status":
        details = body["details"] if isinstance(body.get("details"), dict) else {}
        if retry_after is None:
            retry_after = _seconds(details.get("retryAfterSeconds"))
        return ApiError(status, str(body.get("reason") or ""), str(body.get("message") or ""), details, retry_after)
    text = " ".join(data[:300].decode(errors="replace").split())
    return ApiError(status, "", f"HTTP status {status}: {text}" if text else f"HTTP status {status}", {}, retry_after)


def _seconds(value: object) -> float | None:
    """A number of seconds that can be waited for; None for anything else, a date or `nan` among it."""
    try:
        seconds = float(value) if isinstance(value, int | str) else -1.0
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < math.inf else None


def _cause(error: BaseException) -> str:
    """The innermost reason of a transport error, in one line."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _cause(reason)
    if isinstance(error, urllib3.exceptions.ProxyError):
        return _cause(error.original_error)
    text = " ".join(str(error).split())
    return (
        text.rpartition(": ")[2]
        if text.startswith(("HTTPConnectionPool", "HTTPSConnectionPool", "<urllib3"))
        else text or repr(error)
    )
