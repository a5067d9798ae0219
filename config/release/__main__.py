"""`make release [BASE=ubi|debian]`: writes dist/, everything that somebody needs who installs mirrorstream.

The same commit gives the same bytes: every time is the commit's, archives are sorted and have no owners. When it fails, dist/ stays
as it was.
"""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import yaml

from config.bundle import generate
from config.image import debian, sbom, ubi
from config.image.debian import ROOT, BuildError, Labels, digest_of
from config.image.debian_sources import machine_suite
from config.release import onefile, render, statement
from config.release.commit import Commit, ReleaseError, checked_out

Object = dict[str, Any]
DIST = ROOT / "dist"
CSV = "manifests/mirrorstream.clusterserviceversion.yaml"


def distributions(folder: Path, epoch: int) -> Path:
    """Write the sdist and the wheel that is built from it; the wheel. Raises ReleaseError."""
    with tempfile.TemporaryDirectory() as made:
        _hatch("sdist", ROOT, folder, epoch)
        (sdist,) = folder.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(made, filter="data")
        (source,) = Path(made).iterdir()
        _hatch("wheel", source, folder, epoch)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _hatch(target: str, source: Path, folder: Path, epoch: int) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603  no shell, known programs
    if done.returncode:
        raise ReleaseError(f"the {target} cannot be built: {done.stderr.strip().splitlines()[-1]}")


def image(base: str, labels: Labels) -> tuple[Path, Object]:
    """The image's archive in the cache, and what it is built on, as a resource descriptor. Raises BuildError, ReleaseError."""
    if base == "debian":
        archive = debian.image_archive(labels)
        return archive, {
            "name": "debian",
            "uri": f"pkg:generic/debian-rootfs@{machine_suite()}",
            "digest": _base_layer(archive),
        }
    if base != "ubi":
        raise ReleaseError(f"BASE is ubi or debian, not {base}")
    pinned = ubi.pinned_base()
    name, _, digest = pinned.partition("@sha256:")
    return ubi.image_archive(labels, pinned), {"name": "ubi", "uri": f"docker://{name}", "digest": {"sha256": digest}}


def _base_layer(archive: Path) -> Object:
    """The digest of the first layer: the root file system."""
    return {"sha256": debian.manifest_of(archive)["layers"][0]["digest"].removeprefix("sha256:")}


def without_image(folder: Path, commit: Commit, digest: str, command: list[str] | None = None) -> None:
    """Write everything but the image, what tells of it, and the sums; `command` renders. Raises ReleaseError, MissingError."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version, stem = project["version"], f"mirrorstream-{project['version']}-linux-x86_64"
    wheel = distributions(folder, commit.epoch)
    pyz, archive = folder / f"{stem}.pyz", folder / f"{stem}.tar.gz"
    onefile.build(wheel, pyz, commit.epoch)
    statement.plugin_archive(pyz, archive, commit.epoch)
    _write(folder / "krew.yaml", statement.krew(version, pyz, archive, project["description"], onefile.PYTHON))
    _write(folder / sbom.TARGET.name, sbom.bill())
    for overlay in render.INSTALL:
        _write(folder / f"install-{overlay}.yaml", render.install_file(overlay, version, digest, command))
    bundle = generate.files(digest, command)
    generate.write(folder / "bundle", bundle)
    (folder / "catalog").mkdir()
    _write(folder / "catalog" / "catalog.yaml", generate.catalog(yaml.safe_load(bundle[CSV])))


def release(folder: Path, base: str, commit: Commit, labels: Labels, command: list[str] | None = None) -> None:
    """Write a release into an empty folder, with an image of these labels. Raises ReleaseError, BuildError, MissingError."""
    command = command or render.tool()
    archive, built_on = image(base, labels)
    digest = digest_of(archive)
    shutil.copyfile(archive, folder / f"mirrorstream-{labels.version}-oci.tar")
    without_image(folder, commit, digest, command)
    described = {"name": f"{render.IMAGE}:{labels.version}", "digest": {"sha256": digest.removeprefix("sha256:")}}
    _write(folder / statement.PROVENANCE, statement.provenance(folder, commit, built_on, described))
    _write(folder / statement.SUMS, statement.sums(folder))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def main() -> int:
    """Make it, and list it; 1 if that cannot be, with one line that says why."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o022)
    made = Path(tempfile.mkdtemp(prefix="dist.", dir=DIST.parent))
    try:
        commit = checked_out()
        if commit.dirty:
            changed = f"{len(commit.dirty)} files are not as in the commit, {commit.dirty[0]} for one"
            print(f"release: {changed}: image and provenance say -dirty", file=sys.stderr, flush=True)  # noqa: T201
        made.chmod(0o755)
        labels = Labels(f"{render.IMAGE}:{Labels().version}", commit.name, commit.created)
        release(made, os.environ.get("BASE") or "ubi", commit, labels)
        shutil.rmtree(DIST, ignore_errors=True)
        made.rename(DIST)
    except (ReleaseError, BuildError, sbom.MissingError) as error:
        print(f"make release: {error}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        shutil.rmtree(made, ignore_errors=True)
    for name in statement.files(DIST):
        print(f"dist/{name}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
