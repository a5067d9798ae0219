"""The release before this one: an older commit of the repository, built by its own build."""

import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

from config.image.debian import ROOT, digest_of
from e2e.testbed.node.product import Object, copy_image

UNRELEASED = "4afb08c5124a3e521e1150a85d445170d4dc0597"
"""Stands for it where nothing was released yet. One commit for all runs, so that they can be compared."""


class NoEarlierError(Exception):
    """There is no earlier release: the clone is shallow, or this is no clone. The text gives the reason."""


def earlier_revision() -> str:
    """The last release's tag before the commit that is checked out, or the commit that stands for it. Raises NoEarlierError."""
    if (tag := _git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^")).returncode == 0:
        return tag.stdout.strip()
    if _git("merge-base", "--is-ancestor", UNRELEASED, "HEAD").returncode:
        raise NoEarlierError(f"needs a clone with all commits: {UNRELEASED} is not before the one that is checked out")
    return UNRELEASED


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


class Earlier:
    """Its checkout in a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises NoEarlierError."""
        self.folder, self.revision = folder, earlier_revision()
        folder.mkdir(parents=True)
        archive = folder.with_suffix(".tar")
        subprocess.run(["git", "archive", "--output", archive, self.revision], cwd=ROOT, check=True, timeout=120)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        archive.unlink()

    def push(self, registry: str, authority: Path, folder: Path) -> str:
        """Build its image and copy it to a registry; the digest."""
        version = tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        command = [sys.executable, "-m", "config.image.debian"]
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=1200)
        assert done.returncode == 0, done.stderr
        archive = self.folder / "dist" / f"mirrorstream-{version}-oci.tar"
        copy_image(archive, registry, authority, folder, "earlier")
        return digest_of(archive)

    def judge(self, configuration: str) -> str:
        """What its programs say of the text of a configuration; empty if they take it."""
        script = (
            "import sys\n"
            "from mirrorstream.runtime.settings import SettingsError, parse_settings\n"
            "try: parse_settings(sys.stdin.read(), 'config.yaml')\n"
            "except SettingsError as error: print(error)\n"
        )
        paths = os.pathsep.join(str(self.folder / room) for room in ("mirror", "controller", "webhook"))
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=configuration,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.strip()


def installed_images(pods: list[Object]) -> set[str]:
    """The digests of the images that pods were told to run."""
    return {container["image"].partition("@")[2] for pod in pods for container in pod["spec"]["containers"]}
