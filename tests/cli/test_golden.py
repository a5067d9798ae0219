"""What people see of a cluster on a good, a usual and a bad day, at three widths, word by word.

After a change that is meant: `UPDATE_GOLDEN=1 pytest tests/cli/test_golden.py`, and read the difference.
"""

import os
from pathlib import Path

import pytest
from mirrorstream.diagnose.missing import missing_images, render_missing
from mirrorstream.diagnose.status import StatusReport
from mirrorstream.text.terminal import Text, layout
from mirrorstream_cli.check_text import render_check
from mirrorstream_cli.commands.status import text_lines
from mirrorstream_cli.groups import SCREEN

from tests.cli.bad_day import SIZES, check_report, status_report
from tests.diagnose.builders import NOW

FOLDER = Path(__file__).parent / "golden"
WIDTHS = (80, 100, 160)


def _where(report: StatusReport) -> str:
    return f"Namespace {report.namespace}" if report.namespace else "All namespaces"


def _lines(command: str, size: str, width: int | None) -> list[Text]:
    report = status_report(size)
    if command == "status":
        return text_lines(report, NOW, width)
    if command == "missing":
        return render_missing(missing_images(report.tags), _where(report))
    return render_check(check_report(size), _where(report), width=width, each=report.namespace is not None)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("command", ["status", "missing", "check"])
def test_the_text_is_as_it_was_read(command: str, size: str, width: int) -> None:
    """A screen at most, but for the list of images, and no line wider than the terminal."""
    lines = _lines(command, size, width)
    text = layout(lines, width=width)
    path = FOLDER / f"{command}-{size}-{width}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= width
    if command == "missing":
        images = missing_images(status_report(size).tags)
        assert text.count("\n") <= len(images) + 12, "about a line an image"
    else:
        assert text.count("\n") <= SCREEN
    painted = layout(lines, width=width, colour=True)
    assert painted != text or size == "none"


@pytest.mark.parametrize("width", [40, 60])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("command", ["status", "check"])
def test_a_narrow_terminal_has_a_screen_as_well(command: str, size: str, width: int) -> None:
    """With no line that is wider."""
    text = layout(_lines(command, size, width), width=width)
    assert text.count("\n") <= SCREEN
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("command", ["status", "check"])
def test_a_pipe_gets_a_screen_as_well(command: str) -> None:
    """Nobody's log is flooded; no line is broken there."""
    text = layout(_lines(command, "many", None))
    assert text.count("\n") <= SCREEN
    assert "60 failing: mirror.example.com:5000 does not have it" in text or command == "check"
