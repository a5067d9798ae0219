"""Certificates of the webhook's own: what is in the caBundle and served when, and what never happens to others' entries."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from mirrorstream.authority import Authority
from mirrorstream.certs import CertificatePair
from mirrorstream.kube.client import ApiError, ApiUnreachable
from mirrorstream_webhook import bundle
from mirrorstream_webhook.self_signed import LIFETIME, SETTLE, SelfSigned

from e2e.simulator.errors import StatusError
from e2e.simulator.patches import json_patch

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
        return bundle.entries(base64.b64decode(self.document["webhooks"][webhook]["clientConfig"].get("caBundle", "")))


class Bed:
    """A replica, its clock and what it serves."""

    def __init__(self, api: Api | None = None, clock: Clock | None = None) -> None:
        self.api, self.clock = api or Api(), clock or Clock()
        self.served: list[CertificatePair] = []
        self.replica = SelfSigned(self.api, "mirrorstream", self.served.append, now=self.clock, uniform=lambda low, high: high)  # type: ignore[arg-type]

    def step(self, after: timedelta = timedelta(0)) -> None:
        """Time passes, and the replica looks."""
        self.clock.pass_(after)
        self.replica.step()

    def accepted(self) -> bool:
        """Whether an API server with the present bundle accepts what is served now."""
        leaf = x509.load_pem_x509_certificate(self.served[-1].certificate)
        for entry in self.api.bundle():
            authority = x509.load_pem_x509_certificate(entry)
            if authority.subject == leaf.issuer and authority.not_valid_after_utc > self.clock.now:
                try:
                    leaf.verify_directly_issued_by(authority)
                except Exception:  # noqa: S112, BLE001  another replica's
                    continue
                return leaf.not_valid_before_utc <= self.clock.now < leaf.not_valid_after_utc
        return False


@pytest.fixture
def bed() -> Bed:
    """One replica."""
    return Bed()


def test_it_is_ready_once_its_authority_is_in_the_bundle(bed: Bed) -> None:
    """And serves at once then: before, no API server is sent to it."""
    assert bed.replica.problem() == "MutatingWebhookConfiguration mirrorstream: not looked at yet"
    assert bed.served == []
    bed.step()
    assert bed.replica.problem() is None
    assert len(bed.served) == len(bed.api.bundle()) == 1
    assert bed.accepted()


def test_the_certificate_names_what_the_configuration_names() -> None:
    """Services of any name and namespace, and URLs; every webhook of the configuration gets the authority."""
    bed = Bed(Api({"service": {"name": "hook", "namespace": "ns"}}, {"url": "https://hook.example.com:8443/mutate-pods"}))
    bed.step()
    (leaf,) = [x509.load_pem_x509_certificate(pair.certificate) for pair in bed.served]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hook.ns.svc", "hook.example.com"]
    assert bed.api.bundle(0) == bed.api.bundle(1) != []


def test_it_renews_before_it_expires_and_serves_only_what_api_servers_know(bed: Bed) -> None:
    """Every five minutes for a week: what is served is in the bundle, valid, and known there for a while before it is served."""
    known: dict[bytes, datetime] = {}
    bed.step()
    for _ in range(7 * 24 * 12):
        for entry in bed.api.bundle():
            known.setdefault(entry, bed.clock.now)
        before = len(bed.served)
        bed.step(timedelta(minutes=5))
        assert bed.accepted()
        if len(bed.served) > before:
            assert bed.clock.now - max(known.values()) >= SETTLE
        assert len(bed.api.bundle()) <= 3
    assert 8 <= len(bed.served) <= 12
    assert all(x509.load_pem_x509_certificate(entry).not_valid_after_utc > bed.clock.now for entry in bed.api.bundle())


def test_nothing_is_written_when_nothing_is_due(bed: Bed) -> None:
    """A look a time costs one read."""
    bed.step()
    for _ in range(100):
        bed.step(timedelta(seconds=5))
    assert bed.api.writes == 1


def test_replicas_share_the_bundle() -> None:
    """Each adds its own, none takes another's away; one that ends takes its own with it."""
    clock = Clock()
    first = Bed(clock=clock)
    second = Bed(first.api, clock)
    first.step()
    second.step()
    first.step()
    assert first.accepted()
    assert second.accepted()
    assert len(first.api.bundle()) == 2
    first.replica.leave()
    assert second.accepted()
    assert len(first.api.bundle()) == 1


def test_a_race_between_replicas_loses_no_entry(bed: Bed) -> None:
    """Somebody writes between our read and our write: the write is refused, and made again on what is there."""
    reads = 0

    def interfere(method: str) -> None:
        nonlocal reads
        reads += method == "GET"
        if method == "PATCH" and reads < 4:
            bed.api.put(b"".join([*bed.api.bundle(), b"\n", FOREIGN]) if not bed.api.bundle() else b"\n".join(bed.api.bundle()))

    bed.api.fail = interfere
    bed.step()
    assert bed.replica.problem() is None
    assert FOREIGN.strip() in bed.api.bundle()
    assert bed.accepted()


def test_a_bundle_that_was_replaced_is_mended(bed: Bed) -> None:
    """`oc replace`, or a GitOps tool that insists: at the next look our authority is back, and the others' stay."""
    bed.step()
    bed.api.put(FOREIGN)
    bed.step(timedelta(seconds=5))
    assert bed.accepted()
    assert FOREIGN.strip() in bed.api.bundle()
    assert len(bed.served) == 1


def test_others_entries_are_never_removed_not_even_expired_ones(bed: Bed) -> None:
    """They are not ours to judge."""
    bed.api.put(FOREIGN)
    bed.step()
    bed.step(timedelta(days=2))
    bed.replica.leave()
    assert bed.api.bundle() == [FOREIGN.strip()]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ApiError(403, "Forbidden", "mutatingwebhookconfigurations is forbidden"), "is forbidden"),
        (ApiError(404, "NotFound", "not found"), "not found"),
        (ApiUnreachable("connection refused"), "connection refused"),
    ],
    ids=["forbidden", "no such configuration", "unreachable"],
)
def test_what_keeps_it_from_being_known_is_said_and_tried_again(error: Exception, says: str, bed: Bed) -> None:
    """Not ready until then; no certificate is made again and again."""

    def fail(method: str) -> None:
        raise error

    bed.api.fail = fail
    bed.step()
    bed.step()
    assert says in (bed.replica.problem() or "")
    assert bed.served == []
    bed.api.fail = lambda method: None
    bed.step()
    assert bed.replica.problem() is None
    assert bed.accepted()


def test_without_an_api_server_it_stays_ready_and_serves_what_is_known(bed: Bed) -> None:
    """The bundle is still there; after an outage longer than the certificate's life a new one is served at once."""

    def fail(method: str) -> None:
        raise ApiUnreachable("connection refused")

    bed.step()
    bed.api.fail = fail
    bed.step(LIFETIME * 0.8)
    assert bed.replica.problem() is None
    assert len(bed.served) == 1
    bed.step(LIFETIME)
    bed.api.fail = lambda method: None
    bed.step(timedelta(seconds=5))
    assert len(bed.served) == 2
    assert bed.accepted()


@pytest.mark.parametrize(
    ("clients", "says"),
    [([{}], "webhooks[0].clientConfig names neither a service nor a url"), ([], "it has no webhooks")],
    ids=["no client", "no webhooks"],
)
def test_a_configuration_that_cannot_be_served_is_named(clients: list[Object], says: str) -> None:
    """With its field."""
    api = Api()
    api.document["webhooks"] = [{"name": "w", "clientConfig": client} for client in clients]
    bed = Bed(api)
    bed.step()
    assert bed.replica.problem() == f"MutatingWebhookConfiguration mirrorstream: {says}"


def test_pods_that_crash_again_and_again_do_not_fill_the_bundle() -> None:
    """Each leaves an authority that has not expired: only the newest stay."""
    clock, api = Clock(), Api()
    api.put(FOREIGN)
    for _ in range(bundle.MOST + 20):
        last = Bed(api, clock)
        last.step(timedelta(seconds=1))
    assert last.accepted()
    assert len(api.bundle()) == bundle.MOST + 1
    assert FOREIGN.strip() in api.bundle()


def test_what_is_no_certificate_is_left_out_and_breaks_nothing() -> None:
    """A block that cannot be read stays; text between blocks is no entry."""
    odd = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    merged = bundle.merge(b"text\n" + odd + b"\n# more\n", [FOREIGN], START)
    assert bundle.entries(merged) == [odd, FOREIGN.strip()]
    assert bundle.without(merged, [b"nothing"]) == merged
