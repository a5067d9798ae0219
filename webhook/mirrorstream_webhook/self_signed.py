"""Certificates without anybody who issues them: each replica makes its own, in memory, and tells the API servers its authority.

An authority is added to the caBundle of the one MutatingWebhookConfiguration that this account may patch, beside those of other
replicas. A replica is ready, and serving a new certificate, only when the authority has been in the bundle for a while: an API
server that has not seen it yet would refuse the connection, and let pods through as they are.
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
from mirrorstream.kube.client import JSON_PATCH, ApiError, Client, ClientError
from mirrorstream.runtime.ca import LONGEST_NAME, Authority
from mirrorstream.runtime.certs import CertificatePair

from mirrorstream_webhook.ca_bundle import NAME, has, merge, without

log = structlog.get_logger(__name__)

LIFETIME = timedelta(hours=24)
"""Short, since an authority stays in the bundle until it has expired when its pod was killed."""
RENEW_AFTER = 2 / 3
"""The part of its life after which a certificate gets a successor."""
SETTLE = timedelta(seconds=5)
"""How long an authority is in the bundle before an API server is sent to what it signed: until all of them have seen it."""
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
    """An authority of ours, what it signed and for which hosts."""

    authority: Authority
    pair: CertificatePair
    hosts: list[str]
    renew_at: datetime

    @property
    def pem(self) -> bytes:
        """What goes into the bundle."""
        return self.authority.certificate


class SelfSigned:
    """Keeps a certificate that every API server accepts.

    `serve` is called, from the thread that calls `step`, with the first certificate and with each new one. `replica` tells
    this replica's authorities from those of others (64 characters of it): a container that starts again replaces what it left.
    """

    def __init__(
        self,
        client: Client,
        configuration: str,
        serve: Callable[[CertificatePair], None],
        *,
        replica: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._client, self._name, self._path = client, configuration, f"{CONFIGURATIONS}/{configuration}"
        self._serve, self._replica, self._now, self._uniform = serve, replica[:LONGEST_NAME], now, uniform
        self._own: _Own | None = None
        self._next: _Own | None = None
        self._known_since: dict[bytes, datetime] = {}
        """For each of our authorities in the bundle: since when it has been there at every look."""
        self._problem: str | None = "not looked at yet"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="self-signed", daemon=True)

    def start(self) -> None:
        """Register, and renew, in a thread of its own."""
        self._thread.start()

    def problem(self) -> str | None:
        """Why API servers may not accept what is served; None if they do.

        While the API server cannot be asked, what was in the bundle before counts as still being there.
        """
        own, now = self._own, self._now()
        if own and now >= own.pair.not_after:
            return f"the certificate has expired; MutatingWebhookConfiguration {self._name}: {self._problem}"
        known = self._known_since.get(own.pem) if own else None
        if known is None:
            return f"MutatingWebhookConfiguration {self._name}: {self._problem}"
        if now < known + SETTLE:
            return f"MutatingWebhookConfiguration {self._name}: not every API server may know our authority yet"
        return None

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.step()
            self._stopped.wait(CHECK_SECONDS if self.problem() is None else 1.0)

    def step(self) -> None:
        """Look at the bundle and the clock once, and do what is due. Raises nothing; what fails is tried again."""
        try:
            self._step()
        except (ClientError, RegistrationError) as error:
            self._report(str(error))
        except Exception as error:  # a bug must not end the renewing, or reviews end with the certificate
            log.exception("certificate renewal failed, will retry")
            self._report(repr(error))
        else:
            self._problem = None

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("cannot update the caBundle", configuration=self._name, error=problem)
        self._problem = problem

    def _step(self) -> None:
        now = self._now()
        configuration = self._get()
        hosts = _hosts(configuration)
        if self._next and (now >= self._next.renew_at or self._next.hosts != hosts):
            self._next = None  # the bundle could not be updated for so long, or the API servers ask for another name by now
        if self._next is None and (self._own is None or now >= self._own.renew_at or self._own.hosts != hosts):
            self._next = self._make(hosts, now)
        own = [item.pem for item in (self._own, self._next) if item and item.authority.not_after > now]
        self._forget_what_is_not_in(configuration)
        if self._update(configuration, lambda bundle: merge(bundle, own, now, self._replica)):
            log.info("added to the caBundle", configuration=self._name, authorities=len(own))
        self._known_since = {pem: self._known_since.get(pem, now) for pem in own}
        if self._next:
            self._hand_over(self._next, now)

    def _forget_what_is_not_in(self, configuration: Object) -> None:
        """Somebody replaced a bundle: what has to be put in again is new to the API servers."""
        bundles = [_bundle(webhook) for webhook in configuration["webhooks"]]
        self._known_since = {pem: since for pem, since in self._known_since.items() if all(has(bundle, pem) for bundle in bundles)}

    def _hand_over(self, new: _Own, now: datetime) -> None:
        """Serve a new certificate, once every API server knows its authority or there is nothing better to serve."""
        own = self._own
        is_good = own is not None and now < own.authority.not_after and own.hosts == new.hosts
        if is_good and now < self._known_since[new.pem] + SETTLE:
            return
        self._serve(new.pair)
        self._own, self._next = new, None
        log.info("serving a self-signed certificate", not_after=new.pair.not_after.isoformat())

    def _make(self, hosts: list[str], now: datetime) -> _Own:
        authority = Authority.create(NAME, now=now, lifetime=LIFETIME, unit=self._replica)
        # Replicas that were started together need not renew together.
        renew_at = now + LIFETIME * RENEW_AFTER * self._uniform(0.9, 1.0)
        return _Own(authority, authority.issue(hosts, now=now), hosts, renew_at)

    def _get(self) -> Object:
        found: Object = self._client.request("GET", self._path, timeout=TIMEOUT)
        return found

    def _update(self, configuration: Object, change: Callable[[bytes], bytes]) -> bool:
        """Change every webhook's caBundle, beside others who do; whether there was anything to change. Raises ClientError."""
        for attempt in range(1, ATTEMPTS + 1):
            patch = _patch(configuration, change)
            if not patch:
                return False
            try:
                self._client.request("PATCH", self._path, body=patch, content_type=JSON_PATCH, timeout=TIMEOUT)
            except ApiError as error:
                # 422 has two meanings: somebody was faster, and the patch's test of the version failed; or admission says no.
                if error.status not in (409, 422) or attempt == ATTEMPTS:
                    raise
                self._stopped.wait(self._uniform(0.0, 0.1) * attempt)
                before, configuration = configuration, self._get()
                if _version(configuration) == _version(before):
                    raise
            else:
                return True
        raise AssertionError("the last attempt returns or raises")

    def end(self) -> None:
        """Serve nothing new from now on."""
        self._stopped.set()
        self._thread.join(timeout=2 * TIMEOUT)

    def leave(self) -> None:
        """Take our authorities out of the bundle, once nothing that they signed is served any more."""
        try:
            self._update(self._get(), lambda bundle: without(bundle, self._replica))
        except ClientError as error:
            if isinstance(error, ApiError) and error.status == 404:
                return  # uninstalled: there is no bundle any more
            log.warning("own CA stays in the caBundle until it expires", configuration=self._name, error=str(error))


def _version(configuration: Object) -> str:
    return str(configuration["metadata"]["resourceVersion"])


def _bundle(webhook: Object) -> bytes:
    return base64.b64decode((webhook.get("clientConfig") or {}).get("caBundle") or "")


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
        before = _bundle(webhook)
        after = change(before)
        path = f"/webhooks/{index}/clientConfig/caBundle"
        if after and after != before:
            operations.append({"op": "add", "path": path, "value": base64.b64encode(after).decode()})
        elif before and not after:
            operations.append({"op": "remove", "path": path})
    return (
        [{"op": "test", "path": "/metadata/resourceVersion", "value": _version(configuration)}, *operations] if operations else []
    )
