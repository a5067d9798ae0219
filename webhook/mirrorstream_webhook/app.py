"""The webhook's HTTP application: Flask's routes, and in front of them the review itself as a plain WSGI callable.

Flask's handling of a request costs more than a whole review does.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import flask
from mirrorstream.health import Check
from werkzeug.exceptions import HTTPException

from mirrorstream_webhook.metrics import ReviewMetrics
from mirrorstream_webhook.review import BadReviewError, Reviewer

PATH = "/mutate-pods"
MAXIMUM_BODY = 8 * 1024 * 1024
"""Bytes; the API server itself takes 3 MiB in a request, and a review has an object and its old self."""
LONGEST_LENGTH = 20
"""Digits; Python refuses to make a number of very many."""
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_OK = "200 OK"
_JSON_HEADERS = [("Content-Type", JSON)]


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


def read_body(environ: Environ) -> bytes:
    """The body of a POST with JSON. Raises RequestError."""
    if environ["REQUEST_METHOD"] != "POST":
        raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED, f"{PATH} takes POST, not {environ['REQUEST_METHOD']}")
    content_type = environ.get("CONTENT_TYPE", "")
    if content_type != JSON and content_type.partition(";")[0].strip().lower() != JSON:
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected Content-Type {JSON}, found {content_type[:100]!r}")
    length = environ.get("CONTENT_LENGTH") or ""
    if length and not (length.isascii() and length.isdigit()):
        raise RequestError(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
    if length and len(length) < LONGEST_LENGTH and int(length) <= MAXIMUM_BODY:
        body: bytes = environ["wsgi.input"].read()
        return body
    # A body without a length is read no further than one byte beyond what is allowed.
    if length or len(body := environ["wsgi.input"].read(MAXIMUM_BODY + 1)) > MAXIMUM_BODY:
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a review may have {MAXIMUM_BODY} bytes")
    return body


def create_app(deps: Deps) -> flask.Flask:
    """The Flask application; its `wsgi_app` takes reviews before Flask sees them."""
    app = flask.Flask("mirrorstream_webhook", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAXIMUM_BODY

    def probe(check: Check) -> flask.Response:
        problem = check()
        return flask.Response((problem or "ok") + "\n", 503 if problem else 200, content_type=TEXT)

    app.add_url_rule("/healthz", "healthz", lambda: probe(deps.healthy))
    app.add_url_rule("/readyz", "readyz", lambda: probe(deps.ready))
    app.register_error_handler(HTTPException, _in_plain_text)
    # Flask's own way to put something in front of it.
    app.wsgi_app = _reviews_first(deps, app.wsgi_app)  # type: ignore[method-assign, assignment]
    return app


def _reviews_first(deps: Deps, others: Application) -> Application:
    review, refused = deps.reviewer.review, deps.metrics.refused

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH:
            return others(environ, start_response)
        try:
            answer = review(read_body(environ))
        except RequestError as error:
            status, message = error.status, str(error)
        except BadReviewError as error:
            status, message = HTTPStatus.BAD_REQUEST, str(error)
        else:
            start_response(_OK, _JSON_HEADERS)
            return [answer]
        refused(status.value)
        headers = [("Content-Type", TEXT)]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", "POST"))
        start_response(f"{status.value} {status.phrase}", headers)
        return [f"{message}\n".encode()]

    return application


def _in_plain_text(error: HTTPException) -> flask.Response:
    response = flask.Response(f"{error.name}: {error.description}\n", error.code, content_type=TEXT)
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response
