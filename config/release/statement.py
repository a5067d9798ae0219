"""What tells about a release: its sums, the in-toto statement of where it comes from, and the plugin's manifest for krew."""

import gzip
import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path
from typing import Any

import yaml

from config.image.debian import ROOT
from config.release.commit import Commit

Object = dict[str, Any]
HOME = "https://github.com/mirrorstream/mirrorstream"
SUMS, PROVENANCE = "SHA256SUMS", "provenance.json"
LOCKS = ("requirements.lock", "requirements-build.lock", "requirements-dev.lock", "Containerfile")
TOOLS = (("buildah", "--version"), ("mmdebstrap", "--version"))


def sum_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files(folder: Path) -> list[str]:
    """Every file of a folder by its path in it, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def sums(folder: Path) -> str:
    """SHA256SUMS of a folder, in the format of sha256sum."""
    return "".join(f"{sum_of(folder / name)}  {name}\n" for name in files(folder) if name != SUMS)


def provenance(folder: Path, commit: Commit, base: Object, image: Object) -> str:
    """The in-toto statement (v1, with SLSA's provenance v1) for the files of a folder and the image.

    `base` says what the image is built on, `image` which it is, both as resource descriptors. No time of the build is in it: the
    same commit, made again, is the same statement.
    """
    subjects = [
        {"name": name, "digest": {"sha256": sum_of(folder / name)}} for name in files(folder) if name not in (SUMS, PROVENANCE)
    ]
    source = {"uri": f"git+{HOME}@{commit.name}", "digest": {"gitCommit": commit.revision}}
    locked = [{"name": name, "digest": {"sha256": sum_of(ROOT / name)}} for name in LOCKS]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [*subjects, image],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{HOME}/make-release/v1",
                "externalParameters": {"base": base["name"], "command": "make release"},
                "internalParameters": {"sourceDateEpoch": commit.epoch, "dirty": list(commit.dirty)},
                "resolvedDependencies": [source, base, *locked],
            },
            "runDetails": {"builder": {"id": f"{HOME}/config/release", "version": _versions()}},
        },
    }
    return json.dumps(statement, indent=2, sort_keys=True) + "\n"


def _versions() -> dict[str, str]:
    """Of what decides about the bytes on this machine."""
    found = {"python": platform.python_version(), "zlib": zlib.ZLIB_RUNTIME_VERSION, "machine": platform.machine()}
    for name, flag in TOOLS:
        if shutil.which(name):
            done = subprocess.run([name, flag], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  no shell, known programs
            found[name] = done.stdout.strip()
    return found


def plugin_archive(pyz: Path, target: Path, epoch: int) -> None:
    """The one-file command as the archive that krew installs from: krew takes no single files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, path, mode in (("LICENSE", ROOT / "LICENSE", 0o644), ("kubectl-mirrorstream", pyz, 0o755)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = path.stat().st_size, mode, epoch
            with path.open("rb") as file:
                tar.addfile(entry, file)
    target.write_bytes(gzip.compress(made.getvalue(), mtime=epoch))


_PLUGIN = """
The commands read an OpenShift cluster: status groups the tags that fail by what
helps, with each mirror's answer; missing lists what the mirrors lack; check tells
which tags would not survive without the upstream; explain tells where an image
comes from. They contact no registry. retry needs mirrorstream in the cluster.
"""
_CAVEATS = """\
Needs CPython {python} and glibc 2.28 or later. If python3 is another version,
the plugin runs one of these from the PATH.
The first run unpacks 125 MB to ~/.cache/mirrorstream/commands. Delete that folder
when you uninstall the plugin.
"""


def krew(version: str, pyz: Path, archive: Path, summary: str, python: str) -> str:
    """krew.yaml, the manifest of the plugin `mirrorstream`, for versions of Python as text."""
    manifest = {
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": "mirrorstream"},
        "spec": {
            "version": f"v{version}",
            "homepage": HOME,
            "shortDescription": "Tell why ImageStream tags fail behind mirrors",
            "description": f"{summary}.\n" + _PLUGIN,
            "caveats": _CAVEATS.format(python=python),
            "platforms": [
                {
                    "selector": {"matchLabels": {"os": "linux", "arch": "amd64"}},
                    "uri": f"{HOME}/releases/download/v{version}/{archive.name}",
                    "sha256": sum_of(archive),
                    "files": [{"from": "*", "to": "."}],
                    "bin": "kubectl-mirrorstream",
                }
            ],
        },
    }
    note = f"# krew installs from archives only: kubectl-mirrorstream in {archive.name} is\n# {pyz.name}, sha256 {sum_of(pyz)}\n"
    return note + yaml.safe_dump(manifest, sort_keys=False)
