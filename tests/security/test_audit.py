"""`make audit`, against a database of our own: no public host is asked."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.image.audit import LOCKS, locked
from tests.packaging.containerfile import ROOT

Object = dict[str, Any]
Answer = Callable[[str, Object], tuple[int, bytes]]
KNOWN = {"id": "GHSA-1", "modified": "2026-01-01T00:00:00Z"}
"""What the database has of the package `b`, in these tests."""


class Database:
    """OSV's API; `answer(path, body)` gives status and body."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[tuple[str, Object]] = []
        database = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
                database.asked.append((self.path, body))
                status, data = answer(self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST  # noqa: N815  http.server's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def stop(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Database]]:
    """Start a database."""
    running: list[Database] = []

    def start(answer: Answer) -> Database:
        running.append(Database(answer))
        return running[-1]

    yield start
    for database in running:
        database.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Lock files with two packages, one of them in two."""
    for lock, text in zip(
        LOCKS, ("a==1.0 \\\n    --hash=sha256:00\n", "", "a==1.0 \\\nb==2.0 ; python_version < '3'\n"), strict=True
    ):
        (tmp_path / lock).write_text(text)
    return tmp_path


def osv(vulnerable: str = "", details: Object | None = None, pages: int = 1) -> Answer:
    """A database that knows one thing about a package, on the last of `pages`."""

    def answer(path: str, body: Object) -> tuple[int, bytes]:
        if path == "/v1/vulns/GHSA-1":
            return 200, json.dumps({**KNOWN, "summary": "it\nleaks", **(details or {})}).encode()
        results = []
        for query in body["queries"]:
            number = int(query.get("page_token") or 1)
            if query["package"]["name"] != vulnerable:
                results.append({})
            elif number < pages:
                results.append({"next_page_token": str(number + 1)})
            else:
                results.append({"vulns": [KNOWN]})
        return 200, json.dumps({"results": results}).encode()

    return answer


def run(folder: Path, url: str) -> tuple[int, str]:
    """Status and output of the program as `make audit` runs it, on other lock files, without a proxy."""
    script = (
        f"import sys; from pathlib import Path; from config.image.audit import main; sys.exit(main({url!r}, Path({str(folder)!r})))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=clean, capture_output=True, text=True, check=False, timeout=300
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        pytest.param(osv(), 0, "make audit: nothing known against 2 packages\n", id="nothing"),
        pytest.param(
            osv("b"),
            1,
            "b 2.0 (requirements-dev.lock): GHSA-1  it leaks\nmake audit: 1 known against 2 packages\n",
            id="a-finding",
        ),
        pytest.param(
            osv("a", pages=3),
            1,
            "a 1.0 (requirements.lock, requirements-dev.lock): GHSA-1  it leaks\nmake audit: 1 known against 2 packages\n",
            id="on-another-page",
        ),
        pytest.param(osv("b", {"withdrawn": "2026-01-02T00:00:00Z"}), 0, "nothing known", id="withdrawn"),
        pytest.param(lambda path, body: (503, b""), 0, "skipped: the database cannot be reached (", id="unavailable"),
        pytest.param(lambda path, body: (404, b"{}"), 0, "skipped: the database cannot be reached (", id="not-found"),
        pytest.param(lambda path, body: (200, b"<html>"), 0, "skipped: the database cannot be reached (", id="a-proxys-page"),
        pytest.param(lambda path, body: (200, b"[]"), 0, "skipped: the database cannot be reached (", id="a-list"),
        pytest.param(lambda path, body: (200, b'{"results": [{}]}'), 0, "did not answer all questions", id="too-few-answers"),
        pytest.param(
            lambda path, body: (200, b'{"results": [1, 2]}'), 0, "skipped: the database cannot be reached (", id="nonsense"
        ),
    ],
)
def test_how_it_ends(serve: Callable[[Answer], Database], folder: Path, answer: Answer, status: int, says: str) -> None:
    """1 for a finding and for nothing else; what was not asked is never taken for fine."""
    found, out = run(folder, serve(answer).url)
    assert (found, says in out) == (status, True), out
    if "skipped" in says:
        assert "nothing known" not in out


def test_without_a_network_it_says_so(folder: Path) -> None:
    """Nobody listens."""
    status, out = run(folder, "http://127.0.0.1:9")
    assert status == 0
    assert out.startswith("make audit: skipped: the database cannot be reached (http://127.0.0.1:9/v1/querybatch: ")


def test_it_asks_about_every_locked_version(serve: Callable[[Answer], Database]) -> None:
    """Of all three files, each once, and tells the database nothing else."""
    database = serve(osv())
    assert run(ROOT, database.url)[0] == 0
    asked = [query for _, body in database.asked for query in body["queries"]]
    expected = [{"package": {"name": p.name, "ecosystem": "PyPI"}, "version": p.version} for p in locked()]
    assert asked == expected
    for lock in LOCKS:
        assert any(lock in package.locks for package in locked())


def test_another_scheme_is_refused(folder: Path) -> None:
    """A file, say, or plain http to another machine."""
    for url in ("file:///etc", "http://example.com"):
        assert "is no https address" in run(folder, url)[1]
