"""A webhook registration, and the program that keeps its certificate there, with a clock that tests turn."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from mirrorstream.kube.client import ApiError
from mirrorstream.runtime.ca import Authority
from mirrorstream.runtime.certs import CertificatePair
from mirrorstream_webhook import ca_bundle
from mirrorstream_webhook.self_signed import SETTLE, SelfSigned

from e2e.testbed.simulator.errors import StatusError
from e2e.testbed.simulator.patches import json_patch

Object = dict[str, Any]
START = datetime(2026, 1, 1, tzinfo=UTC)


FOREIGN = Authority.create("somebody-else", now=START, lifetime=timedelta(hours=1)).certificate


class Clock:
    """A time that tests move."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """What it shows."""
        return self.now

    def pass_(self, delta: timedelta) -> None:
        """Let time pass."""
        self.now += delta


class Api:
    """One MutatingWebhookConfiguration, with versions, JSON patches, and failures on command."""

    def __init__(self, *clients: Object) -> None:
        clients = clients or ({"service": {"name": "mirrorstream-webhook", "namespace": "mirrorstream"}},)
        webhooks = [{"name": f"w{number}", "clientConfig": client} for number, client in enumerate(clients)]
        self.document: Object = {"metadata": {"name": "mirrorstream", "resourceVersion": "1"}, "webhooks": webhooks}
        self.writes = 0
        self.fail: Callable[[str], None] = lambda method: None

    def request(self, method: str, path: str, *, body: Any = None, content_type: str = "", timeout: float = 0) -> Object:
        """What the controller's client does."""
        assert path == "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/mirrorstream"
        self.fail(method)
        if method == "PATCH":
            try:
                self.document = json_patch(self.document, body)
            except StatusError as error:
                raise ApiError(422, "Invalid", str(error)) from error
            self.writes += 1
            self.touch()
        return json.loads(json.dumps(self.document))  # type: ignore[no-any-return]

    def touch(self) -> None:
        """A write."""
        metadata = self.document["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)

    def put(self, content: bytes, webhook: int = 0) -> None:
        """Somebody writes a caBundle."""
        self.document["webhooks"][webhook]["clientConfig"]["caBundle"] = base64.b64encode(content).decode()
        self.touch()

    def bundle(self, webhook: int = 0) -> list[bytes]:
        """The bundle's certificates."""
        return ca_bundle.entries(base64.b64decode(self.document["webhooks"][webhook]["clientConfig"].get("caBundle", "")))


class Bed:
    """A replica, its clock and what it serves."""

    def __init__(self, api: Api | None = None, clock: Clock | None = None, replica: str = "pod-a") -> None:
        self.api, self.clock = api or Api(), clock or Clock()
        self.served: list[CertificatePair] = []
        client: Any = self.api
        self.replica = SelfSigned(
            client,
            "mirrorstream",
            self.served.append,
            replica=replica,
            now=self.clock,
            uniform=lambda low, high: low + (high - low) * self.jitter,
        )
        self.jitter = 1.0

    def step(self, after: timedelta = timedelta(0)) -> None:
        """Time passes, and the replica looks."""
        self.clock.pass_(after)
        self.replica.step()

    def issuer(self) -> bytes | None:
        """The entry of the bundle that signed what is served now; None if there is none, or one of the two is not valid."""
        leaf = x509.load_pem_x509_certificate(self.served[-1].certificate)
        for entry in self.api.bundle():
            authority = x509.load_pem_x509_certificate(entry)
            valid = all(c.not_valid_before_utc <= self.clock.now < c.not_valid_after_utc for c in (leaf, authority))
            try:
                leaf.verify_directly_issued_by(authority)
            except (ValueError, InvalidSignature):  # another one's
                continue
            return entry if valid else None
        return None

    def accepted(self) -> bool:
        """Whether an API server with the present bundle accepts what is served now."""
        return self.issuer() is not None

    def settle(self) -> None:
        """Time passes until every API server knows the bundle, and the replica looks."""
        self.step(SETTLE)
