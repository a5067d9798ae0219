"""Where the program comes from: the PATH, or Debian's package, which is unpacked only: installed, it would start a service."""

import shutil
import subprocess
from pathlib import Path

from e2e.testbed.support.gobuild import built_once, cache_folder

NAME = "prometheus"


class NoPrometheusError(Exception):
    """There is none; the text says why."""


def program() -> Path:
    """The program `prometheus`, downloaded into the user's cache where it must be. Raises NoPrometheusError."""
    if found := shutil.which(NAME):
        return Path(found)
    for needed in ("apt-get", "dpkg-deb"):
        if not shutil.which(needed):
            raise NoPrometheusError(f"there is no {NAME} on the PATH, and no {needed} to get Debian's package with")
    return built_once(cache_folder() / NAME, _unpack) / NAME


def _unpack(folder: Path) -> None:
    done = subprocess.run(["apt-get", "download", NAME], cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    packages = sorted(folder.glob(f"{NAME}_*.deb"))
    if done.returncode or not packages:
        last = (done.stderr.strip().splitlines() or ["no package"])[-1]
        raise NoPrometheusError(f"there is no {NAME} on the PATH, and Debian's package cannot be downloaded: {last}")
    files = subprocess.run(["dpkg-deb", "--fsys-tarfile", packages[-1].name], cwd=folder, capture_output=True, check=True)
    member = f"./usr/bin/{NAME}"
    subprocess.run(["tar", "-x", "--strip-components=3", member], cwd=folder, input=files.stdout, check=True)
    for package in packages:
        package.unlink()
