"""Progress of a command on stderr: on a terminal one line that is redrawn, elsewhere a line every ten seconds."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from mirrorstream.diagnose.status import is_unsettled
from mirrorstream.diagnose.tag_status import State, TagState
from mirrorstream.text.sanitize import one_line, shortened
from mirrorstream.text.terminal import period

EVERY_SECONDS = 10.0
BAR = 24


class Progress:
    """Tells how far something is; its text must be short. Ctrl-C ends it with a line that says how far it got."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = self._told = now()
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._drawn = False
        self._text = ""

    def __enter__(self) -> Self:
        return self

    def show(self, text: str, bar: str = "") -> None:
        """Show it, with the time that has passed; without a terminal at most every EVERY_SECONDS.

        `bar` stands before it where there is a terminal with room for both.
        """
        now = self._now()
        self._text = f"{one_line(text)}, {period(now - self._began)}"
        if self._terminal:
            shown = bar + self._text if len(bar + self._text) <= self._room() else self._text
            sys.stderr.write(f"\r\x1b[K{shortened(shown, self._room())}")
            self._drawn = True
            sys.stderr.flush()
        elif now - self._told >= EVERY_SECONDS:
            self._told = now
            self._print(self._text)

    def count(self, done: int, total: int, what: str) -> None:
        """Tell how many are done, on a terminal with a bar: `[####----] 5 of 10 tags`."""
        full = BAR * done // total if total else BAR
        self.show(f"{done} of {total} {what}", f"[{'#' * full}{'-' * (BAR - full)}] ")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        if kind is KeyboardInterrupt:
            self._print(f"stopped: {self._text}" if self._text else "stopped")

    @staticmethod
    def _room() -> int:
        """The columns of a line: one character more would begin another line, which is not redrawn."""
        return max(shutil.get_terminal_size().columns - 1, 1)

    @staticmethod
    def _print(text: str) -> None:
        print(f"mirrorstream: {text}", file=sys.stderr, flush=True)  # noqa: T201


class Healing:
    """How many of the tags that were waited for have healed; a tag that fails later is waited for, too."""

    def __init__(self) -> None:
        self._awaited: set[str] = set()

    def text(self, tags: Iterable[TagState]) -> str:
        """`healed 171 of 271`."""
        tags = list(tags)
        self._awaited |= {tag.name for tag in tags if is_unsettled(tag)}
        healed = sum(1 for tag in tags if tag.name in self._awaited and tag.state in (State.HEALED, State.IMPORTED))
        unsettled = sum(1 for tag in tags if is_unsettled(tag))
        others = len(self._awaited) - healed - unsettled
        return f"healed {healed} of {len(self._awaited)}" + (f", {others} need action" if others > 0 else "")
