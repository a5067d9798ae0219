"""The internal registry, as pods and people meet it: TLS under its service's name, tokens of service accounts, pull-through.

It asks the API server who a token is (TokenReview) and whether that account may `get imagestreams/layers` of the stream by its name
(SubjectAccessReview). Without credentials a client gets a token of nobody, system:anonymous, who may pull what everybody may.
A ConfigMap of the test bed says whether it serves, is absent, or accepts connections and never answers.
"""

import base64
import http.server
import json
import re
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from mirrorstream.kube.client import ApiError, Client, ClientError

from e2e.testbed.access import is_allowed
from e2e.testbed.controllers.watching import Watcher
from e2e.testbed.registries.pullthrough import PullThrough, RefusedError
from e2e.testbed.registries.registry import DeadPort
from e2e.testbed.support.certificates import Authority, serving_context
from e2e.testbed.support.serving import EndableServer

Object = dict[str, Any]
SERVICE_NAME = "image-registry.openshift-image-registry.svc"
NAMESPACE = "openshift-image-registry"
STATE = "testbed"
"""The ConfigMap in that namespace: `data.state` is one of the states below."""
CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
SERVING, ABSENT, HANGING = "serving", "absent", "hanging"
ANONYMOUS = "anonymous"
"""The token of nobody."""
ACCESS_DENIED = 'Basic realm=openshift,error="access denied"'
"""The challenge for a token that is unknown, or whose account may not pull."""
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
SECONDS = 10.0
"""How long it waits for another registry, as the platform's does."""


class User:
    """Whom a token stands for."""

    def __init__(self, name: str, uid: str, groups: list[str]) -> None:
        self.name, self.uid, self.groups = name, uid, groups


NOBODY = User("system:anonymous", "", ["system:unauthenticated"])


class InternalRegistry:
    """A context manager that serves at `host` (`name:port`, on 127.0.0.1). `client` is an administrator's.

    `authority` issues its certificate, for the service's name and localhost; `folder` takes a new one without.
    """

    def __init__(
        self, client: Client, host: str, folder: Path, *, authority: Authority | None = None, seconds: float = SECONDS
    ) -> None:
        self.client, self.host = client, host
        self._port = int(host.rpartition(":")[2])
        self._closed = ExitStack()
        """Keeps the port ours while it is absent."""
        self._authority = authority or Authority(folder, "image-registry-ca")
        self._context = serving_context(self._authority.issue("image-registry", hosts=(SERVICE_NAME, "localhost")))
        self.pull_through = PullThrough(client, seconds)
        self.ended = threading.Event()
        """Set when connections that are not answered are to be closed."""
        self._server: EndableServer | None = None
        self._lock = threading.Lock()
        self._state = ABSENT
        self._watcher = Watcher(client, CONFIG_MAPS, self._told)

    @property
    def authority(self) -> Path:
        """The CA of its certificate."""
        return self._authority.certificate

    @property
    def state(self) -> str:
        """What it does now: serving, absent, hanging."""
        return self._state

    def __enter__(self) -> Self:
        self.change(SERVING)
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._watcher.stop()
        self.change(ABSENT)
        self._closed.close()

    def _told(self, kind: str, item: Object) -> None:
        if state := told_state(kind, item):
            self.change(state)

    def change(self, state: str) -> None:
        """Serve, hang, or close the port; in each case every connection there was is cut."""
        with self._lock:
            if state == self._state:
                return
            if self._server:
                self.ended.set()
                self._server.shutdown()
                self._server.end()
                self._server = None
            self._closed.close()
            self._closed = ExitStack()
            if state == ABSENT:
                self._closed.enter_context(DeadPort(self._port))
            else:
                self._server = self._listen(state)
            self._state = state

    def _listen(self, state: str) -> EndableServer:
        self.ended = threading.Event()

        class Bound(_Hanging if state == HANGING else _Handler):  # type: ignore[misc]
            owner = self

        server = EndableServer(("127.0.0.1", self._port), Bound)
        if state == SERVING:
            server.socket = self._context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    # Who may what.

    def user(self, token: str) -> User | None:
        """Whom a token stands for; None for one that is none. Raises ClientError."""
        if token == ANONYMOUS:
            return NOBODY
        status = self.client.request("POST", REVIEWS, body={"spec": {"token": token}})["status"]
        if not status.get("authenticated"):
            return None
        found = status["user"]
        return User(found["username"], found.get("uid", ""), found.get("groups") or [])

    def may_pull(self, user: User, namespace: str, name: str) -> bool:
        """Whether a user may get the layers of a stream. Raises ClientError."""
        attributes = {
            "namespace": namespace, "verb": "get", "group": "image.openshift.io", "version": "v1",
            "resource": "imagestreams", "subresource": "layers", "name": name,
        }  # fmt: skip
        spec = {"user": user.name, "uid": user.uid, "groups": user.groups, "resourceAttributes": attributes}
        return is_allowed(self.client, spec)


def told_state(kind: str, item: Object) -> str:
    """What an event of the ConfigMaps' watch asks of the internal registry; empty for other ConfigMaps."""
    if item["metadata"]["name"] != STATE:
        return ""
    return SERVING if kind == "DELETED" else str(item["data"]["state"])


def set_state(client: Client, state: str) -> None:
    """Have the internal registry of a cluster serve, be absent, or hang; it follows a moment later."""
    body = {"metadata": {"name": STATE, "namespace": NAMESPACE}, "data": {"state": state}}
    try:
        client.request("PUT", f"{CONFIG_MAPS}/{STATE}", body=body)
    except ApiError as error:
        if error.status != 404:
            raise
        client.request("POST", CONFIG_MAPS, body=body)


class _Hanging(http.server.BaseHTTPRequestHandler):
    """Accepts and never answers, not even a handshake."""

    owner: InternalRegistry

    def handle(self) -> None:
        """Wait for the end of it."""
        self.owner.ended.wait()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    owner: InternalRegistry

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Say nothing."""

    def do_GET(self) -> None:
        """Serve one request."""
        url = urlsplit(self.path)
        try:
            if url.path == "/openshift/token":
                self._token()
            elif url.path == "/healthz":
                self._answer(200, b"")
            elif url.path.rstrip("/") == "/v2":
                self._authenticated()
                self._answer(200, b"{}")
            else:
                self._image(url.path)
        except RefusedError as error:
            self._refuse(error)
        except ClientError as error:
            self._refuse(RefusedError(500, "UNKNOWN", f"unknown error: {error}"))

    do_HEAD = do_GET  # noqa: N815  http.server's name

    def _image(self, path: str) -> None:
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags)/([^/]+)", path)
        if not match:
            raise RefusedError(404, "UNSUPPORTED", "The operation is unsupported.")
        repository, kind, wanted = match.groups()
        namespace, _, name = repository.partition("/")
        user = self._authenticated()
        if not name or "/" in name:
            raise RefusedError(404, "NAME_UNKNOWN", "repository name not known to registry")
        if not self.owner.may_pull(user, namespace, name):
            raise _Unauthorized(ACCESS_DENIED)
        through = self.owner.pull_through
        if kind == "manifests":
            manifest = through.manifest(namespace, name, wanted)
            self._answer(200, manifest.data, manifest.media, {"Docker-Content-Digest": manifest.digest})
        elif kind == "blobs":
            self._answer(200, through.blob(namespace, name, wanted), "application/octet-stream", {"Docker-Content-Digest": wanted})
        else:
            self._answer(200, json.dumps({"name": repository, "tags": through.tags(namespace, name)}).encode())

    # Authentication.

    def _authenticated(self) -> User:
        """Who asks. Raises RefusedError, which tells where to get a token only if there is none."""
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        token = value.strip() if kind.lower() == "bearer" else self._password()
        if not token:
            raise _Unauthorized(f'Bearer realm="https://{self._host}/openshift/token"')
        user = self.owner.user(token)
        if user is None:
            raise _Unauthorized(ACCESS_DENIED)
        return user

    @property
    def _host(self) -> str:
        """By which name the client has reached us."""
        return self.headers.get("Host") or self.owner.host

    def _password(self) -> str:
        """What Basic authentication says; the user's name counts for nothing. Empty without."""
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "basic":
            return ""
        try:
            return base64.b64decode(value).decode().partition(":")[2]
        except ValueError:
            return ""

    def _token(self) -> None:
        """The token itself, if it is one; that of nobody for a client without credentials."""
        token = self._password() if self.headers.get("Authorization") else ANONYMOUS
        if not token or self.owner.user(token) is None:
            raise _Unauthorized("")
        self._answer(200, json.dumps({"token": token, "access_token": token}).encode())

    # Answers.

    def _refuse(self, error: RefusedError) -> None:
        headers = {"Www-Authenticate": error.challenge} if isinstance(error, _Unauthorized) and error.challenge else {}
        body = json.dumps({"errors": [{"code": error.code, "message": error.message}]}).encode()
        self._answer(error.status, body, headers=headers)

    def _answer(self, status: int, body: bytes, media: str = "application/json", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        shown = {"Content-Type": media, "Content-Length": str(len(body)), "Docker-Distribution-Api-Version": "registry/2.0"}
        for key, value in {**shown, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()


class _Unauthorized(RefusedError):  # noqa: N818  what the API calls it
    """Also for an account that may not pull: the platform's registry answers 401 then, never 403."""

    def __init__(self, challenge: str) -> None:
        super().__init__(401, "UNAUTHORIZED", "authentication required")
        self.challenge = challenge
