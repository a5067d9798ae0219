"""Behind a kube-apiserver the simulator believes nobody else."""

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.testbed.simulator.api import Api
from e2e.testbed.simulator.identity import FrontProxy
from e2e.testbed.simulator.resources import Registry, core_kinds
from e2e.testbed.simulator.server import Server
from e2e.testbed.simulator.store import Store
from e2e.testbed.support.certificates import Authority, serving_context

Ask = Callable[..., int]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """Ask a server that trusts the certificate `proxy` of one authority; the status of the answer."""
    authority, front = Authority(tmp_path / "server", "server-ca"), Authority(tmp_path / "front", "front-ca")
    context = serving_context(authority.issue("server", hosts=("localhost",)))
    context.load_verify_locations(front.certificate)
    context.verify_mode = ssl.CERT_OPTIONAL
    registry = Registry()
    core_kinds(registry)
    server = Server(0, Api(Store(), registry), context, FrontProxy("proxy"))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def run(certificate: str, headers: dict[str, str], path: str = "/api/v1/namespaces") -> int:
        own = ssl.create_default_context(cafile=str(authority.certificate))
        if certificate:
            pair = front.issue(certificate)
            own.load_cert_chain(pair.certificate, pair.key)
        connection = http.client.HTTPSConnection("localhost", server.server_address[1], context=own, timeout=5)
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()

    yield run
    server.shutdown()
    server.end()


USER = {"X-Remote-User": "somebody"}


@pytest.mark.parametrize(
    ("certificate", "headers", "path", "status"),
    [
        ("proxy", USER, "/api/v1/namespaces", 200),
        ("proxy", {}, "/api/v1/namespaces", 401),
        ("stranger", USER, "/api/v1/namespaces", 401),
        ("", USER, "/api/v1/namespaces", 401),
        ("", {}, "/simulator/faults", 401),
        ("", {}, "/readyz", 200),
    ],
    ids=["proxy", "nobody-in-particular", "another-name", "no-certificate", "controls", "health"],
)
def test_only_the_proxys_certificate_may_say_who_asks(
    ask: Ask, certificate: str, headers: dict[str, str], path: str, status: int
) -> None:
    """Headers are just text; the certificate is what makes them true."""
    assert ask(certificate, headers, path) == status
