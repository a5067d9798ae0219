"""Fetching manifests from registries as the platform's importer does, down to the texts of its errors."""

import base64
import hashlib
import json
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3

from e2e.simulator import errors

MANIFEST_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/json",
)
# Registries that are configured as insecure are asked without verification: that is what the setting says.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
PING_SECONDS = 2.0
"""How long a registry that answered is not asked again whether it is one."""
REDIRECTS = 10
"""So many in a row Go's client follows; to another host it takes no credentials along."""
NO_CREDENTIALS = "no basic auth credentials"
_CODES = {
    "MANIFEST_UNKNOWN": "manifest unknown",
    "NAME_UNKNOWN": "name unknown",
    "UNAUTHORIZED": "unauthorized",
    "DENIED": "denied",
    "TOOMANYREQUESTS": "toomanyrequests",
    "UNSUPPORTED": "unsupported",
    "BLOB_UNKNOWN": "blob unknown",
}


class RegistryError(Exception):
    """A registry did not give what was asked for; `code` is its error code, if it gave one."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Manifest:
    """A manifest as it was served."""

    media: str
    data: bytes

    @property
    def digest(self) -> str:
        """Its own digest."""
        return "sha256:" + hashlib.sha256(self.data).hexdigest()

    @property
    def content(self) -> dict[str, Any]:
        """Its JSON."""
        found: dict[str, Any] = json.loads(self.data)
        return found


@dataclass(frozen=True)
class Access:
    """With what a registry may be asked: whether TLS may be missing or wrong, credentials, and additional CAs (PEM)."""

    insecure: bool
    credentials: tuple[str, str] | None = None
    authorities: str = ""


class Fetcher:
    """Connections to registries, kept alive."""

    def __init__(self, timeout: float) -> None:
        self._timeout = urllib3.Timeout(connect=timeout, read=timeout)
        self._lock = threading.Lock()
        self._pools: dict[tuple[bool, str], urllib3.PoolManager] = {}
        self._pinged: dict[tuple[str, Access], tuple[float, str, dict[str, str]]] = {}
        self._tokens: dict[tuple[str, str, Access], str] = {}

    def manifest(self, host: str, path: str, tag_or_digest: str, access: Access) -> Manifest:
        """The manifest of `path` at `host`. Raises RegistryError."""
        answer = self._get(host, path, f"manifests/{tag_or_digest}", access, {"Accept": ", ".join(MANIFEST_TYPES)})
        media = answer.headers.get("Content-Type", "").partition(";")[0]
        manifest = Manifest(media, answer.data)
        try:
            content = manifest.content
        except ValueError as error:
            first = answer.data[:1].decode(errors="replace")
            raise RegistryError(
                f"error unmarshalling content: invalid character '{first}' looking for beginning of value"
            ) from error
        if not isinstance(content, dict):
            raise RegistryError("error unmarshalling content: json: cannot unmarshal into a manifest")
        media = content.get("mediaType") or media
        if tag_or_digest.startswith("sha256:") and manifest.digest != tag_or_digest:
            raise RegistryError(
                f"content integrity error: the manifest retrieved with digest {tag_or_digest} "
                f"does not match the digest calculated from the content {manifest.digest}"
            )
        return Manifest(media, answer.data)

    def blob(self, host: str, path: str, digest: str, access: Access) -> bytes:
        """A blob of `path` at `host`. Raises RegistryError."""
        return self._get(host, path, f"blobs/{digest}", access, {}).data

    def tags(self, host: str, path: str, access: Access) -> list[str]:
        """All tags of `path` at `host`. Raises RegistryError."""
        found: list[str] = []
        more = "tags/list"
        while more:
            answer = self._get(host, path, more, access, {})
            try:
                found += json.loads(answer.data).get("tags") or []
            except (ValueError, AttributeError) as error:
                first = answer.data[:1].decode(errors="replace")
                raise RegistryError(f"invalid character '{first}' looking for beginning of value") from error
            link = re.search(r'<[^>]*/(tags/list\?[^>]*)>;\s*rel="?next', answer.headers.get("Link", ""))
            more = link[1] if link else ""
        return found

    def ping(self, host: str, access: Access) -> tuple[str, dict[str, str]]:
        """The scheme that works at `host` and its challenge. Raises RegistryError with the text of Go's client."""
        known = self._pinged.get((host, access))
        if known and time.monotonic() - known[0] < PING_SECONDS:
            return known[1], known[2]
        # An insecure registry may speak either; once one has spoken HTTP, a TLS handshake would only be noise.
        schemes = (("http", "https") if known and known[1] == "http" else ("https", "http")) if access.insecure else ("https",)
        failure: Exception | None = None
        for scheme in schemes:
            url = f"{scheme}://{host}/v2/"
            try:
                answer = self._pool(access).request("GET", url, timeout=self._timeout, redirect=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                failure = RegistryError(f'Get "{url}": {go_text(error, host)}')
                if isinstance(_root(error), ConnectionRefusedError) and scheme == "https" and access.insecure:
                    continue
                continue
            challenge = {"www-authenticate": answer.headers.get("WWW-Authenticate", "")} if answer.status == 401 else {}
            self._pinged[host, access] = (time.monotonic(), scheme, challenge)
            return scheme, challenge
        raise failure or RegistryError(f"cannot reach {host}")

    def _get(self, host: str, path: str, what: str, access: Access, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        scheme, challenge = self.ping(host, access)
        url = f"{scheme}://{host}/v2/{path}/{what}"
        authorization = self._authorization(host, path, challenge.get("www-authenticate", ""), access)
        if authorization:
            headers = {**headers, "Authorization": authorization}
        for _ in range(REDIRECTS):
            try:
                answer = self._pool(access).request("GET", url, headers=headers, timeout=self._timeout, redirect=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                self._pinged.pop((host, access), None)
                raise RegistryError(f'Get "{url}": {go_text(error, host)}') from error
            if answer.status >= 400:
                raise _refused(answer)
            if not (location := answer.get_redirect_location()):
                return answer
            before, url = url, urljoin(url, location)
            if before == url:
                break  # nine more of the same would tell nothing else, and cost a test of masses of them most of its time
            if urlsplit(before).netloc != urlsplit(url).netloc:
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
        raise RegistryError(f'Get "{url}": stopped after {REDIRECTS} redirects')

    def _authorization(self, host: str, path: str, challenge: str, access: Access) -> str:
        if not challenge:
            return ""
        if access.credentials is None and challenge.lower().startswith("basic"):
            raise RegistryError(NO_CREDENTIALS, "UNAUTHORIZED")
        basic = "Basic " + base64.b64encode(":".join(access.credentials or ("", "")).encode()).decode()
        if challenge.lower().startswith("basic"):
            return basic
        known = self._tokens.get((host, path, access))
        if known:
            return known
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = {"service": fields.get("service", ""), "scope": f"repository:{path}:pull"}
        headers = {"Authorization": basic} if access.credentials else {}
        try:
            answer = self._pool(access).request("GET", fields["realm"], fields=query, headers=headers, timeout=self._timeout)
            token = json.loads(answer.data).get("token")
        except (urllib3.exceptions.HTTPError, OSError, ValueError, KeyError) as error:
            raise RegistryError(f"unauthorized: {error}", "UNAUTHORIZED") from error
        if not token:
            raise RegistryError("unauthorized: authentication required", "UNAUTHORIZED")
        self._tokens[host, path, access] = f"Bearer {token}"
        return f"Bearer {token}"

    def _pool(self, access: Access) -> urllib3.PoolManager:
        with self._lock:
            key = (access.insecure, access.authorities)
            if key not in self._pools:
                context = ssl.create_default_context()
                if access.authorities:
                    context.load_verify_locations(cadata=access.authorities)
                if access.insecure:
                    context.check_hostname = False
                    context.verify_mode = ssl.CERT_NONE
                self._pools[key] = urllib3.PoolManager(num_pools=50, maxsize=16, retries=False, ssl_context=context)
            return self._pools[key]


def _refused(answer: urllib3.BaseHTTPResponse) -> RegistryError:
    """What an error answer of a registry reads as."""
    try:
        first = json.loads(answer.data)["errors"][0]
        code, message = first["code"], first.get("message") or ""
    except (ValueError, KeyError, IndexError, TypeError):
        if answer.status == 401:
            return RegistryError("unauthorized: authentication required", "UNAUTHORIZED")
        code = ""
    if answer.status >= 500 or not code:
        return RegistryError(f"received unexpected HTTP status: {answer.status} {answer.reason or _reason(answer.status)}")
    text = _CODES.get(code, code.lower().replace("_", " "))
    return RegistryError(f"{text}: {message}", code)


def _reason(status: int) -> str:
    return {429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}.get(status, "")


def _root(error: BaseException) -> BaseException:
    """The error of the operating system or of TLS at the bottom."""
    for inner in (getattr(error, "reason", None), error.__cause__, error.args[0] if error.args else None):
        if isinstance(inner, BaseException):
            return _root(inner)
    return error


def go_text(error: BaseException, host: str) -> str:
    """How Go's net/http words a transport error."""
    root = _root(error)
    name, _, port = host.partition(":")
    if isinstance(root, ConnectionRefusedError):
        address = "127.0.0.1" if name == "localhost" else name
        return f"dial tcp {address}:{port or 443}: connect: connection refused"
    if isinstance(root, socket.gaierror):
        return f"dial tcp: lookup {name}: no such host"
    if isinstance(root, ssl.SSLCertVerificationError):
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    if isinstance(root, ssl.SSLError) and "timed out" not in str(root):
        return "http: server gave HTTP response to HTTPS client"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return "net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)"
    if isinstance(root, TimeoutError) or isinstance(error, urllib3.exceptions.TimeoutError):
        return "net/http: TLS handshake timeout"
    if isinstance(root, ConnectionResetError):
        return "read: connection reset by peer"
    return "EOF"


def formatted(reference: str, error: RegistryError) -> Exception:
    """The error of one pull source, as the importer formats it: some have a reason, the others only a text."""
    if error.code == "MANIFEST_UNKNOWN":
        return errors.not_found("image.openshift.io", "dockerimage", reference)
    if error.code == "UNAUTHORIZED":
        return errors.unauthorized(f'you may not have access to the container image "{reference}"')
    return RegistryError(f"{reference}: {error}")
