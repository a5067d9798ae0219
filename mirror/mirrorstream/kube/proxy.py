"""Which proxy leads to the API server, as oc and kubectl decide it: the same settings work for them and for us.

The rules are those of Go's golang.org/x/net/http/httpproxy and of client-go. The environment's proxy is for all servers but this
machine and what NO_PROXY excepts; a kubeconfig's `proxy-url` comes before the environment, and nothing is excepted from it. OLM
gives every pod the cluster's proxy, and a NO_PROXY with the API server's address. urllib3 reads none of this.
"""

import base64
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3

from mirrorstream.kube.errors import ConfigurationError

PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
"""The schemes of proxies, with their usual ports."""
VARIABLES = {"http": ("HTTP_PROXY", "http_proxy"), "https": ("HTTPS_PROXY", "https_proxy")}
"""For servers with this scheme; the first one that is not empty counts."""
NO_PROXY = ("NO_PROXY", "no_proxy")
FORM = "expected SCHEME://[USER:PASSWORD@]HOST[:PORT] with the scheme http, https, socks5 or socks5h"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Proxy:
    """`host` is a name or an address, of IPv6 without brackets. `user` is None where nobody logs in."""

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str = ""

    @property
    def url(self) -> str:
        """Without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_proxy(value: str, origin: str) -> Proxy:
    """The proxy that a URL or `host:port` names. Raises ConfigurationError that names the `origin`, and never the password."""
    text = value.strip()
    proxy: Proxy | None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        user = None if parts.username is None else unquote(parts.username)
        proxy = Proxy(parts.scheme, parts.hostname or "", parts.port or PORTS[parts.scheme], user, unquote(parts.password or ""))
        # What fails here would fail in each request.
        urllib3.util.parse_url(proxy.url)
        proxy.host.encode("idna")
        _login(proxy)
    except (ValueError, KeyError):
        proxy = None
    if proxy is None or not proxy.host:
        raise ConfigurationError(f"{origin}: not a proxy: {FORM}")
    return proxy


def environment_proxy(server: str) -> Proxy | None:
    """The proxy for `server`, a valid URL, by HTTPS_PROXY or HTTP_PROXY, and NO_PROXY; None to connect directly.

    Raises ConfigurationError that names the variable.
    """
    name = next((name for name in VARIABLES.get(urlsplit(server).scheme, ()) if os.environ.get(name)), None)
    no_proxy = next((value for variable in NO_PROXY if (value := os.environ.get(variable))), "")
    return None if name is None or bypasses_proxy(server, no_proxy) else parse_proxy(os.environ[name], name)


def bypasses_proxy(server: str, no_proxy: str) -> bool:
    """Whether the environment's proxy is not for `server`, a URL: for this machine, and for what NO_PROXY's list excepts.

    An entry is `*`, an address, a network, or a domain, each but the first perhaps with a port. `example.com` is that name and all
    below it; `.example.com` and `*.example.com` are only those below it.
    """
    parts = urlsplit(server)
    host = parts.hostname or ""
    port = str(parts.port or PORTS.get(parts.scheme) or "")
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_matches(entry.strip().lower(), host, port, address) for entry in no_proxy.split(","))


def _matches(entry: str, host: str, port: str, address: Address | None) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return address is not None and _is_in_network(address, entry)
    name, only = _split(entry)
    if only not in ("", port):
        return False
    if address is not None:
        return _address(name) == address
    name = name[1:] if name.startswith("*.") else name
    if name.startswith("."):
        return host.endswith(name)
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _split(entry: str) -> tuple[str, str]:
    """The host and the port, if any, of an entry; an address of IPv6 may be in brackets."""
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
        return host, port.removeprefix(":")
    host, colon, port = entry.rpartition(":")
    return (host, port) if colon and ":" not in host else (entry, "")


def _is_in_network(address: Address, entry: str) -> bool:
    """Whether the entry is `ADDRESS/LENGTH` and has the address; Go knows no netmasks."""
    length = entry.partition("/")[2]
    if not (length.isascii() and length.isdigit()):
        return False
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
    return address in network


def _address(host: str) -> Address | None:
    """The address that `host` is, if it is one; to Go, one of IPv4 that is mapped into IPv6 is that one of IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def connection_pools(proxy: Proxy | None, options: Mapping[str, Any]) -> urllib3.PoolManager:
    """What makes connections, through the proxy if there is one; `options` are urllib3's."""
    if proxy is None:
        return urllib3.PoolManager(**options)
    if proxy.scheme.startswith("socks"):
        from urllib3.contrib.socks import SOCKSProxyManager  # noqa: PLC0415  few need it

        # Go has the proxy resolve names, with either scheme.
        url = proxy.url.replace("socks5://", "socks5h://")
        return SOCKSProxyManager(url, username=proxy.user or "", password=proxy.password, **options)
    return urllib3.ProxyManager(proxy.url, proxy_headers=_login(proxy), **options)


def connection_steps(proxy: Proxy | None) -> int:
    """For how many things a new connection to a server with TLS waits, each with the connect timeout: TCP, TLS, and the proxy.

    That is its answer to CONNECT, and perhaps its own TLS; with SOCKS, its answers to the greeting, the login and the address.
    """
    if proxy is None:
        return 2
    return {"http": 3, "https": 4}.get(proxy.scheme, 5)


def _login(proxy: Proxy) -> dict[str, str]:
    """The header by which a proxy knows the user."""
    if proxy.user is None:
        return {}
    return {"Proxy-Authorization": f"Basic {base64.b64encode(f'{proxy.user}:{proxy.password}'.encode()).decode()}"}
