"""`make image BASE=debian`: the image on a base of Debian packages, for machines that reach no image registry.

mmdebstrap makes the base's root file system from the machine's own Debian sources, buildah builds the Containerfile on it, and the
result is an OCI archive. The same sources, commit and Debian packages give the same bytes. The root file system and the archive are
kept in the user's cache for a day, by a digest of what goes in, so a second build takes a moment. How packages are reached (apt's
sources and settings, pip's index and certificates) is read from the machine, and nothing of it is in the image.

Needs the standard library only. The environment variables are those of `config/image/build.sh`, and APT_SOURCES: a file of sources
to take instead of the machine's.
"""

import ast
import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.image.debian_sources import SourcesError, machine_sources, machine_suite

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("python3", "python3-venv")
"""Besides Debian's essential packages. The first stage makes environments; the second shares its base."""
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
MACHINES_OWN = ("hostname", "resolv.conf", "apt/sources.list", "apt/sources.list.d", "apt/auth.conf.d", "apt/apt.conf.d/50machine")
"""What is below /etc while mmdebstrap works, and must not be in the image."""
NEEDED = ("mmdebstrap", "buildah")
TIED = ("setpriv", "--pdeathsig", "KILL", "--")
"""The kernel ends what was started when this process is killed."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
STEP_SECONDS = 900
STORE = "store"
"""The folder of buildah's images and containers, in that of a build."""
KEPT = {"base": 2, "image": 10}
"""How many root file systems and archives stay in the cache; a root file system has 160 MB, an archive 90 MB."""


class BuildError(Exception):
    """The image cannot be built; the text says why, in a way that can be shown to people."""


@dataclass(frozen=True)
class Labels:
    """What the image says about itself. Without a commit two builds of the same sources are one."""

    name: str = ""
    revision: str = ""
    created: str = "1970-01-01T00:00:00Z"

    @property
    def version(self) -> str:
        """The project's."""
        return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])

    @property
    def epoch(self) -> int:
        """`created` in seconds: the time of every file of the image."""
        return int(datetime.datetime.fromisoformat(self.created).timestamp())


def image_archive(labels: Labels | None = None) -> Path:
    """The image of this checkout as an OCI archive in the user's cache, built now if it is not there. Raises BuildError."""
    labels = labels or Labels()
    missing = [program for program in NEEDED if not shutil.which(program)]
    if missing:
        raise BuildError(f"BASE=debian needs {' and '.join(missing)} (Debian: apt-get install {' '.join(missing)})")
    try:
        suite = machine_suite()
        given = os.environ.get("APT_SOURCES")
        sources = Path(given).read_text(encoding="utf-8") if given else machine_sources()
    except (SourcesError, OSError) as error:
        raise BuildError(str(error)) from error
    base_key = _digest(today(), suite, platform.machine(), sources, *base_command(suite, "SETTINGS", "SOURCES", "BASE"))
    base = _cache() / f"base-{base_key}.tar"
    archive = archive_of(base_key, labels)
    if _used(archive):
        # Before the lock: another checkout's build may hold it for minutes.
        _used(base)
        return archive
    with alone() as builder:
        if not archive.exists():
            if not base.exists():
                say(f"making a root file system of Debian {suite} packages, about 40 s …")
                builder.make_base(suite, sources, base)
            say("building the image, about 40 s …")
            builder.build(builder.base_image(suite, base, labels), "python3", labels, archive)
        keep(archive, base)
    return archive


def today() -> str:
    """Today's date in UTC. The base is built again each day, so that it gets Debian's security updates."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def archive_of(base: str, labels: Labels) -> Path:
    """Where the cache has the image of this checkout on a base, which is told apart by `base`."""
    return _cache() / f"image-{_digest(base, repr(labels), Path(__file__).read_text(encoding='utf-8'), _context())}.tar"


def keep(*used: Path) -> None:
    """Keep these and the newest files of each kind in the cache, no others."""
    for path in used:
        _used(path)
    for kind, kept in KEPT.items():
        for path in sorted(_cache().glob(f"{kind}-*.tar"), key=lambda found: found.stat().st_mtime, reverse=True)[kept:]:
            path.unlink()


def digest_of(archive: Path) -> str:
    """The digest of the manifest in an OCI archive, which a registry keeps."""
    (manifest,) = _json_in(archive, "index.json")["manifests"]
    return str(manifest["digest"])


def manifest_of(archive: Path) -> dict[str, Any]:
    """The image's manifest in an OCI archive."""
    return _json_in(archive, f"blobs/{digest_of(archive).replace(':', '/')}")


def _json_in(archive: Path, name: str) -> dict[str, Any]:
    with tarfile.open(archive) as tar:
        if (file := tar.extractfile(name)) is None:
            raise ValueError(f"{archive} is no OCI archive: {name} is not a file")
        found: dict[str, Any] = json.load(file)
    return found


def base_command(suite: str, settings: str, sources: str, target: str) -> list[str]:
    """How the root file system is made, of apt's settings and a file of sources."""
    own = " ".join(f'"$1/etc/{name}"' for name in MACHINES_OWN)
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=essential",
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f'--setup-hook=install -D -m 644 "{settings}" "$1/etc/apt/apt.conf.d/50machine"',
        f"--customize-hook=rm -rf {own}",
        "--format=tar",
        suite,
        target,
        sources,
    ]


class Builder:
    """Makes files in a folder of its own, with programs that hold the lock as this process does."""

    def __init__(self, folder: Path, lock: int) -> None:
        self._folder, self._lock = folder, lock

    def make_base(self, suite: str, sources: str, target: Path) -> None:
        """The root file system, without a trace of the machine. Raises BuildError."""
        settings, listed, made = self._folder / "apt.conf", self._folder / "debian.sources", self._folder / "base.tar"
        settings.write_text(_apt_settings(), encoding="utf-8")
        listed.write_text(sources, encoding="utf-8")
        self._run(*base_command(suite, str(settings), str(listed), str(made)))
        made.replace(target)

    def base_image(self, suite: str, base: Path, labels: Labels) -> str:
        """The name of an image of the root file system. Raises BuildError."""
        base_name = f"localhost/mirrorstream-base:{suite}"
        container = self._buildah("from", "--pull-never", "scratch")
        self._buildah("add", "--quiet", container, str(base), "/")
        self._buildah("commit", "--quiet", "--rm", "--timestamp", str(labels.epoch), container, base_name)
        return base_name

    def build(self, base_name: str, python: str, labels: Labels, target: Path, pull: str = "--pull-never") -> None:
        """The Containerfile on a base that has `python`, as an archive. Raises BuildError."""
        layout = self._folder / "oci"
        index, certificates = _pip_settings()
        arguments = {
            "BASE_IMAGE": base_name,
            "PYTHON": python,
            "VERSION": labels.version,
            "REVISION": labels.revision,
            "CREATED": labels.created,
            "PIP_INDEX_URL": index,
            "PIP_CERT": CERTIFICATES if certificates else "",
        }
        self._buildah(
            "build",
            "--quiet",
            pull,
            "--network=host",
            f"--timestamp={labels.epoch}",
            *(f"--build-arg={name}={value}" for name, value in arguments.items()),
            *([f"--volume={certificates}:{CERTIFICATES}:ro"] if certificates else []),
            "--tag=localhost/mirrorstream",
            "--file=Containerfile",
            ".",
        )
        self._buildah("push", "--quiet", "localhost/mirrorstream", f"oci:{layout}:{labels.name or labels.version}")
        _pack(layout, self._folder / "image.tar")
        (self._folder / "image.tar").replace(target)

    def _buildah(self, *arguments: str) -> str:
        store = ("--root", str(self._folder / STORE), "--runroot", str(self._folder / "run"), "--storage-driver", "vfs")
        return self._run("buildah", *store, *arguments).strip()

    def _run(self, *command: str) -> str:
        """What a program prints. It and all that it started end with this call. Raises BuildError."""
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "0", "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self._folder)}
        process = subprocess.Popen(  # noqa: S603  no shell, and a program of ours
            [*TIED, *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=(self._lock,),
        )
        try:
            out, errors = process.communicate(timeout=STEP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"{command[0]} did not end within {STEP_SECONDS} s") from error
        finally:
            _end(process)
        if process.returncode:
            last = "\n".join((errors or out).splitlines()[-12:])
            raise BuildError(f"{command[0]} ended with {process.returncode}:\n{last}")
        return out


def _end(process: "subprocess.Popen[str]") -> None:
    """End a program's whole session: first as a terminal would, which lets mmdebstrap clear up."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


@contextlib.contextmanager
def alone() -> Iterator[Builder]:
    """One build at a time on this machine, in an empty folder that is gone afterwards; after a kill the next one clears it."""
    folder = _cache() / "building"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (_cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _clear(folder)
        try:
            # Where apt's own user can read its files, as in some homes, apt works as that user, and leaves folders of it.
            folder.mkdir(mode=0o700)
            yield Builder(folder, lock.fileno())
        finally:
            try:
                _clear(folder)
            except BuildError as error:  # the build's own result matters more
                say(str(error))


def _clear(folder: Path) -> None:
    """Not shutil.rmtree: were anything mounted there, this leaves it alone. Raises BuildError.

    Users who are not root own only some files of a store: the others belong to numbers that are theirs in a user namespace.
    """
    inside = ["buildah", "unshare"] if os.geteuid() and (folder / STORE).exists() else []
    try:
        subprocess.run([*inside, "/bin/rm", "-rf", "--one-file-system", str(folder)], check=True, timeout=120)  # noqa: S603  no shell, and a program of ours
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{folder} cannot be removed: {error}") from error


def _used(path: Path) -> bool:
    """Make a file the newest of its kind, which is kept; whether there is one."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mirrorstream" / "image"


def _context() -> str:
    """A digest of everything that the Containerfile can copy, and of itself."""
    through = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    roots = [ROOT / "Containerfile", *(ROOT / line.removeprefix("!/") for line in through if line.startswith("!/"))]
    paths = [path for root in roots for path in (root.rglob("*") if root.is_dir() else [root])]
    files = sorted(path for path in paths if path.is_file() and "__pycache__" not in path.parts)
    return _digest(*(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _apt_settings() -> str:
    """How this machine's apt reaches its sources: proxies, certificates, credentials."""
    dumped = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True, timeout=30).stdout  # noqa: S607  of the machine's own
    return f'{dumped}Dir::Etc::netrc "/etc/apt/auth.conf";\nDir::Etc::netrcparts "/etc/apt/auth.conf.d";\n'


def _pip_settings() -> tuple[str, str]:
    """The package index and the certificates' file that pip is told here; "" is its own default."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, timeout=60
    ).stdout
    found = {name: ast.literal_eval(value) for name, value in re.findall(r"^(\S+?\.[\w-]+)=(.*)$", listed, re.MULTILINE)}

    def setting(name: str) -> str:
        places = (
            os.environ.get(f"PIP_{name.upper().replace('-', '_')}"),
            found.get(f"install.{name}"),
            found.get(f"global.{name}"),
        )
        return next((place for place in places if place), "")

    usual = ssl.get_default_verify_paths().cafile or (CERTIFICATES if Path(CERTIFICATES).exists() else "")
    return setting("index-url"), setting("cert") or usual


def _pack(layout: Path, target: Path) -> None:
    """An OCI layout as an archive whose bytes depend on the files alone."""
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(path for path in layout.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(path.relative_to(layout).as_posix())
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                tar.addfile(entry, file)


def say(text: str) -> None:
    """What takes long now."""
    print(f"image: {text}", file=sys.stderr, flush=True)  # noqa: T201  a program's output


def _refuse(why: str) -> int:
    print(f"make image: {why}", file=sys.stderr)  # noqa: T201
    return 1


def main() -> int:
    """Write dist/mirrorstream-VERSION-oci.tar."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given = {"name": os.environ.get("IMAGE"), "revision": os.environ.get("REVISION"), "created": os.environ.get("CREATED")}
    labels = Labels(**{key: value for key, value in given.items() if value})
    if os.environ.get("PLATFORMS"):
        return _refuse("BASE=debian builds for this machine's architecture only; leave PLATFORMS out")
    try:
        archive = image_archive(labels)
    except BuildError as error:
        return _refuse(str(error))
    target = ROOT / "dist" / f"mirrorstream-{labels.version}-oci.tar"
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(archive, target.with_suffix(".part"))
    target.with_suffix(".part").replace(target)
    print(f"{target.relative_to(ROOT)}  {digest_of(target)}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
