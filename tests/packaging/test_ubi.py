"""`make release BASE=ubi`, where a registry on this machine stands in for Red Hat's: the base there is of Debian packages."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from config.image import debian, ubi
from config.image.debian import Labels, digest_of, image_archive, manifest_of
from config.release import __main__ as program
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.processes import Process
from tests.model import SOAK
from tests.packaging.containerfile import ROOT
from tests.packaging.stand_ins import PROGRAMS, cached, calls, replace

NEEDED = ("docker-registry", *ubi.NEEDED, *debian.NEEDED)
HOST, _, REPOSITORY = "registry.access.redhat.com/ubi9/python-312-minimal".partition("/")
AS_UBI = "FROM scratch\nADD base.tar /\nRUN ln -s python3 /usr/bin/python3.12\n"
"""With the name of the interpreter that UBI has."""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Process]]:
    """An empty registry on loopback, from which buildah and skopeo pull what Red Hat's has; its host."""
    host = f"localhost:{free_port()}"
    settings = tmp_path / ".config" / "containers"
    settings.mkdir(parents=True)
    (settings / "registries.conf").write_text(
        f'[[registry]]\nprefix = "{HOST}"\nlocation = "{host}"\ninsecure = true\n', encoding="utf-8"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("XDG_CONFIG_HOME", "BASE_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    configuration = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}},
        "http": {"addr": host},
    }
    (tmp_path / "registry.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    process = Process("docker-registry", ["docker-registry", "serve", tmp_path / "registry.yml"], tmp_path / "log")
    process.wait_until("it listens", lambda: "listening on" in (tmp_path / "log").read_text(encoding="utf-8"))
    yield host, process
    process.kill()


def push(base: Path, host: str, folder: Path) -> str:
    """Push a root file system to a registry, as UBI; its digest."""
    folder.mkdir()
    shutil.copyfile(base, folder / "base.tar")
    (folder / "Containerfile").write_text(AS_UBI, encoding="utf-8")
    store = ["buildah", "--root", folder / "store", "--runroot", folder / "run", "--storage-driver", "vfs"]
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    for arguments in (
        ["build", "--quiet", "--tag=localhost/ubi", folder],
        [
            "push",
            "--quiet",
            "--tls-verify=false",
            "--digestfile",
            folder / "digest",
            "localhost/ubi",
            f"docker://{host}/{REPOSITORY}",
        ],
    ):
        done = subprocess.run([*store, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, done.stderr
    debian._clear(folder / "store")
    return (folder / "digest").read_text(encoding="utf-8")


@pytest.mark.skipif(not SOAK, reason="builds an image: MIRRORSTREAM_SOAK=1, as `make soak` sets it")
@pytest.mark.skipif(os.geteuid() != 0 or not all(map(shutil.which, NEEDED)), reason=f"needs root, {', '.join(NEEDED)}")
@pytest.mark.timeout(3600)
def test_an_image_on_the_base_that_the_registry_has(
    registry: tuple[str, Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base is asked for once, built on and told by its digest; the cache has nothing but the image."""
    with monkeypatch.context() as usual:
        usual.delenv("XDG_CACHE_HOME")
        usual.setenv("HOME", str(Path("~root").expanduser()))
        image_archive()
        base = max(debian._cache().glob("base-*.tar"), key=lambda path: path.stat().st_mtime)
    host, process = registry
    digest = push(base, host, tmp_path / "ubi")
    labels = Labels("quay.io/mirrorstream/mirrorstream:1", "f" * 40, "2026-11-24T12:00:00Z")
    archive, described = program.image("ubi", labels)
    assert described == {
        "name": "ubi",
        "uri": f"docker://{HOST}/{REPOSITORY}",
        "digest": {"sha256": digest.removeprefix("sha256:")},
    }
    config_digest = manifest_of(archive)["config"]["digest"]
    config = debian._json_in(archive, f"blobs/{config_digest.replace(':', '/')}")
    assert config["created"] == labels.created
    assert config["config"]["User"] == "1001"
    assert config["config"]["Labels"]["org.opencontainers.image.base.name"] == f"{HOST}/{REPOSITORY}@{digest}"
    assert cached(tmp_path) == ["image", "lock"]
    # By its digest it is known: no registry is needed, nor anything built.
    process.kill()
    monkeypatch.setenv("BASE_IMAGE", f"{HOST}/{REPOSITORY}@{digest}")
    again, same = program.image("ubi", labels)
    assert (again, digest_of(again), same) == (archive, digest_of(archive), described)


def test_without_root_a_store_is_removed_in_a_user_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most files of a store belong to other numbers than the user's own, who may not remove them."""
    replace(tmp_path, "buildah", f'case "$1" in unshare) shift; exec "$@";; esac\n{PROGRAMS["buildah"]}\nmkdir -p "$2"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ubi.image_archive(Labels(), f"{HOST}/{REPOSITORY}@sha256:{'a' * 64}")
    building = tmp_path / "cache" / "mirrorstream" / "image" / "building"
    assert calls(tmp_path)[-1] == f"buildah unshare /bin/rm -rf --one-file-system {building}"
    assert cached(tmp_path) == ["image", "lock"]


def test_the_base_is_the_containerfiles() -> None:
    """With the interpreter that it has."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert re.findall(r"^ARG BASE_IMAGE=(.+):latest$", text, re.MULTILINE) == [f"{HOST}/{REPOSITORY}"]
    assert re.findall(r"^ARG PYTHON=(.+)$", text, re.MULTILINE) == [ubi.PYTHON]
