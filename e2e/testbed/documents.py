"""What the documents tell people to type: read from README and the guide, so that tests can hold it to the truth.

A fenced block of the language `console` is a session: lines that begin with `$ ` are commands, all others are what they print. Each
command is run by a test, unless a comment right before the block says why it cannot be:

    <!-- not run: REASON -->
    <!-- exit status 3 -->          (or `0 or 3`: what its commands may end with, instead of 0)

What the document shows of a command's output must be in it, line for line and in that order; `…` stands for anything, as a line for
any number of lines.

A block with a title (```` ```yaml title="my-cluster/config.yaml" ````) is a file that the commands after it find there.
"""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PROMPT = "$ "
CONSOLE = "console"
ANYTHING = "…"
_FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,}|~{3,})(?P<info>.*)$")
_TITLE = re.compile(r'\btitle="([^"]*)"')
_DIRECTIVE = re.compile(r"^ *<!-- (?P<text>(?:not run|exit status)\b.*?) -->$")
_EXIT = re.compile(r"exit status (\d+)(?: or (\d+))?")


class DocumentError(ValueError):
    """A document that cannot be read; the text names file, line and what is wrong."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: what is in it, and what its document says about running it."""

    page: str
    line: int
    language: str
    text: str
    title: str = ""
    not_run: str = ""
    """Why its commands are not run; empty if they are."""
    statuses: tuple[int, ...] = (0,)
    """What its commands may end with."""

    @property
    def session(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """What is typed, one command after the other, each with the lines that it prints.

        A backslash at the end of a line joins it with the next.
        """
        if self.language != CONSOLE:
            return ()
        found: list[tuple[str, list[str]]] = []
        for line in self.text.replace("\\\n", "").splitlines():
            if line.startswith(PROMPT):
                found.append((line.removeprefix(PROMPT), []))
            elif found and line.strip():
                found[-1][1].append(line)
        return tuple((command, tuple(lines)) for command, lines in found)

    @property
    def commands(self) -> tuple[str, ...]:
        """What is typed."""
        return tuple(command for command, _ in self.session)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """The documents: README, CONTRIBUTING, SECURITY, RELEASING, the guide, and the test bed's page."""
    outside = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "RELEASING.md", "e2e/README.md")
    return [*(PROJECT / name for name in outside), *sorted((PROJECT / "docs").rglob("*.md"))]


def title(page: Path) -> str:
    """Its path in the project: two documents are called README.md."""
    return page.relative_to(PROJECT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order. Raises DocumentError."""
    name = title(page) if page.is_relative_to(PROJECT) else page.name
    return list(_blocks(name, page.read_text(encoding="utf-8").splitlines()))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    directive = ""
    number = 0
    while number < len(lines):
        line, number = lines[number], number + 1
        if found := _DIRECTIVE.match(line):
            directive = found["text"]
            if number == len(lines) or not _FENCE.match(lines[number]):
                raise DocumentError(f"{page}:{number}: {directive!r} must stand right before a fenced block")
        elif fence := _FENCE.match(line):
            block, number = _block(page, lines, number, fence, directive)
            directive = ""
            yield block


def _block(page: str, lines: list[str], start: int, fence: re.Match[str], directive: str) -> tuple[Block, int]:
    """The block whose first line after the fence is `start`, and the line after its end."""
    indent, marks = len(fence["indent"]), fence["marks"]
    for end in range(start, len(lines)):
        if lines[end].strip() == marks:
            break
    else:
        raise DocumentError(f"{page}:{start}: the block is never closed")
    text = "\n".join(line[indent:] for line in lines[start:end]) + "\n"
    language, title = fence["info"].strip().partition(" ")[0], _TITLE.search(fence["info"])
    block = Block(page, start, language, text, title[1] if title else "", *_said(page, start, directive))
    return block, end + 1


def _said(page: str, line: int, directive: str) -> tuple[str, tuple[int, ...]]:
    """Why a block is not run, and what its commands may end with."""
    if not directive:
        return "", (0,)
    if directive.startswith("not run: "):
        return directive.removeprefix("not run: "), (0,)
    found = _EXIT.fullmatch(directive)
    if not found:
        raise DocumentError(f"{page}:{line}: {directive!r} is neither 'not run: REASON' nor 'exit status N [or M]'")
    return "", tuple(int(group) for group in found.groups() if group)


def not_shown(expected: Iterable[str], output: str) -> str:
    """The first line of `expected` that does not come in `output`, after those before it; empty if all do.

    Runs of white space count as one space.
    """
    lines = iter(output.splitlines())
    for line in expected:
        pattern = re.compile(r"\s+".join(".*".join(map(re.escape, word.split(ANYTHING))) for word in line.split()))
        if line.strip() != ANYTHING and not any(pattern.fullmatch(found.strip()) for found in lines):
            return line
    return ""


def programs(command: str) -> list[list[str]]:
    """The words of each program that a command line runs, without what goes into and comes out of it."""
    words = shlex.shlex(command, posix=True, punctuation_chars="|&;<>()")
    words.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in words:
        if set(word) <= set("|&;()"):
            found.append([])
        else:
            found[-1].append(word)
    return [_without_redirections(part) for part in found if part]


def _without_redirections(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif set(word) <= set("<>"):
            skip = True
        else:
            kept.append(word)
    return kept
