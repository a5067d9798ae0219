"""The commands as one file: an archive that Python runs, with all locked packages, compiled for several versions of Python.

The format is the standard library's (zipapp, PEP 441). Wheels of one package for several versions differ in compiled modules, whose
names tell the version: unpacked over each other they serve every version. What differs otherwise ends the build.
"""

import hashlib
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from config.image.debian import ROOT
from config.release.commit import ReleaseError

VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14))
"""Of Python, for which every locked package has a wheel."""
PYTHON = "{}.{} to {}.{}".format(*VERSIONS[0], *VERSIONS[-1])
"""The same for people."""
GLIBC = (28, 27, 26, 24, 17, 12, 5)
"""Wheels for glibc 2.28 (RHEL 8) and older run on everything newer."""
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC] + [f"manylinux{old}_x86_64" for old in ("2014", "2010", "1")]
_LAUNCHER = Path(__file__).with_name("launcher.py")
_LOCK = ROOT / "requirements.lock"
_STEP_SECONDS = 600
_LEFT_OUT = re.compile(r"\.dist-info/(RECORD|WHEEL|INSTALLER|REQUESTED|direct_url\.json)$|\.data/(scripts|headers|data)/|\.pyc$")
_IN_DATA = re.compile(r"^[^/]+\.data/(?:purelib|platlib)/")


def build(wheel: Path, target: Path, epoch: int) -> None:
    """Write the file: the locked packages and mirrorstream's wheel. The same wheel and time give the same. Raises ReleaseError."""
    modules = merged([*wheels(), wheel])
    digest = hashlib.sha256()
    for name, content in sorted(modules.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    launcher = _LAUNCHER.read_text(encoding="utf-8")
    build = digest.hexdigest()[:16]
    for old, new in (("\nVERSIONS = ((3, 11),)\n", f"\nVERSIONS = {VERSIONS}\n"), ('\nBUILD = ""\n', f'\nBUILD = "{build}"\n')):
        if launcher.count(old) != 1:
            raise ReleaseError(f"{_LAUNCHER.name} has no line{old}")
        launcher = launcher.replace(old, new)
    files = {"__main__.py": launcher.encode(), **{f"modules/{name}": content for name, content in modules.items()}}
    date = time.gmtime(epoch)[:6]
    with target.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in sorted(files.items()):
                info = zipfile.ZipInfo(name, date)
                info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
                archive.writestr(info, content)
    target.chmod(0o755)


def merged(paths: list[Path]) -> dict[str, bytes]:
    """The modules of wheels by their paths. Raises ReleaseError for a module of which two wheels have different ones."""
    found: dict[str, bytes] = {}
    for path in sorted(paths):
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                if name.endswith("/") or _LEFT_OUT.search(name):
                    continue
                content, place = wheel.read(name), _IN_DATA.sub("", name)
                if found.setdefault(place, content) != content and ".dist-info/" not in place:
                    raise ReleaseError(f"{path.name}: {place} differs from that of another wheel")
    return found


def wheels() -> list[Path]:
    """The locked packages' wheels for every version, from the user's cache or downloaded now. Raises ReleaseError."""
    lock = _LOCK.read_bytes()
    key = hashlib.sha256(lock + repr((VERSIONS, _PLATFORMS)).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mirrorstream" / "wheels" / key
    done = folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for version in VERSIONS:
            print(f"release: wheels for Python {version[0]}.{version[1]} …", file=sys.stderr, flush=True)  # noqa: T201
            _download(folder, "{}.{}".format(*version))
        done.touch()
    return sorted(folder.glob("*.whl"))


def _download(folder: Path, version: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", version, "--dest", str(folder)]
    command += [word for platform in _PLATFORMS for word in ("--platform", platform)]
    done = subprocess.run(  # noqa: S603  no shell, known programs
        [*command, "--requirement", str(_LOCK)], capture_output=True, text=True, check=False, timeout=_STEP_SECONDS
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ReleaseError(f"the wheels of requirements.lock for Python {version} cannot be had: {last}")
