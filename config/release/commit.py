"""What a release is made of: the commit, whose time is the time of everything that is in it."""

import datetime
import subprocess
from dataclasses import dataclass
from pathlib import Path

from config.image.debian import ROOT

PACKED = ("mirror", "controller", "webhook", "config")
"""The folders of which everything gets into the wheel, the source archive or the image."""


class ReleaseError(Exception):
    """A release cannot be made; the text says why, in a way that can be shown to people."""


@dataclass(frozen=True)
class Commit:
    """The commit that is checked out; `epoch` is its time in seconds, `dirty` names files that it lacks or has otherwise."""

    revision: str
    epoch: int
    dirty: tuple[str, ...] = ()

    @property
    def created(self) -> str:
        """Its time as RFC 3339 has it."""
        return datetime.datetime.fromtimestamp(self.epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def name(self) -> str:
        """The revision; with `-dirty` if there are changes, as git describe says it."""
        return f"{self.revision}-dirty" if self.dirty else self.revision


def checked_out(root: Path = ROOT) -> Commit:
    """The commit of a checkout. Raises ReleaseError where there is none."""
    revision, epoch = _git(root, "log", "-1", "--format=%H %ct").split()
    changed = [entry[3:] for entry in _names(root, "status", "--porcelain", "--no-renames", "--untracked-files=no", "-z")]
    return Commit(revision, int(epoch), tuple(sorted({*changed, *_untracked(root)})))


def _untracked(root: Path) -> list[str]:
    """Files in no commit, whatever the user's settings of git are.

    Where files are packed, .gitignore does not count either: the Containerfile copies whole folders without compiled modules.
    """
    own = root / ".gitignore"
    outside = _names(root, "ls-files", "-z", "--others", *([f"--exclude-from={own}"] if own.exists() else []))
    packed = _names(root, "ls-files", "-z", "--others", "--", *PACKED)
    return [name for name in (*outside, *packed) if "__pycache__" not in name.split("/")]


def _names(root: Path, *arguments: str) -> list[str]:
    return [name for name in _git(root, *arguments).split("\0") if name]


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603, S607  no shell, known programs
    except FileNotFoundError:
        raise ReleaseError("needs git: the commit is the time and the source of a release") from None
    if done.returncode:
        raise ReleaseError(f"needs a git checkout with a commit: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout
