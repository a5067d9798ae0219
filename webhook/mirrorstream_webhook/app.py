"""What the webhook's port answers: the review by a plain function, everything else by Flask.

Flask's handling of a request costs more than a whole review does.
"""

from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from urllib.parse import unquote_to_bytes

import flask
from mirrorstream.runtime.health import Check
from werkzeug.exceptions import HTTPException

from mirrorstream_webhook.connection import MAXIMUM_BODY, TEXT, Answer, Application, Request
from mirrorstream_webhook.metrics import ReviewMetrics
from mirrorstream_webhook.review import BadReviewError, Reviewer

PATH = "/mutate-pods"
JSON = "application/json"

_TARGET, _JSON = PATH.encode(), JSON.encode()
_JSON_HEADERS = (("Content-Type", JSON),)


@dataclass(frozen=True)
class Deps:
    """What the application is made of."""

    reviewer: Reviewer
    metrics: ReviewMetrics
    healthy: Check
    ready: Check


class RequestError(Exception):
    """A request that is answered with an HTTP status and a message."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def read_body(request: Request) -> bytes:
    """The body of a POST with JSON. Raises RequestError."""
    if request.method != b"POST":
        raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED, f"{PATH} takes POST, not {request.method.decode()}")
    content_type = request.headers.get(b"content-type", b"")
    if content_type != _JSON and content_type.partition(b";")[0].strip().lower() != _JSON:
        found = content_type[:100].decode("latin-1")
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected Content-Type {JSON}, found {found!r}")
    if not request.is_whole:
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a review may have {MAXIMUM_BODY} bytes")
    return request.body


def create_application(deps: Deps) -> Application:
    """What the server calls: it takes reviews before Flask sees them."""
    review, refused, others = deps.reviewer.review, deps.metrics.refused, create_app(deps)

    def application(request: Request) -> Answer:
        if request.target != _TARGET and request.target.partition(b"?")[0] != _TARGET:
            return _through_flask(others, request)
        try:
            return Answer(HTTPStatus.OK, _JSON_HEADERS, review(read_body(request), request.received))
        except RequestError as error:
            status, message = error.status, str(error)
        except BadReviewError as error:
            status, message = HTTPStatus.BAD_REQUEST, str(error)
        refused(status.value)
        allow = (("Allow", "POST"),) if status is HTTPStatus.METHOD_NOT_ALLOWED else ()
        return Answer(status, (*TEXT, *allow), f"{message}\n".encode())

    return application


def create_app(deps: Deps) -> flask.Flask:
    """The Flask application for everything but reviews."""
    app = flask.Flask("mirrorstream_webhook", static_folder=None)

    def probe(check: Check) -> flask.Response:
        problem = check()
        return flask.Response((problem or "ok") + "\n", 503 if problem else 200, content_type=dict(TEXT)["Content-Type"])

    app.add_url_rule("/healthz", "healthz", lambda: probe(deps.healthy))
    app.add_url_rule("/readyz", "readyz", lambda: probe(deps.ready))
    app.register_error_handler(HTTPException, _in_plain_text)
    return app


def _through_flask(app: flask.Flask, request: Request) -> Answer:
    """Flask's answer to a request; it has no body that Flask would read."""
    path, _, query = request.target.partition(b"?")
    environ = {
        # A connection leaves out the body, and says how long it would be.
        "REQUEST_METHOD": "GET" if request.method == b"HEAD" else request.method.decode("latin-1"),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": request.headers.get(b"host", b"").decode("latin-1"),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": BytesIO(),
    }
    response = flask.Response.from_app(app, environ, buffered=True)
    headers = tuple((name, value) for name, value in response.headers if name != "Content-Length")
    return Answer(HTTPStatus(response.status_code), headers, response.get_data())


def _in_plain_text(error: HTTPException) -> flask.Response:
    response = flask.Response(f"{error.name}: {error.description}\n", error.code, content_type=dict(TEXT)["Content-Type"])
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response
