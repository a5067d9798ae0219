"""A handler that answers a constant, on the webhook's own server: what a review's rate is measured against."""

import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mirrorstream_webhook.server import Application, Server


def constant(answers: dict[str, bytes]) -> Application:
    """An application that reads the body, which is the least that a server does, and gives the answer of the path."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [answers[environ["PATH_INFO"]]]

    return application


if __name__ == "__main__":
    port, certificate, key, folder = sys.argv[1:]
    answers = {f"/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}
    server = Server(constant(answers), int(port), certificate_file=certificate, key_file=key, address="127.0.0.1")
    server.start()
    threading.Event().wait()
