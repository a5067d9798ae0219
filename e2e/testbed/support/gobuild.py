"""Building programs of Go modules, once for each version of their sources."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BUILD = ("build", "-trimpath", "-ldflags", "-s -w")


class BuildError(Exception):
    """Something cannot be built; the text says why, in a way that can be shown to people."""


class GoMissingError(BuildError):
    """There is no Go on this machine."""


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/mirrorstream`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mirrorstream"


def version(module: Path, *more: object) -> str:
    """What the sources of a module are called: a digest of everything that decides what is built."""
    digest = hashlib.sha256(repr((BUILD, *more)).encode())
    for path in sorted([*module.glob("go.*"), *module.glob("**/*.go")]):
        digest.update(path.relative_to(module).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def go(module: Path, *arguments: str, cgo: bool = False, seconds: float | None = None) -> str:
    """What `go ARGUMENTS` prints in a module's folder; `cgo` lets it link with C libraries.

    Raises BuildError, also when it takes longer than `seconds`.
    """
    command = shutil.which("go")
    if not command:
        raise GoMissingError("it is built with Go, and there is no `go` on the PATH")
    environment = {**os.environ, "CGO_ENABLED": str(int(cgo)), "GOFLAGS": "-mod=readonly -buildvcs=false"}
    call = [command, *arguments]
    try:
        done = subprocess.run(call, cwd=module, env=environment, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"`go {' '.join(arguments)}` took longer than {seconds:.0f} s") from error
    if done.returncode:
        raise BuildError(f"`go {' '.join(arguments)}` failed:\n" + "\n".join(done.stderr.splitlines()[-20:]))
    return done.stdout


def built_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """`folder`, filled by `build(folder)` unless it was before; one build at a time on this machine. Raises what `build` does."""
    done = folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / "lock"):
            if not done.exists():
                build(folder)
                done.touch()
    return folder


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One build at a time on this machine; the lock goes with its holder."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
