"""Draws the guide's pictures with Chromium: `python -m docs.pictures`, which `make docs` runs.

A picture is drawn again only when the page that it is taken of has changed: `pictures.json` has the sums. Without Chromium
the pictures stay as they are, and a message tells it.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

from mirrorstream.text.terminal import layout
from mirrorstream_cli.commands.status import text_lines

from docs.browser import NoBrowserError, picture, served
from docs.dashboard_page import WIDTH, dashboard_page, height
from docs.png import shrink
from docs.terminal_page import WIDTH as TERMINAL_WIDTH
from docs.terminal_page import terminal_height, terminal_page
from tests.cli.bad_day import status_report
from tests.diagnose.builders import NOW

FOLDER = Path(__file__).parent / "pictures"
COLUMNS = 100
"""Of the terminal."""
SUMS = FOLDER / "pictures.json"


def wanted() -> dict[str, tuple[str, int, int]]:
    """Each picture's page (HTML), and its size."""
    status = layout(text_lines(status_report("many"), NOW, COLUMNS), width=COLUMNS, colour=True)
    return {
        "dashboard.png": (dashboard_page(FOLDER / "dashboard.json"), WIDTH, height()),
        "status.png": (terminal_page("mirrorstream status -A", status), TERMINAL_WIDTH, terminal_height(status)),
    }


def stale() -> list[str]:
    """The pictures whose pages have changed since they were drawn."""
    sums = json.loads(SUMS.read_text(encoding="utf-8")) if SUMS.exists() else {}
    return [name for name, (page, _, _) in wanted().items() if sums.get(name) != _sum(page) or not (FOLDER / name).exists()]


def _sum(page: str) -> str:
    return hashlib.sha256(page.encode()).hexdigest()


def main() -> int:
    """Draw what is stale; 0 also where it cannot be drawn."""
    found = wanted()
    sums = {name: _sum(page) for name, (page, _, _) in found.items()}
    try:
        for name in stale():
            page, wide, high = found[name]
            with tempfile.TemporaryDirectory(prefix="mirrorstream-picture-") as folder:
                (Path(folder) / "index.html").write_text(page, encoding="utf-8")
                with served(Path(folder)) as url:
                    picture(f"{url}/index.html", FOLDER / name, wide, high)
            shrink(FOLDER / name)
    except NoBrowserError as error:
        print(f"Pictures stay as they are: {error}")  # noqa: T201
        return 0
    SUMS.write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
