"""How Go words what went wrong: its JSON decoder, its HTTP client, its transport."""

import http.client
import json
import random
import socket
import ssl

import urllib3

_LITERALS = {"t": "true", "f": "false", "n": "null"}
_SPACE = " \t\r\n"


def json_problem(data: bytes) -> str:
    """What encoding/json says of a text that is no JSON; empty if it is."""
    text = data.decode(errors="replace")
    begun = text.lstrip(_SPACE)
    if not begun:
        return "unexpected end of JSON input"
    first = begun[0]
    if first in _LITERALS and (problem := _literal_problem(begun)):
        return problem
    if first not in '{["-0123456789tfn':
        return f"invalid character {_character(first)} looking for beginning of value"
    try:
        _, end = json.JSONDecoder().raw_decode(begun)
    except ValueError as error:
        at = getattr(error, "pos", len(begun))
        if at >= len(begun.rstrip(_SPACE)):
            return "unexpected end of JSON input"
        return f"invalid character {_character(begun[at])} looking for beginning of value"
    rest = begun[end:].lstrip(_SPACE)
    return f"invalid character {_character(rest[0])} after top-level value" if rest else ""


def _literal_problem(text: str) -> str:
    word = _LITERALS[text[0]]
    for position, (found, wanted) in enumerate(zip(text, word, strict=False)):
        if found != wanted:
            return f"invalid character {_character(found)} in literal {word} (expecting {_character(word[position])})"
    return "" if len(text) >= len(word) else "unexpected end of JSON input"


def _character(found: str) -> str:
    return {"'": r"'\''", '"': "'\"'"}.get(found, f"'{found}'")


def go_kind(value: object) -> str:
    """What encoding/json calls a value that it cannot decode."""
    return "array" if isinstance(value, list) else "string" if isinstance(value, str) else "number"


def quoted(data: bytes) -> str:
    """Go's `%q` of a body."""
    return json.dumps(data.decode(errors="replace"), ensure_ascii=False)


def root(error: BaseException) -> BaseException:
    """The error of the operating system or of TLS at the bottom."""
    for inner in (getattr(error, "reason", None), error.__cause__, *error.args):
        if isinstance(inner, BaseException):
            return root(inner)
    return error


def go_text(error: BaseException, host: str) -> str:
    """How Go's net/http words a transport error."""
    bottom = root(error)
    name, _, port = host.partition(":")
    if isinstance(bottom, ConnectionRefusedError):
        address = "127.0.0.1" if name == "localhost" else name
        return f"dial tcp {address}:{port or 443}: connect: connection refused"
    if isinstance(bottom, socket.gaierror):
        return f"dial tcp: lookup {name}: no such host"
    if isinstance(bottom, ssl.SSLCertVerificationError):
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    if isinstance(bottom, ssl.SSLError) and "timed out" not in str(bottom):
        return "http: server gave HTTP response to HTTPS client"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return "net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)"
    if isinstance(bottom, TimeoutError) or isinstance(error, urllib3.exceptions.TimeoutError):
        return "net/http: TLS handshake timeout"
    if isinstance(bottom, ConnectionResetError) and not isinstance(bottom, http.client.RemoteDisconnected):
        # The port of the connection's own end is another each time, and so is the message.
        address = "127.0.0.1" if name == "localhost" else name
        return f"read tcp 127.0.0.1:{random.randrange(32768, 61000)}->{address}:{port or 443}: read: connection reset by peer"
    return "EOF"
