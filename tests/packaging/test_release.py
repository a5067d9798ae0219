"""What `make release` writes: each artefact is tried as its users do, and two builds are the same."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.release import __main__ as program
from config.release import onefile, statement
from config.release.commit import ReleaseError, checked_out
from config.release.render import IMAGE, INSTALL
from e2e.testbed.support.gobuild import alone
from tests.model import SOAK
from tests.packaging.containerfile import ROOT

Object = dict[str, Any]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
STEM = f"mirrorstream-{VERSION}-linux-x86_64"
DIGEST = "sha256:" + 32 * "ab"
COMMIT = "f" * 40
PYTHON = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")
"""Without an environment around it."""
BUILD = f"""
import os, pathlib, sys
from config.release import __main__ as program
from config.release.commit import Commit
os.umask(0o022)
program.image = lambda base, labels: (pathlib.Path(sys.argv[2]), {{"name": base, "digest": {{"sha256": "0" * 64}}}})
program.release(pathlib.Path(sys.argv[1]), "debian", Commit("{COMMIT}", 1_700_000_000), program.Labels())
"""
"""A release with an image that is given."""
INSTALLED = ("kubectl", "oc", "kustomize")


def build(source: Path, folder: Path, image: Path, zone: str) -> str:
    """Write a release of a source tree; what went wrong."""
    folder.mkdir()
    environment = {**os.environ, "TZ": zone}
    command = [sys.executable, "-c", BUILD, str(folder), str(image)]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False, timeout=600)
    return done.stderr if done.returncode else ""


def oci_archive(path: Path) -> Path:
    """An archive with nothing but an index."""
    (path.parent / "index.json").write_text(json.dumps({"manifests": [{"digest": DIGEST}]}), encoding="utf-8")
    with tarfile.open(path, "w") as tar:
        tar.add(path.parent / "index.json", "index.json")
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all processes of this run, with a release in `dist`."""
    if not any(map(shutil.which, INSTALLED)):
        pytest.skip("needs kubectl, oc or kustomize")
    found = tmp_path_factory.getbasetemp()
    found = found.parent if "PYTEST_XDIST_WORKER" in os.environ else found
    with alone(found / "release.lock"):
        outcome = found / "release.outcome"
        if not outcome.exists():
            (found / "release").mkdir()
            image = oci_archive(found / "release" / "image.tar")
            outcome.write_text(build(ROOT, found / "release" / "dist", image, "UTC"), encoding="utf-8")
    problem = outcome.read_text(encoding="utf-8")
    if re.search("Connection|Name or service not known|ProxyError", problem):
        pytest.skip("a release needs a package index, and none can be reached")
    assert not problem, problem
    return found / "release"


@pytest.fixture
def dist(base: Path) -> Path:
    """The release."""
    return base / "dist"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user's who has nothing yet."""
    return {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}


def output(*command: str | Path, environment: dict[str, str], status: int = 0) -> str:
    """What a program prints, on both streams."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_everything_is_there(dist: Path) -> None:
    """By the names that the documents tell."""
    names = {name for name in statement.files(dist) if not name.startswith("bundle/")}
    assert names == {
        f"mirrorstream-{VERSION}-py3-none-any.whl",
        f"mirrorstream-{VERSION}.tar.gz",
        f"mirrorstream-{VERSION}-oci.tar",
        f"{STEM}.pyz",
        f"{STEM}.tar.gz",
        *(f"install-{overlay}.yaml" for overlay in INSTALL),
        "catalog/catalog.yaml",
        "krew.yaml",
        "mirrorstream.cdx.json",
        "provenance.json",
        "SHA256SUMS",
    }
    assert (dist / "bundle" / "manifests" / "mirrorstream.clusterserviceversion.yaml").exists()


def test_a_second_build_has_the_same_bytes(base: Path, tmp_path: Path) -> None:
    """From another folder, with other times of the files and in another time zone."""
    copy = tmp_path / "clone"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip("this is no git checkout")
    for name in done.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    assert build(copy, tmp_path / "dist", base / "image.tar", "Asia/Tokyo") == ""
    assert statement.sums(tmp_path / "dist") == statement.sums(base / "dist")


def test_the_wheel_in_a_clean_environment(dist: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """Its commands run with what its metadata asks for, under each name."""
    venv.create(tmp_path / "venv", symlinks=True)
    wheels = onefile.wheels()[0].parent
    pip = [sys.executable, "-m", "pip", "--python", str(tmp_path / "venv" / "bin" / "python"), "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--find-links", str(wheels), *dist.glob("*.whl")], check=True, capture_output=True, timeout=300)
    for name in ("mirrorstream", "kubectl-mirrorstream"):
        assert output(tmp_path / "venv" / "bin" / name, "--version", environment=environment).endswith(f" {VERSION}\n")
    imports = "import mirrorstream_controller.manager, mirrorstream_webhook.manager, mirrorstream_cli.commands.explain_as_pod"
    imports += ", mirrorstream.kube.kubeconfig"
    assert output(tmp_path / "venv" / "bin" / "python", "-I", "-c", imports, environment=environment) == ""


def test_the_one_file_with_nothing_installed(dist: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """Rules of a file, which need most packages; the second run unpacks nothing."""
    (tmp_path / "objects.yaml").write_text(
        "apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata: {name: a}\n"
        "spec: {imageDigestMirrors: [{source: quay.io/a, mirrors: [mirror.example.com/a]}]}\n",
        encoding="utf-8",
    )
    pyz = dist / f"{STEM}.pyz"
    asked = (PYTHON, "-I", pyz, "explain", "--file", tmp_path / "objects.yaml", "quay.io/a/b:v1")
    first = output(*asked, environment=environment)
    assert "mirror.example.com/a/b" in first
    (unpacked,) = (tmp_path / ".cache" / "mirrorstream" / "commands").iterdir()
    before = unpacked.stat().st_mtime_ns
    assert output(*asked, environment=environment) == first
    assert unpacked.stat().st_mtime_ns == before
    assert "no such file" in output(PYTHON, "-I", pyz, "status", "--kubeconfig", "/none", environment=environment, status=1)


def test_the_one_file_is_a_plugin(dist: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """Under the plugin's name, by its own first line."""
    (tmp_path / "kubectl-mirrorstream").symlink_to(dist / f"{STEM}.pyz")
    paths = {**environment, "PATH": f"{Path(PYTHON).parent}:/usr/bin:/bin"}
    assert output(tmp_path / "kubectl-mirrorstream", "--version", environment=paths) == f"kubectl mirrorstream {VERSION}\n"
    (tmp_path / "kubectl_complete-mirrorstream").symlink_to(dist / f"{STEM}.pyz")
    assert output(tmp_path / "kubectl_complete-mirrorstream", "status", "-o", "j", environment=paths) == "json\n:4\n"


def test_the_one_file_where_nothing_can_be_kept(dist: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """It runs, and leaves nothing behind."""
    (tmp_path / "tmp").mkdir()
    where = {**environment, "XDG_CACHE_HOME": "/dev/null/cache", "TMPDIR": str(tmp_path / "tmp")}
    assert output(PYTHON, "-I", dist / f"{STEM}.pyz", "--version", environment=where) == f"mirrorstream {VERSION}\n"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_sums(dist: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """The check of the documents takes the release, and names the file of which one byte is another."""
    copy = tmp_path / "dist"
    shutil.copytree(dist, copy)
    check = f"cd {copy} && sha256sum --check --strict --quiet SHA256SUMS"
    assert output("sh", "-c", check, environment=environment) == ""
    listed = {line.split("  ")[1] for line in (copy / "SHA256SUMS").read_text(encoding="utf-8").splitlines()}
    assert listed == set(statement.files(copy)) - {"SHA256SUMS"}
    for name in ("install-openshift.yaml", f"mirrorstream-{VERSION}-oci.tar"):
        content = bytearray((copy / name).read_bytes())
        content[100] ^= 1
        (copy / name).write_bytes(content)
        assert f"{name}: FAILED" in output("sh", "-c", check, environment=environment, status=1)
        shutil.copy2(dist / name, copy / name)
    sums = bytearray((copy / "SHA256SUMS").read_bytes())
    sums[100] ^= 0x40
    (copy / "SHA256SUMS").write_bytes(sums)
    assert "improperly formatted" in output("sh", "-c", check, environment=environment, status=1)


def test_the_provenance(dist: Path) -> None:
    """An in-toto statement of everything else that is there, and of the image: the commit, the base, the locks."""
    found = json.loads((dist / "provenance.json").read_text(encoding="utf-8"))
    assert (found["_type"], found["predicateType"]) == ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1")
    subjects = {item["name"]: item["digest"]["sha256"] for item in found["subject"]}
    assert subjects.pop(f"{IMAGE}:{VERSION}") == DIGEST.removeprefix("sha256:")
    sums = dict(reversed(line.split("  ")) for line in (dist / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    del sums["provenance.json"]
    assert subjects == sums
    definition = found["predicate"]["buildDefinition"]
    materials = {item.get("uri") or item["name"]: item["digest"] for item in definition["resolvedDependencies"]}
    assert materials[f"git+{statement.HOME}@{COMMIT}"] == {"gitCommit": COMMIT}
    assert materials["requirements.lock"] == {"sha256": statement.sum_of(ROOT / "requirements.lock")}
    assert "debian" in materials
    assert found["predicate"]["runDetails"]["builder"]["version"]["python"]


def test_the_plugins_manifest(dist: Path) -> None:
    """Krew takes archives only: the one file is in it under the plugin's name, and both sums are told."""
    text = (dist / "krew.yaml").read_text(encoding="utf-8")
    spec = yaml.safe_load(text)["spec"]
    (platform,) = spec["platforms"]
    assert spec["caveats"].startswith("Needs CPython 3.11 to 3.14 and glibc 2.28 or later.")
    assert "~/.cache/mirrorstream/commands" in spec["caveats"]
    assert max(len(line) for line in (spec["description"] + spec["caveats"]).splitlines()) <= 90  # shown as it stands
    archive = dist / platform["uri"].rpartition("/")[2]
    assert platform["sha256"] == statement.sum_of(archive)
    assert statement.sum_of(dist / f"{STEM}.pyz") in text
    with tarfile.open(archive) as tar:
        assert set(tar.getnames()) == {"LICENSE", platform["bin"]}
        entry = tar.getmember(platform["bin"])
        file = tar.extractfile(entry)
        assert file
        assert file.read() == (dist / f"{STEM}.pyz").read_bytes()
        assert (entry.mode, entry.uid, entry.gid) == (0o755, 0, 0)


@pytest.mark.parametrize("overlay", INSTALL)
def test_an_install_file_names_the_image_by_its_digest(overlay: str, dist: Path) -> None:
    """It needs no checkout: one sed names the image in a mirror, and changes nothing else."""
    text = (dist / f"install-{overlay}.yaml").read_text(encoding="utf-8")
    objects = [item for item in yaml.safe_load_all(text) if item]
    containers = [c for item in objects if item["kind"] == "Deployment" for c in item["spec"]["template"]["spec"]["containers"]]
    assert [container["image"] for container in containers] == [f"{IMAGE}@{DIGEST}"] * 2
    commands = [line for line in text.splitlines() if line.startswith("#")]
    assert text.count(IMAGE) == 2 + sum(line.count(IMAGE) for line in commands)


def test_the_commit(tmp_path: Path) -> None:
    """Its time is the release's; what it does not have is named; without one there is no release."""
    with pytest.raises(ReleaseError, match="needs a git checkout with a commit"):
        checked_out(tmp_path)
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    environment = {**os.environ, "GIT_COMMITTER_DATE": "2026-11-24T12:00:00Z"}
    (tmp_path / "file").write_text("one", encoding="utf-8")
    for arguments in (("init", "--quiet"), ("add", "file"), (*identity, "commit", "--quiet", "--message", "one")):
        subprocess.run(["git", *arguments], cwd=tmp_path, env=environment, check=True, timeout=60)
    found = checked_out(tmp_path)
    assert (found.created, found.dirty, found.name) == ("2026-11-24T12:00:00Z", (), found.revision)
    (tmp_path / "file").write_text("two", encoding="utf-8")
    (tmp_path / "new").touch()
    changed = checked_out(tmp_path)
    assert (changed.dirty, changed.name) == (("file", "new"), f"{found.revision}-dirty")


def test_a_file_that_git_is_told_to_ignore(tmp_path: Path) -> None:
    """It is packed with its folder, so it is named; what .gitignore names elsewhere, and compiled modules, are not."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    (tmp_path / ".gitignore").write_text("dist/\n", encoding="utf-8")
    settings = (("config", "status.showUntrackedFiles", "no"), ("config", "core.excludesFile", str(tmp_path / ".git" / "mine")))
    for arguments in (("init", "--quiet"), *settings, ("add", "."), (*identity, "commit", "--quiet", "--message", "one")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, timeout=60)
    for name in (
        "dist/a",
        "mirror/a/__pycache__/a.pyc",
        "mirror/a/untracked.py",
        "mirror/a/dist/a.py",
        "mirror/a/excluded.py",
        "mirror/a/mine.py",
        "mine",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".git" / "info").mkdir(exist_ok=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("excluded.py\n", encoding="utf-8")
    (tmp_path / ".git" / "mine").write_text("mine*\n", encoding="utf-8")
    expected = ("mine", "mirror/a/dist/a.py", "mirror/a/excluded.py", "mirror/a/mine.py", "mirror/a/untracked.py")
    assert checked_out(tmp_path).dirty == expected


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: Path, **variables: str) -> str:
    """What `make release` says when it does not make one, with these programs; nothing is left of the attempt."""
    monkeypatch.setenv("PATH", str(path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # Beside the checkout's own folder, tests of other processes make theirs.
    folder = path / "release"
    folder.mkdir()
    monkeypatch.setattr(program, "DIST", folder / "dist")
    assert program.main() == 1
    assert list(folder.iterdir()) == []
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("make release: ")]
    return said


def tools(folder: Path, **scripts: str) -> Path:
    """A PATH with git, and with programs that do what is said."""
    git = shutil.which("git")
    assert git
    (folder / "git").symlink_to(git)
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("scripts", "variables", "says"),
    [
        pytest.param({}, {"BASE": "debian"}, "needs kubectl, oc or kustomize", id="no-kubectl"),
        pytest.param({"kubectl": ""}, {"BASE": "debian"}, "BASE=debian needs mmdebstrap and buildah", id="no-buildah"),
        pytest.param({"kubectl": ""}, {"BASE": "alpine"}, "BASE is ubi or debian, not alpine", id="unknown-base"),
        pytest.param({"kubectl": ""}, {"BASE": "ubi"}, "needs skopeo to find the digest of registry.access", id="no-skopeo"),
        pytest.param(
            {"kubectl": "", "skopeo": "echo one >&2; echo no route to host >&2; exit 1"},
            {"BASE": "ubi", "BASE_IMAGE": "mirror.example.com:5000/ubi9/python-312-minimal:latest"},
            "BASE=ubi needs mirror.example.com:5000/ubi9/python-312-minimal:latest, which cannot be reached; .* no route to host",
            id="unreachable",
        ),
        pytest.param(
            {"kubectl": ""}, {"BASE": "ubi", "BASE_IMAGE": f"r.example.com/ubi@{DIGEST}"}, "BASE=ubi needs buildah", id="pinned"
        ),
    ],
)
def test_what_is_missing_is_one_line(
    scripts: dict[str, str],
    variables: dict[str, str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is built."""
    assert re.search(says, refused(monkeypatch, capsys, tools(tmp_path, **scripts), **variables))


@pytest.mark.skipif(not SOAK, reason="builds an image twice: MIRRORSTREAM_SOAK=1, as `make soak` sets it")
@pytest.mark.timeout(3600)
def test_two_clones_of_one_commit_have_the_same_bytes(tmp_path: Path) -> None:
    """The whole release, image included, by the command of the documents; no part of it comes from the first build's cache."""
    sums = []
    for name in ("one", "two"):
        clone, cache = tmp_path / name, tmp_path / f"{name}-cache"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True, timeout=300)
        (cache / "mirrorstream").mkdir(parents=True)
        (cache / "mirrorstream" / "wheels").symlink_to(onefile.wheels()[0].parents[1])
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "BASE": "debian"}
        done = subprocess.run(
            [sys.executable, "-m", "config.release"],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=1500,
        )
        if shutil.which("buildah") is None:
            pytest.skip(done.stderr)
        assert done.returncode == 0, done.stderr
        sums.append((clone / "dist" / "SHA256SUMS").read_text(encoding="utf-8"))
        shutil.rmtree(cache)
    assert sums[0] == sums[1]
