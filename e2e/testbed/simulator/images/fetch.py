"""Fetching manifests from registries as the platform's importer does, down to the texts of its errors."""

import base64
import hashlib
import http.client
import json
import re
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from e2e.testbed.simulator.images.go import go_kind, go_text, json_problem, root
from e2e.testbed.simulator.images.registry_errors import NO_CREDENTIALS, UNKNOWN_BLOB, RegistryError, refused

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
_REGISTERED = frozenset(MANIFEST_TYPES[:4])
"""Types of manifests that have a decoder of their own; JSON of any other is read as a signed manifest of schema 1."""


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

    def __init__(self, timeout: float, *, patience: float | None = None) -> None:
        """`timeout` bounds connecting, the greeting at `/v2/` and getting a token; `patience` what is asked for then.

        Both in seconds; without `patience` one is as long as the other.
        """
        self._timeout = urllib3.Timeout(connect=timeout, read=timeout)
        self._patience = self._timeout if patience is None else urllib3.Timeout(connect=timeout, read=patience)
        self._lock = threading.Lock()
        self._pools: dict[tuple[bool, str], urllib3.PoolManager] = {}
        self._pinged: dict[tuple[str, Access], tuple[float, str, dict[str, str]]] = {}
        self._tokens: dict[tuple[str, str, Access], str] = {}

    def manifest(self, host: str, path: str, tag_or_digest: str, access: Access) -> Manifest:
        """The manifest of `path` at `host`. Raises RegistryError."""
        answer = self._get(host, path, f"manifests/{tag_or_digest}", access, {"Accept": ", ".join(MANIFEST_TYPES)})
        media = answer.headers.get("Content-Type", "").partition(";")[0]
        manifest = Manifest(media, answer.data)
        frame = "" if media in _REGISTERED else "error unmarshalling content: "
        if problem := json_problem(answer.data):
            raise RegistryError(frame + problem)
        content = manifest.content
        if not isinstance(content, dict):
            raise RegistryError(f"{frame}json: cannot unmarshal {go_kind(content)} into Go value of type manifest")
        if frame and "signatures" not in content:
            raise RegistryError("missing signature key")
        media = content.get("mediaType") or media
        if tag_or_digest.startswith("sha256:") and manifest.digest != tag_or_digest:
            raise RegistryError(
                f"content integrity error: the manifest retrieved with digest {tag_or_digest} "
                f"does not match the digest calculated from the content {manifest.digest}"
            )
        return Manifest(media, answer.data)

    def blob(self, host: str, path: str, digest: str, access: Access) -> bytes:
        """A blob of `path` at `host`. Raises RegistryError."""
        data = self._get(host, path, f"blobs/{digest}", access, {}).data
        if (calculated := "sha256:" + hashlib.sha256(data).hexdigest()) != digest:
            raise RegistryError(
                f"content integrity error: the blob retrieved with digest {digest} "
                f"does not match the digest calculated from the content {calculated}"
            )
        return data

    def tags(self, host: str, path: str, access: Access) -> list[str]:
        """All tags of `path` at `host`. Raises RegistryError."""
        found: list[str] = []
        more = "tags/list"
        while more:
            answer = self._get(host, path, more, access, {})
            if problem := json_problem(answer.data):
                raise RegistryError(problem)
            found += json.loads(answer.data).get("tags") or []
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
            try:
                answer = self._follow(f"{scheme}://{host}/v2/", access, {}, self._timeout)
            except _TransportError as error:
                failure = error
                continue
            _check_version(answer, f"{scheme}://{host}")
            challenge = {"www-authenticate": answer.headers.get("WWW-Authenticate", "")} if answer.status == 401 else {}
            self._pinged[host, access] = (time.monotonic(), scheme, challenge)
            return scheme, challenge
        raise failure or RegistryError(f"cannot reach {host}")

    def _get(self, host: str, path: str, what: str, access: Access, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        scheme, challenge = self.ping(host, access)
        url = f"{scheme}://{host}/v2/{path}/{what}"
        try:
            authorization = self._authorization(host, path, challenge.get("www-authenticate", ""), access)
        except RegistryError as error:
            raise error if str(error) == NO_CREDENTIALS else RegistryError(f'Get "{url}": {error}') from error
        if authorization:
            headers = {**headers, "Authorization": authorization}
        try:
            answer = self._follow(url, access, headers, self._patience)
        except _TransportError:
            self._pinged.pop((host, access), None)
            raise
        if answer.status == 404 and what.startswith("blobs/"):
            raise RegistryError(UNKNOWN_BLOB, "BLOB_UNKNOWN")
        if answer.status >= 400:
            raise refused(answer)
        return answer

    def _follow(self, url: str, access: Access, headers: dict[str, str], timeout: urllib3.Timeout) -> urllib3.BaseHTTPResponse:
        """Go's client: the last answer after at most ten redirects. Raises _TransportError with the URL that was asked last.

        Of too many redirects the error names the last Location, as it was sent.
        """
        location: Any = ""
        for _ in range(REDIRECTS):
            try:
                answer = self._pool(access).request("GET", url, headers=headers, timeout=timeout, redirect=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if isinstance(root(error), http.client.IncompleteRead):
                    # The answer had begun: its reader fails, not the request.
                    raise _TransportError("unexpected EOF") from error
                raise _TransportError(f'Get "{url}": {go_text(error, urlsplit(url).netloc)}') from error
            if not (location := answer.get_redirect_location()):
                return answer
            before, url = url, urljoin(url, location)
            if before == url:
                break  # nine more of the same would tell nothing else, and cost a test of masses of them most of its time
            if urlsplit(before).netloc != urlsplit(url).netloc:
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
        raise _TransportError(f'Get "{location}": stopped after {REDIRECTS} redirects')

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
        realm = fields.get("realm")
        if not realm:
            raise RegistryError("no realm specified for token auth challenge")
        answer = self._follow(f"{realm}?{urlencode(query)}", access, headers, self._timeout)
        if answer.status >= 400:
            raise refused(answer)
        if problem := json_problem(answer.data):
            raise RegistryError(f"unable to decode token response: {problem}")
        found = json.loads(answer.data)
        token = found.get("token") or found.get("access_token")
        if not token:
            raise RegistryError("authorization server did not include a token in the response")
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


class _TransportError(RegistryError):
    """No answer came."""


def _check_version(answer: urllib3.BaseHTTPResponse, endpoint: str) -> None:
    """Whether what answered for `/v2/` may be a registry. Raises RegistryError."""
    may_be = 200 <= answer.status < 300 or answer.status in (401, 403)
    if "Docker-Distribution-API-Version" not in answer.headers and not may_be:
        raise RegistryError(f'endpoint "{endpoint}" does not support v2 API (got {answer.status} {answer.reason})')
