"""Certificates without anybody who issues them: each replica makes its own, in memory, and tells the API servers its authority.

An authority is added to the caBundle of the one MutatingWebhookConfiguration that this account may patch, beside those of other
replicas. A new certificate is served only when its authority has been in the bundle for a while: an API server that has not seen
it yet would refuse the connection, and let pods through as they are.
"""

import base64
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import structlog
from mirrorstream.authority import Authority
from mirrorstream.certs import CertificatePair
from mirrorstream.kube.client import JSON_PATCH, ApiError, Client, ClientError

from mirrorstream_webhook.bundle import NAME, merge, without

log = structlog.get_logger(__name__)

LIFETIME = timedelta(hours=24)
"""Short, since an authority stays in the bundle until it has expired when its pod was killed."""
RENEW_AFTER = 2 / 3
"""The part of its life after which a certificate gets a successor."""
SETTLE = timedelta(seconds=10)
"""How long an authority is in the bundle before what it signed is served: until every API server has seen it."""
CHECK_SECONDS = 5.0
"""Between looks at the bundle, which somebody may have replaced."""
ATTEMPTS = 5
"""Replicas that start together write one after the other."""
TIMEOUT = 5.0
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"

Object = dict[str, Any]


class RegistrationError(Exception):
    """The configuration is not one whose webhooks we could serve; one line that names the field."""


@dataclass(frozen=True, slots=True)
class _Own:
    """An authority of ours and what it signed."""

    authority: Authority
    pair: CertificatePair
    renew_at: datetime


class SelfSigned:
    """Keeps a certificate that every API server accepts.

    `serve` is called, from the thread that calls `step`, with the first certificate and with each new one.
    """

    def __init__(
        self,
        client: Client,
        configuration: str,
        serve: Callable[[CertificatePair], None],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._client, self._name, self._path = client, configuration, f"{CONFIGURATIONS}/{configuration}"
        self._serve, self._now, self._uniform = serve, now, uniform
        self._own: _Own | None = None
        self._next: _Own | None = None
        self._next_known_since: datetime | None = None
        self._problem: str | None = "not looked at yet"
        self._registered = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="self-signed", daemon=True)

    def start(self) -> None:
        """Register, and renew, in a thread of its own."""
        self._thread.start()

    def problem(self) -> str | None:
        """Why API servers cannot know our certificate; None once they can.

        An API server that cannot be asked later on is none: what is in the bundle stays there.
        """
        return None if self._registered else f"MutatingWebhookConfiguration {self._name}: {self._problem}"

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.step()
            self._stopped.wait(CHECK_SECONDS if self._registered else 1.0)

    def step(self) -> None:
        """Look at the bundle and the clock once, and do what is due. Raises nothing; what fails is tried again."""
        try:
            self._step()
        except (ClientError, RegistrationError) as error:
            self._report(str(error))
        except Exception as error:  # a bug must not end the renewing, or reviews end with the certificate
            log.exception("the certificate could not be looked after, trying again")
            self._report(repr(error))

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("the caBundle cannot be looked after", configuration=self._name, error=problem)
        self._problem = problem

    def _step(self) -> None:
        now = self._now()
        if self._next and now >= self._next.renew_at:
            self._next = None  # the API server could not be asked for so long that it is worth nothing any more
        if self._next is None and (self._own is None or now >= self._own.renew_at):
            self._next, self._next_known_since = self._make(now), None
        own = [item.authority.certificate for item in (self._own, self._next) if item and item.authority.not_after > now]
        changed = self._update(lambda bundle: merge(bundle, own, now))
        if changed:
            log.info("added to the caBundle", configuration=self._name, authorities=len(own))
        if self._next:
            self._hand_over(self._next, now)
        self._registered, self._problem = True, None

    def _hand_over(self, new: _Own, now: datetime) -> None:
        """Serve a new certificate, once every API server knows its authority or there is nothing better to serve."""
        if self._next_known_since is None:
            self._next_known_since = now
        if self._own and now < self._own.authority.not_after and now < self._next_known_since + SETTLE:
            return
        self._serve(new.pair)
        self._own, self._next = new, None
        log.info("serving a certificate of our own", not_after=new.pair.not_after.isoformat())

    def _make(self, now: datetime) -> _Own:
        hosts = _hosts(self._client.request("GET", self._path, timeout=TIMEOUT))
        authority = Authority.create(NAME, now=now, lifetime=LIFETIME)
        # Replicas that were started together need not renew together.
        renew_at = now + LIFETIME * RENEW_AFTER * self._uniform(0.9, 1.0)
        return _Own(authority, authority.issue(hosts, now=now), renew_at)

    def _update(self, change: Callable[[bytes], bytes]) -> bool:
        """Change every webhook's caBundle, beside others who do; whether there was anything to change. Raises ClientError."""
        for attempt in range(1, ATTEMPTS + 1):
            configuration = self._client.request("GET", self._path, timeout=TIMEOUT)
            patch = _patch(configuration, change)
            if not patch:
                return False
            try:
                self._client.request("PATCH", self._path, body=patch, content_type=JSON_PATCH, timeout=TIMEOUT)
            except ApiError as error:
                # 422: somebody else was faster, and the patch's test of the resourceVersion failed.
                if error.status not in (409, 422) or attempt == ATTEMPTS:
                    raise
            else:
                return True
        raise AssertionError("the last attempt returns or raises")

    def stop(self) -> None:
        """End the thread, and leave."""
        self._stopped.set()
        self._thread.join(timeout=2 * TIMEOUT)
        self.leave()

    def leave(self) -> None:
        """Take our authorities out of the bundle: nothing that they signed is served any more."""
        own = [item.authority.certificate for item in (self._own, self._next) if item]
        try:
            self._update(lambda bundle: without(bundle, own))
        except ClientError as error:
            log.warning("our authority stays in the caBundle until it expires", configuration=self._name, error=str(error))


def _hosts(configuration: Object) -> list[str]:
    """The names under which API servers reach the webhooks of a configuration. Raises RegistrationError."""
    hosts = []
    for index, webhook in enumerate(configuration.get("webhooks") or []):
        client = webhook.get("clientConfig") or {}
        service, host = client.get("service"), urlsplit(client.get("url") or "").hostname
        if service:
            hosts.append(f"{service['name']}.{service['namespace']}.svc")
        elif host:
            hosts.append(host)
        else:
            raise RegistrationError(f"webhooks[{index}].clientConfig names neither a service nor a url")
    if not hosts:
        raise RegistrationError("it has no webhooks")
    return list(dict.fromkeys(hosts))


def _patch(configuration: Object, change: Callable[[bytes], bytes]) -> list[Object]:
    """The JSON patch that changes the bundles of exactly this version of a configuration; empty if nothing changes."""
    operations: list[Object] = []
    for index, webhook in enumerate(configuration.get("webhooks") or []):
        client = webhook.get("clientConfig") or {}
        before = base64.b64decode(client.get("caBundle") or "")
        after = change(before)
        path = f"/webhooks/{index}/clientConfig/caBundle"
        if after and after != before:
            operations.append({"op": "add", "path": path, "value": base64.b64encode(after).decode()})
        elif before and not after:
            operations.append({"op": "remove", "path": path})
    if not operations:
        return []
    version = configuration["metadata"]["resourceVersion"]
    return [{"op": "test", "path": "/metadata/resourceVersion", "value": version}, *operations]
