"""Certificates of the webhook's own: what is in the caBundle and served when, and what never happens to others' entries."""

import ipaddress
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from mirrorstream.kube.client import ApiError, ApiUnreachable
from mirrorstream.runtime.certs import CertificatePair
from mirrorstream_webhook import ca_bundle
from mirrorstream_webhook.self_signed import LIFETIME, SETTLE

from tests.webhook.registered import FOREIGN, START, Api, Bed, Clock

Object = dict[str, Any]


@pytest.fixture
def bed() -> Bed:
    """One replica."""
    return Bed()


def test_it_is_ready_once_every_api_server_has_seen_its_authority(bed: Bed) -> None:
    """Before, the other replicas are asked: a review that is refused lets its pod through as it is."""
    assert bed.replica.problem() == "MutatingWebhookConfiguration mirrorstream: not looked at yet"
    assert bed.served == []
    bed.step()
    assert len(bed.served) == len(bed.api.bundle()) == 1
    assert bed.accepted()
    says = "MutatingWebhookConfiguration mirrorstream: not every API server may know our authority yet"
    assert bed.replica.problem() == says
    bed.step(SETTLE / 2)
    assert bed.replica.problem() == says
    bed.step(SETTLE / 2)
    assert bed.replica.problem() is None


def test_the_certificate_names_what_the_configuration_names() -> None:
    """Services of any name and namespace, and URLs; every webhook of the configuration gets the authority."""
    bed = Bed(Api({"service": {"name": "hook", "namespace": "ns"}}, {"url": "https://hook.example.com:8443/mutate-pods"}))
    bed.step()
    assert alternative_names(bed.served[0]) == ["hook.ns.svc", "hook.example.com"]
    assert bed.api.bundle(0) == bed.api.bundle(1) != []


def test_an_address_is_named_as_an_address() -> None:
    """Clients look for it among addresses, not among names."""
    bed = Bed(Api({"url": "https://10.0.0.1:8443/mutate-pods"}))
    bed.step()
    assert alternative_names(bed.served[0]) == [ipaddress.ip_address("10.0.0.1")]


def alternative_names(pair: CertificatePair) -> list[Any]:
    """Under which names and addresses a certificate's server may be reached."""
    leaf = x509.load_pem_x509_certificate(pair.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [*names.get_values_for_type(x509.DNSName), *names.get_values_for_type(x509.IPAddress)]


def test_it_renews_before_it_expires_and_serves_only_what_api_servers_know(bed: Bed) -> None:
    """For a week: what is served is valid, and its authority was in the bundle for a while before it was served."""
    known: dict[bytes, datetime] = {}
    bed.step()
    second, minutes = timedelta(seconds=1), timedelta(minutes=5)
    end = bed.clock.now + timedelta(days=7)
    while bed.clock.now < end:
        for entry in bed.api.bundle():
            known.setdefault(entry, bed.clock.now)
        before = len(bed.served)
        # Slowly where something happens: while there is more in the bundle than what is served.
        bed.step(second if len(bed.api.bundle()) > 1 and bed.clock.now - max(known.values()) < 2 * SETTLE else minutes)
        issuer = bed.issuer()
        assert issuer
        if len(bed.served) > before:
            assert bed.clock.now - known[issuer] >= SETTLE
        assert len(bed.api.bundle()) <= 2
    assert 8 <= len(bed.served) <= 12


def test_replicas_that_start_together_do_not_renew_together() -> None:
    """Each takes up to a tenth of the time off."""
    early, late = Bed(), Bed()
    early.jitter = 0.0
    for bed in (early, late):
        bed.step()
        bed.step(LIFETIME * (2 / 3) * 0.95)
        bed.settle()
    assert (len(early.served), len(late.served)) == (2, 1)


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
    second = Bed(first.api, clock, "pod-b")
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
    bed.settle()
    assert bed.replica.problem() is None
    assert FOREIGN.strip() in bed.api.bundle()
    assert bed.accepted()


def test_a_bundle_that_was_replaced_is_mended(bed: Bed) -> None:
    """`oc replace`, or a GitOps tool that insists: at the next look our authority is back, and ready once it is known again."""
    bed.step()
    bed.settle()
    assert bed.replica.problem() is None
    bed.api.put(FOREIGN)
    bed.step(timedelta(seconds=5))
    assert bed.accepted()
    assert FOREIGN.strip() in bed.api.bundle()
    assert len(bed.served) == 1
    assert "not every API server" in (bed.replica.problem() or "")
    bed.settle()
    assert bed.replica.problem() is None


def test_a_bundle_that_is_replaced_while_a_new_authority_settles_starts_the_wait_anew(bed: Bed) -> None:
    """What was put in a moment ago is not known yet, however long ago it was put in first."""
    bed.step()
    bed.step(LIFETIME * 0.7)
    assert (len(bed.served), len(bed.api.bundle())) == (1, 2)
    bed.api.put(FOREIGN)
    bed.settle()
    assert (len(bed.served), len(bed.api.bundle())) == (1, 3)
    bed.settle()
    assert len(bed.served) == 2


def test_not_ready_when_the_bundle_lacks_our_authority_and_does_not_take_it(bed: Bed) -> None:
    """A rollout that took the right away must not go on to the next replica."""

    def refuse(method: str) -> None:
        if method == "PATCH":
            raise ApiError(403, "Forbidden", "cannot patch")

    bed.step()
    bed.settle()
    bed.api.put(FOREIGN)
    bed.api.fail = refuse
    bed.step()
    assert bed.replica.problem() == "MutatingWebhookConfiguration mirrorstream: cannot patch"


def test_a_configuration_that_names_another_service_gets_another_certificate_at_once(bed: Bed) -> None:
    """The old one is refused by every API server: there is nothing to wait for."""
    bed.step()
    bed.settle()
    bed.api.document["webhooks"][0]["clientConfig"]["service"]["name"] = "renamed"
    bed.api.touch()
    bed.step()
    assert alternative_names(bed.served[-1]) == ["renamed.mirrorstream.svc"]
    bed.settle()
    assert bed.replica.problem() is None
    assert len(bed.api.bundle()) == 1


def test_a_refusal_by_admission_is_not_taken_for_a_race(bed: Bed) -> None:
    """Both are answered with 422; only a race changed the configuration, and only a race is worth another try at once."""
    tries = 0

    def deny(method: str) -> None:
        nonlocal tries
        if method == "PATCH":
            tries += 1
            raise ApiError(422, "Invalid", "ValidatingAdmissionPolicy denied request")

    bed.api.fail = deny
    bed.step()
    assert tries == 1
    assert "denied request" in (bed.replica.problem() or "")


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
    bed.settle()
    assert bed.replica.problem() is None
    assert bed.accepted()
    assert len(bed.served) == 1


def test_without_an_api_server_it_stays_ready_and_serves_what_is_known(bed: Bed) -> None:
    """The bundle is still there; after an outage longer than the certificate's life it says so, and then serves a new one."""

    def fail(method: str) -> None:
        raise ApiUnreachable("connection refused")

    bed.step()
    bed.step(LIFETIME * 0.7)
    assert len(bed.api.bundle()) == 2  # the next one's is in, and not known yet
    bed.api.fail = fail
    bed.step(LIFETIME * 0.1)
    assert bed.replica.problem() is None
    assert len(bed.served) == 1
    bed.step(LIFETIME)
    assert (bed.replica.problem() or "").startswith("the certificate has expired")
    bed.api.fail = lambda method: None
    bed.step(timedelta(seconds=5))
    assert len(bed.served) == 2
    assert bed.accepted()
    assert len(bed.api.bundle()) == 1


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


def test_a_container_that_crashes_again_and_again_leaves_one_authority() -> None:
    """It replaces its predecessor's; a replica that is well keeps its own."""
    clock, api = Clock(), Api()
    well = Bed(api, clock, "well")
    well.step()
    for _ in range(ca_bundle.MAX_CERTIFICATES + 20):
        last = Bed(api, clock, "crashing")
        last.step(timedelta(seconds=1))
    assert last.accepted()
    assert well.accepted()
    assert len(api.bundle()) == 2


def test_pods_that_are_killed_do_not_fill_the_bundle() -> None:
    """Each leaves an authority that has not expired: only the newest stay."""
    clock, api = Clock(), Api()
    api.put(FOREIGN)
    for number in range(ca_bundle.MAX_CERTIFICATES + 20):
        last = Bed(api, clock, f"pod-{number}")
        last.step(timedelta(seconds=1))
    assert last.accepted()
    assert len(api.bundle()) == ca_bundle.MAX_CERTIFICATES + 1
    assert FOREIGN.strip() in api.bundle()


def test_after_an_uninstallation_there_is_nothing_to_leave(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    """The configuration went first, as the guide says: no warning about a bundle that is gone."""
    bed.step()

    def gone(method: str) -> None:
        raise ApiError(404, "NotFound", "not found")

    bed.api.fail = gone
    bed.replica.leave()
    assert "stays in the caBundle" not in caplog.text


def test_what_is_no_certificate_is_left_out_and_breaks_nothing() -> None:
    """A block that cannot be read stays; text between blocks is no entry."""
    odd = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    merged = ca_bundle.merge(b"text\n" + odd + b"\n# more\n", [FOREIGN], START, "pod-a")
    assert ca_bundle.entries(merged) == [odd, FOREIGN.strip()]
    assert ca_bundle.without(merged, "pod-a") == merged
