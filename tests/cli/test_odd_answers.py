"""A proxy, a sign-in page or a broken server may answer instead of an API server. Each command reports this in one line."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream_cli.main import main

COMMANDS = [
    ["status"],
    ["status", "-A"],
    ["status", "--wait", "1s"],
    ["missing", "-A"],
    ["check", "-A"],
    ["check", "-n", "team"],
    ["suggest", "-A"],
    ["retry", "-n", "team", "app"],
    ["explain", "registry.example.com/app:v1"],
    ["explain", "team/app"],
    ["explain", "--as-pod", "-n", "team", "registry.example.com/app:v1"],
]
NO_OBJECTS = ["", "<html>sign in</html>", "[]", "null", '"ok"', "7", "{", '{"items": {}}', '{"items": 3}', "[" * 100_000]
ODD_OBJECTS = [
    "{}",
    '{"items": [1, "a", null, []]}',
    '{"items": [{"metadata": null}, {"metadata": []}, {"metadata": {"name": 3}}]}',
    '{"items": [{"metadata": {"name": "a"}, "spec": []}]}',
    '{"metadata": {"name": "app"}, "data": [], "status": [], "spec": 3}',
    '{"metadata": {"labels": 1}, "data": "text", "status": {"images": [1]}, "imagePullSecrets": {}}',
    '{"metadata": {"name": "app"}, "data": {"config.yaml": 3}, "imagePullSecrets": [null]}',
]


class _Odd(http.server.BaseHTTPRequestHandler):
    """Answers everything with 200 and the same body."""

    protocol_version = "HTTP/1.1"
    body = b""

    def do_GET(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_PATCH = do_PUT = do_GET  # noqa: N815  the base class's names

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def answering(body: str) -> Iterator[str]:
    """The URL of a server that answers so."""
    handler = type("Handler", (_Odd,), {"body": body.encode()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(folder: Path, url: str, command: list[str]) -> int:
    """One command, asking that server; its exit status."""
    path = folder / "kubeconfig"
    context = {"cluster": "odd", "user": "me", "namespace": "team"}
    document = {
        "clusters": [{"name": "odd", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "odd", "context": context}],
        "current-context": "odd",
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return main([*command, "--kubeconfig", str(path), "--log-level", "error"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_is_no_answer_of_an_api_server_is_one_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the server's name, and nothing on stdout."""
    for body in NO_OBJECTS:
        with answering(body) as url:
            assert run(tmp_path, url, command) == 1
        out, err = capsys.readouterr()
        (said,) = [line for line in err.splitlines() if line.startswith("mirrorstream: ")]
        assert (out, url in said, "cannot be read" in said) == ("", True, True), (body[:40], said)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("body", ODD_OBJECTS)
def test_no_answer_ends_in_a_traceback(command: list[str], body: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What can be used is used; otherwise there is one line."""
    with answering(body) as url:
        status = run(tmp_path, url, command)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    if status == 1:
        assert [line for line in err.splitlines() if line.startswith("mirrorstream: ")] or out
    else:
        assert out


def test_items_that_are_no_objects_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And told."""
    with answering('{"items": [1, {"metadata": {"name": "app", "namespace": "team"}}]}') as url:
        assert run(tmp_path, url, ["status", "-A"]) in (0, 3)
    out = capsys.readouterr().out
    assert "an ImageStream cannot be read and is left out" in out
    assert "an ImageTagMirrorSet cannot be read and is left out" in out
