"""TLS under a connection, with Python's ssl in memory: asyncio's own keeps 256 KiB for each connection, idle ones too."""

import asyncio
import os
import ssl
from contextlib import suppress
from typing import Any, cast

from mirrorstream.runtime.certs import CertificatePair

HANDSHAKE_SECONDS = 10.0
READ = 64 * 1024
"""Bytes that are read at a time; a record has 16 KiB at most."""


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """The transport of a protocol, to which it hands what it decrypts once the handshake is done; in `handshakes` until then."""

    def __init__(self, context: ssl.SSLContext, protocol: asyncio.Protocol, handshakes: set["TlsTransport"]) -> None:
        super().__init__()
        self._handshakes = handshakes
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._protocol = protocol
        self._lower: asyncio.Transport
        self._timer: asyncio.TimerHandle
        """For the handshake."""
        self._paused = False

    # What the lower transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the handshake."""
        self._lower = cast("asyncio.Transport", transport)
        self._handshakes.add(self)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, self.abort)

    def data_received(self, data: bytes) -> None:
        """Decrypt, and hand on."""
        self._incoming.write(data)
        try:
            if self in self._handshakes:
                self._tls.do_handshake()
                self._timer.cancel()
                self._handshakes.remove(self)
                self._protocol.connection_made(self)
            self._hand_on()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError:  # no TLS, or the end of it; an alert says so
            self._flush()
            self._lower.close()

    def _hand_on(self) -> None:
        """Hand on all that there is. Raises SSLWantReadError at its end."""
        while not self._paused and not self._lower.is_closing():
            if data := self._tls.read(READ):
                self._protocol.data_received(data)
            else:
                self.close()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol, if it has begun."""
        if self in self._handshakes:
            self._timer.cancel()
            self._handshakes.remove(self)
        else:
            self._protocol.connection_lost(exc)

    # What the protocol calls.

    def write(self, data: Any) -> None:
        """Encrypt and send."""
        if not self._lower.is_closing():
            self._tls.write(data)
            self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._lower.write(self._outgoing.read())

    def pause_reading(self) -> None:
        """Hand on nothing more."""
        self._paused = True
        self._lower.pause_reading()

    def resume_reading(self) -> None:
        """Hand on what was decrypted or comes."""
        self._paused = False
        self._lower.resume_reading()
        asyncio.get_running_loop().call_soon(self.data_received, b"")

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._lower.is_closing()

    def close(self) -> None:
        """Say that this is the end, and close when that is sent."""
        if not self._lower.is_closing():
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
            self._lower.close()

    def abort(self) -> None:
        """Close at once."""
        self._lower.abort()


def server_context(pair: CertificatePair) -> ssl.SSLContext:
    """A server's TLS with a certificate that is in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # It takes files only; this one is in memory, so that it is what was checked, both of one pair.
    number = os.memfd_create("certificate")
    with os.fdopen(number, "wb") as file:
        file.write(pair.certificate + b"\n" + pair.key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{number}")
    return context
