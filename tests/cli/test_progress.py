"""Progress of a command: on a terminal one line that is redrawn, elsewhere a line every ten seconds."""

import dataclasses
import sys

import pytest
from mirrorstream.diagnose.tag_status import State, TagState
from mirrorstream_cli.progress import Healing, Progress


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 40, kind: str = "xterm") -> None:
    """Let stderr be one."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", kind)


def test_on_a_terminal_one_line_is_redrawn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is erased at the end, and always fits the width of the terminal."""
    terminal(monkeypatch)
    times = iter([0.0, 12.0, 13.0])
    with Progress(now=lambda: next(times)) as progress:
        progress.show("healed 171 of 271")
        progress.show("x" * 60)
    assert capsys.readouterr().err == f"\r\x1b[Khealed 171 of 271, 12s\r\x1b[K{'x' * 38}…\r\x1b[K"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A log does not, and where there is too little room the numbers are what counts."""
    terminal(monkeypatch, columns=80)
    with Progress(now=lambda: 0.0) as progress:
        progress.count(5, 10, "tags")
    assert "[############------------] 5 of 10 tags, 0s" in capsys.readouterr().err
    terminal(monkeypatch, columns=40)
    with Progress(now=lambda: 0.0) as progress:
        progress.count(5000, 10000, "tags")
    assert capsys.readouterr().err == "\r\x1b[K5000 of 10000 tags, 0s\r\x1b[K"


def test_a_terminal_that_cannot_erase_gets_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a log does."""
    terminal(monkeypatch, kind="dumb")
    times = iter([0.0, 1.0, 12.0])
    with Progress(now=lambda: next(times)) as progress:
        progress.count(1, 10, "tags")
        progress.count(5, 10, "tags")
    assert capsys.readouterr().err == "mirrorstream: 5 of 10 tags, 12s\n"


def test_what_was_not_drawn_is_not_erased(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is quick writes nothing."""
    terminal(monkeypatch)
    with Progress(now=lambda: 0.0):
        pass
    assert capsys.readouterr().err == ""


def test_elsewhere_there_is_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """Not at once: most of what is asked for is there sooner."""
    time = [0.0]
    with Progress(now=lambda: time[0]) as progress:
        for second in range(1, 25):
            time[0] = float(second)
            progress.count(second, 271, "tags")
    assert capsys.readouterr().err == "mirrorstream: 10 of 271 tags, 10s\nmirrorstream: 20 of 271 tags, 20s\n"


@pytest.mark.parametrize(("text", "said"), [("healed 1 of 2", "stopped: healed 1 of 2, 3s"), ("", "stopped")])
def test_ctrl_c_tells_how_far_it_got(capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    """Whoever stops it knows what to expect."""
    times = iter([0.0, 3.0])
    progress = Progress(now=lambda: next(times))
    if text:
        progress.show(text)
    progress.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == f"mirrorstream: {said}\n"


def test_ctrl_c_tells_it_without_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence, not a picture."""
    terminal(monkeypatch, columns=80)
    progress = Progress(now=lambda: 0.0)
    progress.count(0, 10, "tags")
    progress.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err.endswith("\r\x1b[Kmirrorstream: stopped: 0 of 10 tags, 0s\n")


def test_what_was_waited_for_is_counted() -> None:
    """Not what was well from the beginning; what fails later is added; what waiting does not help is told apart."""
    failing = TagState("ns", "app", "v1", State.FAILING, "source")
    tags = [dataclasses.replace(failing, tag=f"v{number}") for number in range(4)]
    well = dataclasses.replace(failing, tag="well", state=State.IMPORTED)
    healing = Healing()
    assert healing.text([*tags, well]) == "healed 0 of 4"
    tags[0] = dataclasses.replace(tags[0], state=State.HEALED)
    tags[1] = dataclasses.replace(tags[1], state=State.IMPORTED)
    assert healing.text([*tags, well]) == "healed 2 of 4"
    tags[2] = dataclasses.replace(tags[2], state=State.REFUSED)
    assert healing.text([*tags, dataclasses.replace(well, state=State.PENDING)]) == "healed 2 of 5, 1 need action"
