"""Probes and metrics: over HTTP, and over TLS with a certificate that may change."""

import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.runtime.health import HealthServer
from mirrorstream.runtime.metrics import Metrics

from e2e.testbed.support.certificates import DAYS, Authority, Pair
from tests.runtime.loopback import LOOPBACK


def get(server: HealthServer, path: str, context: ssl.SSLContext | None = None) -> tuple[int, str]:
    """One request."""
    if context:
        connection: http.client.HTTPConnection = http.client.HTTPSConnection("localhost", server.port, timeout=5, context=context)
    else:
        connection = http.client.HTTPConnection("localhost", server.port, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


@pytest.fixture
def problems() -> dict[str, str | None]:
    """What is wrong."""
    return {"healthy": None, "ready": "not synced yet"}


@pytest.fixture
def server(problems: dict[str, str | None]) -> Iterator[HealthServer]:
    """A server over HTTP."""
    metrics = Metrics()
    metrics.policy_warnings.set(1)
    found = HealthServer(0, metrics.registry, healthy=lambda: problems["healthy"], ready=lambda: problems["ready"])
    found.start()
    yield found
    found.stop()


def test_probes_say_what_is_wrong(server: HealthServer, problems: dict[str, str | None]) -> None:
    """503 with one line, 200 when all is well."""
    assert get(server, "/healthz") == (200, "ok\n")
    assert get(server, "/readyz") == (503, "not synced yet\n")
    problems["ready"] = None
    assert get(server, "/readyz") == (200, "ok\n")
    assert get(server, "/nowhere")[0] == 404


@pytest.mark.parametrize("address", LOOPBACK)
def test_probes_are_answered_in_both_families(server: HealthServer, address: str) -> None:
    """A kubelet asks the pod's first address, which may be of either."""
    connection = http.client.HTTPConnection(address, server.port, timeout=5)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()


def test_metrics_have_our_prefix_and_help(server: HealthServer) -> None:
    """As Prometheus expects them."""
    status, text = get(server, "/metrics")
    assert status == 200
    assert "mirrorstream_mirror_rule_warnings 1.0" in text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    assert all(name.startswith(("mirrorstream_", "process_", "python_")) for name in names)


def test_a_changed_certificate_is_used_for_the_next_connection(tmp_path: Path) -> None:
    """And half of a new pair is not."""
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def new_pair() -> tuple[Authority, Pair]:
        authority = Authority(tmp_path / "pki", "ca")
        return authority, authority.issue("localhost", hosts=("localhost",))

    def write() -> ssl.SSLContext:
        authority, pair = new_pair()
        certificate.write_bytes(pair.certificate.read_bytes())
        key.write_bytes(pair.key.read_bytes())
        return ssl.create_default_context(cafile=str(authority.certificate))

    first = write()
    metrics = Metrics()
    server = HealthServer(0, metrics.registry, healthy=lambda: None, ready=lambda: None, certificate=str(certificate), key=str(key))
    server.start()
    try:
        assert get(server, "/healthz", first)[0] == 200
        certificate.write_bytes(new_pair()[1].certificate.read_bytes())
        assert get(server, "/healthz", first)[0] == 200
        second = write()
        assert get(server, "/healthz", second)[0] == 200
        assert server.validity is not None
        assert server.validity.start < time.time() < server.validity.end < time.time() + (DAYS + 1) * 86400
        with pytest.raises(ssl.SSLCertVerificationError):
            get(server, "/healthz", first)
    finally:
        server.stop()


def test_a_port_that_is_taken_is_named() -> None:
    """In one line."""
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} for metrics and health: Address already in use"):
            HealthServer(port, Metrics().registry, healthy=lambda: None, ready=lambda: None)
