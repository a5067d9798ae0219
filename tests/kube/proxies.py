"""A small proxy on loopback: HTTP with CONNECT, and SOCKS5; with TLS of its own, on IPv6, with a login, as a test wants it."""

import base64
import contextlib
import ipaddress
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LOGIN = ("us:er", "p@ss/wörd")
"""In a URL the user is `us%3Aer`; SOCKS and Basic differ in how they send them."""


class LoopbackProxy(socketserver.ThreadingTCPServer):
    """Leads every connection to `target`, whatever name it asks for; `asked` has these, `logins` who asked."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, target: tuple[str, int], *, host: str, context: ssl.SSLContext | None, login: bool) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Connection)
        self.target, self.login = target, login
        self.asked: list[str] = []
        self.logins: list[tuple[str, str] | None] = []
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def address(self) -> str:
        """`host:port`."""
        host, port = self.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that ends a connection is no news."""


class _Connection(socketserver.StreamRequestHandler):
    server: LoopbackProxy

    def handle(self) -> None:
        """One connection, by what it begins with."""
        first = self.rfile.read(1)
        if first == b"\x05":
            self._socks()
        elif first:
            self._http(first + self.rfile.readline())

    def _http(self, line: bytes) -> None:
        method, target, _ = line.decode().split()
        headers, rest = {}, b""
        while (header := self.rfile.readline().strip()) != b"":
            name, _, value = header.partition(b": ")
            headers[name.lower()] = value
            rest += header + b"\r\n" if not name.lower().startswith(b"proxy-") else b""
        scheme, _, encoded = headers.get(b"proxy-authorization", b"").partition(b" ")
        assert scheme in (b"", b"Basic")
        given = base64.b64decode(encoded).decode()
        # A colon in the user cannot be told from that before the password.
        self._know(target, LOGIN if given == ":".join(LOGIN) else None)
        if self.server.login and given != ":".join(LOGIN):
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        elif method == "CONNECT":
            self._lead(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            path = "/" + target.split("/", 3)[3]
            self._lead(b"", f"{method} {path} HTTP/1.1\r\n".encode() + rest + b"\r\n")

    def _socks(self) -> None:
        methods, login = self.rfile.read(self.rfile.read(1)[0]), None
        if self.server.login and b"\x02" not in methods:
            self.wfile.write(b"\x05\xff")
            return
        self.wfile.write(b"\x05\x02" if self.server.login else b"\x05\x00")
        if self.server.login:
            self.rfile.read(1)
            user, password = (self.rfile.read(self.rfile.read(1)[0]).decode() for _ in range(2))
            login = (user, password)
            self.wfile.write(b"\x01\x00" if login == LOGIN else b"\x01\x01")
        kind = self.rfile.read(4)[3]
        if kind == 3:
            host = self.rfile.read(self.rfile.read(1)[0]).decode()
        else:
            host = str(ipaddress.ip_address(self.rfile.read(4 if kind == 1 else 16)))
        (port,) = struct.unpack("!H", self.rfile.read(2))
        self._know(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", login)
        self._lead(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")

    def _know(self, target: str, login: tuple[str, str] | None) -> None:
        self.server.asked.append(target)
        self.server.logins.append(login)

    def _lead(self, answer: bytes, sent: bytes = b"") -> None:
        with socket.create_connection(self.server.target) as onward:
            self.wfile.write(answer)
            onward.sendall(sent)
            back = threading.Thread(target=_copy, args=(onward, self.connection), daemon=True)
            back.start()
            _copy(self.connection, onward)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def loopback_proxy(
    target: tuple[str, int], *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None, login: bool = False
) -> Iterator[LoopbackProxy]:
    """A proxy that serves until the end of the block; with `login` it is for LOGIN only."""
    with LoopbackProxy(target, host=host, context=context, login=login) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
