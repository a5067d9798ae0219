"""`make image BASE=debian`: what is built when, what stays behind, and what a real build has in it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from config.image import debian
from config.image.debian import BuildError, Labels, digest_of, image_archive
from e2e.testbed.support.processes import Process
from e2e.testbed.support.waiting import PATIENCE, wait_for
from tests.model import SOAK
from tests.packaging.containerfile import ROOT
from tests.packaging.stand_ins import PROGRAMS, cached, calls, replace


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs in place of the real ones, which count their calls; a cache of the test's own. The folder of the programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in PROGRAMS.items():
        replace(folder, name, script)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("FOLDER", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(debian, "machine_suite", lambda: "bookworm")
    monkeypatch.setattr(debian, "machine_sources", lambda: "Types: deb\n")
    return folder


def test_builds_once_for_the_same_sources(stand_ins: Path, tmp_path: Path) -> None:
    """The second time nothing is called, and nothing but the results is left."""
    archive = image_archive()
    first = len(calls(stand_ins))
    assert image_archive() == archive
    assert len(calls(stand_ins)) == first
    assert digest_of(archive) == "sha256:1"
    assert cached(tmp_path) == ["base", "image", "lock"]


@pytest.mark.timeout(120)
def test_does_not_wait_for_another_build_if_the_image_is_there(stand_ins: Path) -> None:
    """Another checkout's build holds the lock for minutes."""
    archive = image_archive()
    with debian.alone():
        assert image_archive() == archive


def test_builds_again_for_other_labels_on_the_same_base(stand_ins: Path) -> None:
    """Another commit is another image; the root file system has nothing of it."""
    assert image_archive() != image_archive(Labels(revision="f" * 40))
    assert sum(call.startswith("mmdebstrap ") for call in calls(stand_ins)) == 1


def test_builds_again_when_a_source_changes(stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that the Containerfile copies counts, and bytecode does not."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "mirror", project / "mirror", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".containerignore", "Containerfile", "pyproject.toml"):
        shutil.copy(ROOT / name, project)
    monkeypatch.setattr(debian, "ROOT", project)
    before = image_archive()
    (project / "mirror" / "__pycache__").mkdir()
    (project / "mirror" / "__pycache__" / "a.pyc").touch()
    assert image_archive() == before
    with (project / "mirror" / "mirrorstream_cli" / "main.py").open("a") as file:
        file.write("#\n")
    assert image_archive() != before


def test_apt_is_told_what_the_machine_knows(stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy and where credentials are; APT_SOURCES in place of the machine's own sources."""
    (tmp_path / "mine.sources").write_text("Types: deb\nURIs: http://mine.example.com\n", encoding="utf-8")
    monkeypatch.setenv("APT_SOURCES", str(tmp_path / "mine.sources"))
    image_archive()
    settings = (stand_ins / "apt.conf").read_text(encoding="utf-8")
    assert 'Acquire::http::Proxy "http://proxy.example.com:3128";' in settings
    assert 'Dir::Etc::netrc "/etc/apt/auth.conf";' in settings
    assert "mine.example.com" in (stand_ins / "sources").read_text(encoding="utf-8")


def test_apts_own_user_cannot_read_where_the_base_is_made(stand_ins: Path) -> None:
    """Whether it can decides what is in the base: on every machine it must be the same."""
    replace(stand_ins, "mmdebstrap", f'stat --format %a "$TMPDIR" > "$FOLDER/mode"\n{PROGRAMS["mmdebstrap"]}')
    image_archive()
    assert (stand_ins / "mode").read_text(encoding="utf-8") == "700\n"


def test_pip_is_told_what_the_machine_knows(stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Index and certificates, which the first stage reads from a volume."""
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://pypi.example.com/simple\ncert = /ca.pem\n", encoding="utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    for name in ("PIP_INDEX_URL", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    image_archive()
    (build,) = [call.split() for call in calls(stand_ins) if " build " in call]
    assert "--build-arg=PIP_INDEX_URL=https://pypi.example.com/simple" in build
    assert "--volume=/ca.pem:/etc/ssl/certs/ca-certificates.crt:ro" in build
    assert "--build-arg=PIP_CERT=/etc/ssl/certs/ca-certificates.crt" in build


@pytest.mark.parametrize("name", ["mmdebstrap", "buildah"])
def test_a_failure_leaves_nothing_behind(name: str, stand_ins: Path, tmp_path: Path) -> None:
    """The error has the program's last lines; what was done before it is kept."""
    replace(stand_ins, name, "echo 'E: Unable to fetch' >&2; exit 100")
    with pytest.raises(BuildError, match=f"{name} ended with 100:\nE: Unable to fetch"):
        image_archive()
    assert cached(tmp_path) == (["lock"] if name == "mmdebstrap" else ["base", "lock"])


def test_what_cannot_be_removed_hides_no_error(
    stand_ins: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message is printed. The next build fails because it needs the folder empty."""
    real = subprocess.run

    def run(command: list[str], **more: Any) -> Any:
        if command[0] == "/bin/rm" and Path(command[-1]).exists():
            raise subprocess.CalledProcessError(1, command)
        return real(command, **more)

    replace(stand_ins, "mmdebstrap", "echo no such suite >&2; exit 1")
    with monkeypatch.context() as patched:
        patched.setattr(debian.subprocess, "run", run)
        with pytest.raises(BuildError, match="no such suite"):
            image_archive()
        assert "building cannot be removed: " in capsys.readouterr().err
        with pytest.raises(BuildError, match="building cannot be removed: "):
            image_archive()
        assert not capsys.readouterr().err
    replace(stand_ins, "mmdebstrap", PROGRAMS["mmdebstrap"])
    assert image_archive().exists()


def test_the_oldest_are_forgotten(stand_ins: Path, tmp_path: Path) -> None:
    """The cache does not grow with every commit."""
    for number in range(debian.KEPT["image"] + 2):
        archive = image_archive(Labels(revision=str(number)))
    assert cached(tmp_path) == ["base", *["image"] * debian.KEPT["image"], "lock"]
    assert archive.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ended_in_the_middle(number: signal.Signals, stand_ins: Path, tmp_path: Path) -> None:
    """What it had started ends, and its folder goes; after a kill, with the next build."""
    replace(stand_ins, "mmdebstrap", 'echo $$ > "$FOLDER/pid"; exec sleep 60')
    code = (
        "from config.image import debian; debian.machine_suite = lambda: 'a'; debian.machine_sources = lambda: 'b'; debian.main()"
    )
    # A shell that starts this run in the background has it ignore SIGINT, and so do programs that it starts.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {code}"
    process = Process("build", [sys.executable, "-c", code], tmp_path / "log", folder=ROOT)
    process.wait_until("mmdebstrap runs", lambda: (stand_ins / "pid").exists() and (stand_ins / "pid").read_text().strip() != "")
    process.send(number)
    process.wait(PATIENCE)
    child = Path("/proc") / (stand_ins / "pid").read_text().strip()
    wait_for("mmdebstrap ended", lambda: not child.exists() or "Z" in (child / "stat").read_text().split()[2])
    if number == signal.SIGKILL:
        replace(stand_ins, "mmdebstrap", PROGRAMS["mmdebstrap"])
        image_archive()
        assert cached(tmp_path) == ["base", "image", "lock"]
    else:
        assert cached(tmp_path) == ["lock"]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        pytest.param(
            {"PATH": "/nonexistent"},
            "BASE=debian needs mmdebstrap and buildah (Debian: apt-get install mmdebstrap buildah)",
            id="nothing-there",
        ),
        pytest.param(
            {"PLATFORMS": "linux/arm64"},
            "BASE=debian builds for this machine's architecture only; leave PLATFORMS out",
            id="platforms",
        ),
        pytest.param({"APT_SOURCES": "/nonexistent"}, "[Errno 2] No such file or directory: '/nonexistent'", id="no-such-file"),
    ],
)
def test_says_in_one_line_what_is_missing(
    variables: dict[str, str], says: str, stand_ins: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And ends with 1."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert debian.main() == 1
    assert capsys.readouterr().err == f"make image: {says}\n"


@pytest.fixture(scope="module")
def buildable() -> None:
    """Skips where no real image can be built."""
    if os.geteuid() or not all(map(shutil.which, debian.NEEDED)):
        pytest.skip(f"needs root, {' and '.join(debian.NEEDED)}")


@pytest.fixture(scope="module")
def built(buildable: None) -> Path:
    """The archive that a real build makes."""
    return image_archive()


def test_a_real_image(built: Path, tmp_path: Path) -> None:
    """It has what the Containerfile says on a base that knows nothing of the machine where it was built, and it is small."""
    with tarfile.open(built) as archive:
        archive.extractall(tmp_path, filter="data")
    manifest = blob(tmp_path, digest_of(built))
    config = blob(tmp_path, manifest["config"]["digest"])
    assert config["config"]["User"] == "1001"
    assert config["config"]["Labels"]["org.opencontainers.image.version"] == Labels().version
    assert config["created"] == "1970-01-01T00:00:00Z"
    base, ours = (names(tmp_path, layer["digest"]) for layer in manifest["layers"])
    assert "opt/mirrorstream/bin/mirrorstream" in ours
    assert not [name for name in ours if not f"{name}/".startswith(("opt/", "etc/", "proc/", "sys/", "dev/"))]
    assert "usr/bin/python3" in base
    of_machine = {f"etc/{name}" for name in debian.MACHINES_OWN} | {"etc/machine-id", "etc/hosts"}
    assert of_machine & (base | ours) == set()
    assert not [name for name in base if name.endswith((".deb", "_Packages", "_InRelease", "pkgcache.bin"))]
    assert built.stat().st_size < 120e6


@pytest.mark.skipif(not SOAK, reason="makes two images, which takes three minutes: `make soak`")
@pytest.mark.usefixtures("buildable")
def test_a_second_real_image_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, each from nothing that is cached, one in a folder that everybody can read.

    What the cache has may be of other Debian packages than those of this moment.
    """
    made = []
    for mode in (0o700, 0o755):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as cache:
            Path(cache).chmod(mode)
            monkeypatch.setenv("XDG_CACHE_HOME", cache)
            made.append(hashlib.sha256(image_archive().read_bytes()).hexdigest())
    assert made[0] == made[1]


def test_the_base_is_made_each_day(stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a machine that builds releases would never get Debian's security updates."""
    first = image_archive()
    monkeypatch.setattr(debian, "today", lambda: "2030-01-01")
    second = image_archive()
    assert second != first
    assert image_archive() == second


def blob(folder: Path, digest: str) -> dict[str, Any]:
    """A document of an OCI layout."""
    found: dict[str, Any] = json.loads((folder / "blobs" / digest.replace(":", "/")).read_text(encoding="utf-8"))
    return found


def names(folder: Path, digest: str) -> set[str]:
    """The files of a layer."""
    with tarfile.open(folder / "blobs" / digest.replace(":", "/")) as layer:
        return {name.removeprefix("./") for name in layer.getnames()}
