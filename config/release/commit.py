"""What a release is made of: the commit, whose time is the time of everything that is in it."""

import datetime
import subprocess
from dataclasses import dataclass
from pathlib import Path

from config.image.debian import ROOT


class ReleaseError(Exception):
    """A release cannot be made; the text says why, in a way that can be shown to people."""


@dataclass(frozen=True)
class Commit:
    """The commit that is checked out; `epoch` is its time in seconds, `dirty` names changed files that it does not have."""

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
    changed = _git(root, "status", "--porcelain", "--no-renames").splitlines()
    return Commit(revision, int(epoch), tuple(line[3:] for line in changed))


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603, S607  no shell, known programs
    except FileNotFoundError:
        raise ReleaseError("needs git: the commit is the time and the source of a release") from None
    if done.returncode:
        raise ReleaseError(f"needs a git checkout with a commit: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout
