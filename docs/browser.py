"""Chromium without a window: pictures of pages, and what a page's own script says of it."""

import contextlib
import functools
import http.server
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 300
"""How long Chromium may take, on a machine however busy."""


class NoBrowserError(Exception):
    """There is none, or it fails; the text says why."""


def browser() -> str:
    """The program. Raises NoBrowserError."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise NoBrowserError(f"there is no {NAMES[0]} on the PATH")


@contextlib.contextmanager
def _running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Chromium and all its processes, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="mirrorstream-chromium-", ignore_cleanup_errors=True) as profile:
        command = [browser(), "--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        command += [
            "--force-color-profile=srgb",
            "--font-render-hinting=none",
            "--disable-lcd-text",
            "--no-first-run",
            "--disable-background-networking",
        ]
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # which Chromium refuses to be root's
        with (Path(profile) / "log").open("wb") as log:
            process = subprocess.Popen([*command, *arguments], stdout=log, stderr=log, start_new_session=True)  # noqa: S603
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def picture(url: str, file: Path, width: int, height: int) -> None:
    """Write a PNG of a page. Raises NoBrowserError."""
    with _running(f"--screenshot={file}", f"--window-size={width},{height}", url) as process:
        try:
            status = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise NoBrowserError(f"Chromium did not end within {SECONDS} s") from None
    if status or not file.exists():
        raise NoBrowserError(f"Chromium ended with {status} and drew no picture of {url}")


def told(folder: Path, page: str) -> bytes:
    """What a page below `folder` posts to `/told`. Raises NoBrowserError when it posts nothing."""
    found: queue.Queue[bytes] = queue.Queue()
    with served(folder, found.put) as url, _running("--remote-debugging-port=0", f"{url}/{page}"):
        try:
            return found.get(timeout=SECONDS)
        except queue.Empty:
            raise NoBrowserError(f"{page} told nothing within {SECONDS} s") from None


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, tell: Callable[[bytes], None], **options: Any) -> None:
        self._tell = tell
        super().__init__(*arguments, **options)

    def do_POST(self) -> None:
        """Take what a page tells."""
        self._tell(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def served(folder: Path, tell: Callable[[bytes], None] = lambda data: None) -> Iterator[str]:
    """Serve a folder on the loopback address; its URL. `tell` gets what pages post."""
    handler = functools.partial(_Handler, directory=str(folder), tell=tell)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
