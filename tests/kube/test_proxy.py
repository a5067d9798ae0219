"""Proxies as oc and kubectl have them: which servers are reached through one, and that they are."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from mirrorstream.kube.client import CONNECT_TIMEOUT, ApiUnreachable, Client, ConfigurationError, load_client
from mirrorstream.kube.proxy import VARIABLES, Proxy, bypasses_proxy, environment_proxy, parse_proxy
from mirrorstream.kube.rest_config import RestConfig

from e2e.testbed.support.certificates import Authority
from tests.kube.conftest import Script, secured
from tests.kube.proxies import LOGIN, loopback_proxy

ALL_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the test run does not count."""
    for name in ALL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("server", "no_proxy", "bypassed"),
    [
        pytest.param("https://10.0.0.1:443", "", False, id="nothing-excepted"),
        pytest.param("https://10.0.0.1:443", " , ,.,:,:443,[],*.,/", False, id="malformed-entries"),
        pytest.param("https://10.0.0.1:443", "*", True, id="everything"),
        pytest.param("https://10.0.0.1:443", "a.example, * ", True, id="everything-in-a-list"),
        pytest.param("https://10.0.0.1:443", "a.example, 10.0.0.1", True, id="address"),
        pytest.param("https://10.0.0.1:443", "10.0.0.1:443", True, id="address-and-port"),
        pytest.param("https://10.0.0.1", "10.0.0.1:443", True, id="address-and-usual-port"),
        pytest.param("http://10.0.0.1", "10.0.0.1:80", True, id="address-and-usual-port-of-http"),
        pytest.param("https://10.0.0.1:443", "10.0.0.1:8443", False, id="another-port"),
        pytest.param("https://10.0.0.1:443", "0.0.1", False, id="end-of-an-address"),
        pytest.param("https://10.0.0.1:443", "10.0.0.0/24", True, id="network"),
        pytest.param("https://10.0.0.1:443", "10.0.0.9/24", True, id="network-by-one-of-its-addresses"),
        pytest.param("https://10.0.0.1:443", "10.1.0.0/24", False, id="another-network"),
        pytest.param("https://10.0.0.1:443", "10.0.0.0/99", False, id="no-network"),
        pytest.param("https://10.0.0.1:443", "fd00::/8", False, id="network-of-another-family"),
        pytest.param("https://[fd00::1]:443", "fd00::/8", True, id="network-of-ipv6"),
        pytest.param("https://[fd00::1]:443", "fe80::/8", False, id="another-network-of-ipv6"),
        pytest.param("https://[fd00::1]:443", "fd00::1", True, id="address-of-ipv6"),
        pytest.param("https://[fd00::1]:443", "fd00:0::01", True, id="address-of-ipv6-in-another-form"),
        pytest.param("https://[fd00::1]:443", "[fd00::1]", True, id="address-of-ipv6-in-brackets"),
        pytest.param("https://[fd00::1]:443", "[fd00::1]:443", True, id="address-of-ipv6-and-port"),
        pytest.param("https://[fd00::1]:443", "[fd00::1]:8443", False, id="address-of-ipv6-and-another-port"),
        pytest.param("https://10.0.0.1:443", "10.0.0.0/255.255.255.0", False, id="netmask"),
        pytest.param("https://10.0.0.1:443", "::ffff:10.0.0.1", True, id="mapped-address"),
        pytest.param("https://[::ffff:10.0.0.1]:443", "10.0.0.1", True, id="mapped-address-of-the-server"),
        pytest.param("https://[::ffff:10.0.0.1]:443", "10.0.0.0/24", True, id="mapped-address-in-a-network"),
        pytest.param("https://api.example.com", "example.com", True, id="domain"),
        pytest.param("https://example.com", "example.com", True, id="domain-itself"),
        pytest.param("https://API.example.com", ".Example.com", True, id="domain-with-a-dot"),
        pytest.param("https://example.com", ".example.com", False, id="domain-with-a-dot-itself"),
        pytest.param("https://api.c.example.com", "*.example.com", True, id="domain-with-an-asterisk"),
        pytest.param("https://example.com", "*.example.com", False, id="domain-with-an-asterisk-itself"),
        pytest.param("https://api.example.com:6443", "*.example.com:6443", True, id="domain-with-an-asterisk-and-port"),
        pytest.param("https://api.example.com:6443", "example.com:6443", True, id="domain-and-port"),
        pytest.param("https://api.example.com:6443", "example.com:443", False, id="domain-and-another-port"),
        pytest.param("https://badexample.com", "example.com", False, id="no-subdomain"),
        pytest.param("https://api.example.com", "10.0.0.0/8", False, id="name-against-network"),
        pytest.param("https://localhost:6443", "", True, id="localhost"),
        pytest.param("https://localhost.example.com", "", False, id="localhost-of-a-domain"),
        pytest.param("https://127.0.0.1:6443", "", True, id="loopback"),
        pytest.param("https://127.9.9.9:6443", "", True, id="another-loopback"),
        pytest.param("https://[::1]:6443", "", True, id="loopback-of-ipv6"),
        pytest.param("https://[::ffff:127.0.0.1]:6443", "", True, id="mapped-loopback"),
    ],
)
def test_exceptions(server: str, no_proxy: str, bypassed: bool) -> None:
    """NO_PROXY as OpenShift writes it, and all that Go's clients take; this machine is never reached through a proxy."""
    assert bypasses_proxy(server, no_proxy) is bypassed


P, Q = Proxy("http", "p", 80), Proxy("http", "q", 80)


@pytest.mark.parametrize(
    ("server", "variables", "proxy"),
    [
        pytest.param("https://api", {}, None, id="none"),
        pytest.param("https://api", {"https_proxy": "http://p"}, P, id="https"),
        pytest.param("https://api", {"HTTPS_PROXY": "http://p"}, P, id="upper-case"),
        pytest.param("https://api", {"HTTPS_PROXY": "http://p", "https_proxy": "http://q"}, P, id="upper-case-first"),
        pytest.param("https://api", {"HTTPS_PROXY": "", "https_proxy": "http://q"}, Q, id="upper-case-empty"),
        pytest.param("https://api", {"HTTP_PROXY": "http://p"}, None, id="of-another-scheme"),
        pytest.param("http://api", {"HTTP_PROXY": "http://p", "HTTPS_PROXY": "http://q"}, P, id="http"),
        pytest.param("https://api", {"ALL_PROXY": "http://p"}, None, id="for-all-is-not-for-go"),
        pytest.param("https://api", {"https_proxy": "http://p", "no_proxy": "api"}, None, id="excepted"),
        pytest.param("https://api", {"https_proxy": "http://p", "NO_PROXY": "api", "no_proxy": ""}, None, id="excepted-upper-case"),
        pytest.param("https://localhost", {"HTTPS_PROXY": "7:7:7"}, None, id="malformed-and-not-needed"),
    ],
)
def test_the_environments_proxy(
    server: str, variables: dict[str, str], proxy: Proxy | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the server's scheme."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(server) == proxy


@pytest.mark.parametrize(
    ("proxy", "waits"),
    [
        pytest.param("", 0.6, id="none"),
        pytest.param("http://p", 0.4, id="http"),
        pytest.param("https://p", 0.3, id="https"),
        pytest.param("socks5://p", 0.24, id="socks"),
    ],
)
def test_a_write_divides_its_time_among_the_steps_of_a_connection(
    proxy: str, waits: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCP, a proxy's TLS and answers, TLS: each may take the connect timeout, and a lead may end."""
    config = RestConfig("https://api", proxy=parse_proxy(proxy, "x") if proxy else None)
    client = Client(lambda: config, before_write=lambda: 1.2)
    asked: list[float] = []

    def request(*_: object, timeout: urllib3.Timeout, **__: object) -> None:
        assert isinstance(timeout.connect_timeout, float)
        asked.append(timeout.connect_timeout)
        raise OSError

    monkeypatch.setattr(client._pool, "request", request)
    for method in ("PUT", "GET"):
        with pytest.raises(ApiUnreachable):
            client.request(method, "/x")
    assert asked == pytest.approx([waits, CONNECT_TIMEOUT])


@pytest.mark.parametrize(
    ("value", "proxy"),
    [
        ("http://p.example:3128/path", Proxy("http", "p.example", 3128)),
        (" p.example:3128 ", Proxy("http", "p.example", 3128)),
        ("127.0.0.1", Proxy("http", "127.0.0.1", 80)),
        ("[fd00::1]:3128", Proxy("http", "fd00::1", 3128)),
        ("https://p", Proxy("https", "p", 443)),
        ("HTTPS://P", Proxy("https", "p", 443)),
        ("socks5://p", Proxy("socks5", "p", 1080)),
        ("socks5h://u@[fd00::1]:1", Proxy("socks5h", "fd00::1", 1, "u")),
        ("http://u%3A:p%40@p", Proxy("http", "p", 80, "u:", "p@")),
        ("u:p@p:3128", Proxy("http", "p", 3128, "u", "p")),
    ],
    ids=str,
)
def test_values(value: str, proxy: Proxy) -> None:
    """`HOST:PORT` means http."""
    assert parse_proxy(value, "HTTPS_PROXY") == proxy


MALFORMED = [
    "http://", "://", "//", ":", "@", "http://:80", "http://user:secret@", "http://p:port", "http://p:99999", "http://p:-1",
    "http://[fd00::1", "http://fd00::1]:80", "http://[]", "http://[nonsense]:80", "socks4://p", "ftp://p", "file:///p",
    "http://p p", "http://" + "p" * 70, "http://p..example", "http://p\x00", "http://p\n.example\x7f", "http://\udcff", "\udcff:80",
    "http://u\udcff:secret@p", "http://user:secret", "http://%", "7:7:7",
]  # fmt: skip


@pytest.mark.parametrize("value", MALFORMED, ids=ascii)
def test_malformed_values(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the variable, or the kubeconfig and its field, and no password. What passes is a request that fails."""
    path = Script().kubeconfig(tmp_path / "kubeconfig")
    document = yaml.safe_load(path.read_text())
    cluster = document["clusters"][0]["cluster"]
    cluster["server"] = "https://api.invalid"
    path.write_text(yaml.safe_dump(document))
    monkeypatch.setattr("mirrorstream.kube.kubeconfig.environment_proxy", lambda server: parse_proxy(value, "HTTPS_PROXY"))
    _fails(path, "HTTPS_PROXY")
    monkeypatch.undo()
    if "\udcff" not in value and "\x00" not in value:
        path.write_text(yaml.safe_dump(document | {"clusters": [{"name": "c", "cluster": cluster | {"proxy-url": value}}]}))
        _fails(path, f"kubeconfig {path}: proxy-url")


def _fails(path: Path, origin: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_client(str(path), in_cluster=False)
    assert str(raised.value).startswith(f"{origin}: not a proxy: expected SCHEME://")
    assert "secret" not in str(raised.value)


def test_a_proxy_url_that_is_no_text(tmp_path: Path) -> None:
    """As a YAML file may have it."""
    path = Script().kubeconfig(tmp_path / "kubeconfig")
    document = yaml.safe_load(path.read_text())
    document["clusters"][0]["cluster"]["proxy-url"] = ["http://p"]
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigurationError, match="proxy-url: expected text"):
        load_client(str(path), in_cluster=False)


# Through a proxy.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The cluster's."""
    return Authority(tmp_path_factory.mktemp("authority"), "cluster")


@pytest.fixture
def secure(authority: Authority) -> Iterator[Script]:
    """An API server that no name leads to, with TLS."""
    pair = authority.issue("api", hosts=("api.invalid", "fd00::1", "localhost"))
    script = secured(authority)
    script.server.socket.context.load_cert_chain(pair.certificate, pair.key)  # type: ignore[attr-defined]
    yield script
    script.ended.set()
    script.server.shutdown()
    script.server.server_close()


def serving(authority: Authority, host: str) -> ssl.SSLContext:
    """TLS of a proxy."""
    pair = authority.issue("proxy", hosts=(host,))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def target(script: Script) -> tuple[str, int]:
    """Where it is."""
    host, port = script.server.server_address[:2]
    return str(host), port


@pytest.mark.parametrize("login", [False, True], ids=["open", "login"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
@pytest.mark.parametrize("server", ["https://api.invalid:6443", "https://[fd00::1]:6443", "http://api.invalid:8080"])
def test_a_request_and_a_watch_through_a_proxy(
    scheme: str, host: str, login: bool, server: str, secure: Script, script: Script, authority: Authority
) -> None:
    """The proxy resolves the server's name, learns the user and the password, and cannot read what is encrypted."""
    chosen = secure if server.startswith("https") else script
    user = "us%3Aer:p%40ss%2Fw%C3%B6rd@" if login else ""
    context = serving(authority, host) if scheme == "https" else None
    with loopback_proxy(target(chosen), host=host, context=context, login=login) as proxy:
        config = RestConfig(
            server,
            authorization=lambda: "Bearer token",
            ca_file=str(authority.certificate),
            proxy=parse_proxy(f"{scheme}://{user}{proxy.address}", "HTTPS_PROXY"),
        )
        client = Client(lambda: config)
        chosen.handle = lambda request: request.answer(200, {"sent": request.headers.get("Authorization")})
        assert client.get("/x") == {"sent": "Bearer token"}
        chosen.handle = lambda request: request.stream({"type": "ADDED"}) or request.finish_stream()
        assert list(client.watch("/x", {"watch": "1"}, read_timeout=5)) == [b'{"type": "ADDED"}']
        client.close()
    there = server.partition("://")[2]
    assert {asked.removeprefix("http://").partition("/")[0] for asked in proxy.asked} == {there}
    assert set(proxy.logins) == {LOGIN if login else None}


@pytest.mark.parametrize("scheme", ["http", "socks5"])
@pytest.mark.parametrize(
    ("case", "says"), [("refused-login", "407|authentication"), ("away", "refused")], ids=["refused-login", "away"]
)
def test_a_proxy_that_does_not_lead_there(scheme: str, case: str, says: str, secure: Script) -> None:
    """One line that says why."""
    with loopback_proxy(target(secure), login=True) as proxy:
        address = proxy.address if case == "refused-login" else "127.0.0.1:9"
        config = RestConfig("https://api.invalid", insecure=True, proxy=parse_proxy(f"{scheme}://user:wrong@{address}", "X"))
        with pytest.raises(ApiUnreachable, match=f"(?i){says}") as raised:
            Client(lambda: config).get("/x")
    assert f"through the proxy {scheme}://{address}: " in str(raised.value)
    assert "wrong" not in str(raised.value)


def test_a_kubeconfigs_proxy_comes_first(secure: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the environment's, and NO_PROXY does not count; also for this machine. Without it the environment's is used."""
    secure.handle = lambda request: request.answer(200, {})
    path = secure.kubeconfig(tmp_path / "kubeconfig")
    document: Any = yaml.safe_load(path.read_text())
    cluster = document["clusters"][0]["cluster"]
    cluster |= {"server": "https://api.invalid:6443", "insecure-skip-tls-verify": True}
    with ExitStack() as stack:
        named, environments = (stack.enter_context(loopback_proxy(target(secure))) for _ in range(2))
        monkeypatch.setenv(VARIABLES["https"][0], environments.address)

        def ask(**more: str) -> None:
            path.write_text(yaml.safe_dump(document | {"clusters": [{"name": "c", "cluster": cluster | more}]}))
            client = load_client(str(path), in_cluster=False)
            client.get("/x")
            client.close()

        ask()
        assert (len(named.asked), len(environments.asked)) == (0, 1)
        monkeypatch.setenv("NO_PROXY", "*")
        ask(**{"proxy-url": f"http://{named.address}"})
        ask(**{"proxy-url": f"http://{named.address}", "server": "https://localhost:6443"})
        assert (len(named.asked), len(environments.asked)) == (2, 1)
        local = secure.url.replace("http:", "https:")
        monkeypatch.delenv("NO_PROXY")
        ask(server=local)
        assert (len(named.asked), len(environments.asked)) == (2, 1)
