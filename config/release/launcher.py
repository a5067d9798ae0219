"""The start of the one-file command, mirrorstream-VERSION-linux-x86_64.pyz: unpacks what is in it once, and runs the commands.

Python 3.6 must be able to read this text, so that an interpreter that does not fit is told so. Where `python3` does not fit,
another one of the PATH is run instead. Compiled modules cannot be loaded from an archive: they are unpacked into
`$XDG_CACHE_HOME/mirrorstream/commands` (default ~/.cache), for the running version only; where that cannot be written, into a
temporary folder that is removed at the end. Whoever unpacks a version removes those that nobody has used for a day and that no
process on this machine runs.
"""

import contextlib
import os
import platform
import sys
import time
from pathlib import Path

VERSIONS = ((3, 11),)
"""Of Python, for which the archive has compiled modules: filled in by the build, as is what follows."""
BUILD = ""
AGAIN = "MIRRORSTREAM_ONEFILE_PYTHON"
UNUSED_SECONDS, NOTED_SECONDS = 24 * 3600, 3600
"""After which time without a run a version is removed, and how exactly its time of use is noted: no run writes more than that."""


def unfit() -> str:
    """Why this interpreter cannot run the commands; empty if it can."""
    running = tuple(sys.version_info[:2])
    if (sys.platform, platform.machine()) != ("linux", "x86_64") or platform.libc_ver()[0] != "glibc":
        return "this file is for Linux on x86_64 with glibc; elsewhere `pip install` the wheel"
    if sys.implementation.name != "cpython" or "t" in getattr(sys, "abiflags", "") or running not in VERSIONS:
        listed = ", ".join(f"{major}.{minor}" for major, minor in VERSIONS)
        name = f"{sys.implementation.name} {running[0]}.{running[1]}"
        return f"needs CPython {listed} and found {name}, {sys.executable}; run it with another: python3.12 {sys.argv[0]}"
    return ""


def other() -> str:
    """The path of an interpreter of a fitting version that runs, or an empty text. A version manager has names that do not run."""
    import subprocess  # noqa: PLC0415  rarely needed

    for major, minor in reversed(VERSIONS):
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            path = Path(folder) / f"python{major}.{minor}"
            if not os.access(str(path), os.X_OK):
                continue
            with open(os.devnull, "r+b") as nothing:  # noqa: PTH123  as Python 3.6 has it
                try:
                    status = subprocess.call([str(path), "-c", ""], stdin=nothing, stdout=nothing, stderr=nothing, timeout=20)  # noqa: S603  an interpreter of the PATH
                except (OSError, subprocess.TimeoutExpired):
                    continue
            if status == 0:
                return str(path)
    return ""


def unpacked(archive: str) -> Path:
    """The folder with the modules of this Python version, unpacked now if it is not there."""
    name = f"{BUILD}-cp{sys.version_info[0]}{sys.version_info[1]}"
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = (Path(base) if base else Path.home() / ".cache") / "mirrorstream" / "commands"
    except RuntimeError:  # a user without a home: nothing can be kept
        cache = Path(os.devnull) / "commands"
    if (cache / name).is_dir():
        note_use(cache / name)
        return cache / name
    import shutil  # noqa: PLC0415  the first run only
    import tempfile  # noqa: PLC0415  the first run only

    try:
        cache.mkdir(0o700, parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=str(cache)))
    except OSError:
        import atexit  # noqa: PLC0415  where nothing can be kept

        made = Path(tempfile.mkdtemp(prefix="mirrorstream."))
        atexit.register(shutil.rmtree, str(made), ignore_errors=True)
        extract(archive, made)
        return made
    try:
        extract(archive, made)
        try:
            made.rename(cache / name)
        except OSError:
            if not (cache / name).is_dir():  # else somebody was faster
                raise
    finally:
        shutil.rmtree(str(made), ignore_errors=True)
    remove_unused(cache)
    return cache / name


def note_use(folder: Path) -> None:
    """Keep a version, by the time of its folder."""
    with contextlib.suppress(OSError):  # a cache that can only be read loses no version either
        if time.time() - folder.stat().st_mtime > NOTED_SECONDS:
            os.utime(str(folder))


def hold(folder: Path) -> None:
    """Keep a version until this process ends, however long that takes: it imports modules when it needs them.

    On NFS other machines do not see the lock of a folder.
    """
    import fcntl  # noqa: PLC0415  Windows has no fcntl, and must see the message of unfit()

    with contextlib.suppress(OSError):  # a file system without locks: the time of the folder is left
        fcntl.flock(os.open(str(folder), os.O_RDONLY), fcntl.LOCK_SH)


def unused(folder: Path) -> bool:
    """Whether nobody has used a version for a day; raises OSError if it is gone."""
    return time.time() - folder.stat().st_mtime > UNUSED_SECONDS


def remove_unused(cache: Path) -> None:
    """Remove versions that nobody uses, and what is left of a run that was killed while it unpacked."""
    with contextlib.suppress(OSError):  # a folder that cannot be listed keeps what it has
        for path in cache.iterdir():
            with contextlib.suppress(OSError):  # somebody else was faster
                if unused(path):
                    remove(path)


def remove(folder: Path) -> None:
    """Remove a version unless a process runs it, or began to use it just now."""
    import fcntl  # noqa: PLC0415  as above
    import shutil  # noqa: PLC0415  the first run only

    descriptor = os.open(str(folder), os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            pass  # a file system without locks: the time of the folder is left
        if unused(folder):
            # Rename first: a process that waits for the lock must not find a folder with only some of the modules.
            away = folder.with_name(f"{folder.name}.removed")
            folder.rename(away)
            shutil.rmtree(str(away), ignore_errors=True)
    finally:
        os.close(descriptor)


def extract(archive: str, folder: Path) -> None:
    """Unpack the modules, without those that are compiled for other versions."""
    import zipfile  # noqa: PLC0415  the first run only

    own = f".cpython-{sys.version_info[0]}{sys.version_info[1]}-"
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            if name.startswith("modules/") and (".cpython-" not in name or own in name):
                path = folder.joinpath(*name.split("/")[1:])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(opened.read(name))


def main() -> None:
    """Run the commands, or say what is in the way."""
    reason = unfit()
    if reason:
        path = "" if AGAIN in os.environ else other()
        if not path:
            sys.exit(f"mirrorstream: {reason}")
        os.environ[AGAIN] = path
        os.execv(path, [path, *sys.argv])  # noqa: S606  an interpreter of the PATH, without a shell
    os.environ.pop(AGAIN, None)
    try:
        folder = unpacked(sys.path[0])
        hold(folder)
        if not folder.is_dir():  # it was removed just now
            folder = unpacked(sys.path[0])
            hold(folder)
    except OSError as error:
        sys.exit(f"mirrorstream: cannot unpack {sys.argv[0]}: {error}")
    sys.path[0] = str(folder)
    from mirrorstream_cli.main import main as run  # noqa: PLC0415  it is in what was unpacked

    sys.exit(run())


if __name__ == "__main__":
    main()
