"""The commands as one file: which interpreter runs it, where it is unpacked, and what is put together in it."""

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.release import launcher, onefile
from config.release.commit import ReleaseError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("attribute", "value", "says"),
    [
        pytest.param("version_info", (3, 9, 1), "needs CPython 3.11, 3.12 and found cpython 3.9, ", id="old"),
        pytest.param("version_info", (3, 19, 0), "needs CPython 3.11, 3.12 and found cpython 3.19, ", id="new"),
        pytest.param("abiflags", "t", "needs CPython 3.11, 3.12", id="free-threaded"),
        pytest.param("platform", "darwin", "this file is for Linux on x86_64 with glibc", id="macos"),
    ],
)
def test_an_interpreter_that_does_not_fit(
    attribute: str, value: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, if there is no other one on the PATH that runs; else that one runs."""
    monkeypatch.setattr(launcher, "VERSIONS", ((3, 11), (3, 12)))
    monkeypatch.setattr(sys, attribute, value)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(launcher.AGAIN, "")
    monkeypatch.delenv(launcher.AGAIN)
    with pytest.raises(SystemExit, match=says):
        launcher.main()
    (tmp_path / "python3.12").write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    (tmp_path / "python3.12").chmod(0o755)
    with pytest.raises(SystemExit, match=says):
        launcher.main()
    (tmp_path / "python3.11").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "python3.11").chmod(0o755)
    monkeypatch.setattr(os, "execv", lambda path, arguments: sys.exit(f"runs {path}"))
    with pytest.raises(SystemExit, match=f"runs {tmp_path}/python3.11"):
        launcher.main()


def test_the_one_file_of_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nothing can be kept: it unpacks to a temporary folder."""

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    with zipfile.ZipFile(tmp_path / "one.pyz", "w") as archive:
        archive.writestr("modules/a.py", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = launcher.unpacked(str(tmp_path / "one.pyz"))
    assert folder.parent == tmp_path
    assert (folder / "a.py").exists()


@pytest.fixture
def one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Runs the launcher of a version; the folder with its modules."""
    with zipfile.ZipFile(tmp_path / "one.pyz", "w") as archive:
        archive.writestr("modules/a.py", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(build: str) -> Path:
        monkeypatch.setattr(launcher, "BUILD", build)
        return launcher.unpacked(str(tmp_path / "one.pyz"))

    return run


def unused_for(folder: Path, seconds: float) -> None:
    """As if nobody had run it for so long."""
    os.utime(folder, (time.time() - seconds,) * 2)


def test_a_new_version_removes_those_that_nobody_uses(one_file: Callable[[str], Path]) -> None:
    """One that was used within a day stays. What a killed run left is removed, too."""
    old, used = one_file("old"), one_file("used")
    left = old.with_name("killed.x1y2")
    left.mkdir()
    for folder in (old, left):
        unused_for(folder, launcher.UNUSED_SECONDS + 60)
    unused_for(used, launcher.UNUSED_SECONDS - 60)
    new = one_file("new")
    assert set(new.parent.iterdir()) == {new, used}
    assert (new / "a.py").exists()


def test_a_version_that_still_runs_is_kept(one_file: Callable[[str], Path]) -> None:
    """For as long as the process lives: `status --wait` may take days."""
    running = one_file("running")
    (running / "mirrorstream_cli").mkdir()
    (running / "mirrorstream_cli" / "__init__.py").touch()
    (running / "mirrorstream_cli" / "main.py").write_text("def main():\n    print(flush=True)\n    input()\n", encoding="utf-8")
    code = [
        "import sys",
        "from config.release import launcher",
        "launcher.VERSIONS, launcher.BUILD = (sys.version_info[:2],), 'running'",
        "sys.path.insert(0, '')",
        "launcher.main()",
    ]
    with subprocess.Popen(
        [sys.executable, "-c", "\n".join(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout
        assert process.stdout.readline(), "it runs"
        unused_for(running, 2 * launcher.UNUSED_SECONDS)
        assert one_file("second").parent == running.parent
        assert running.exists()
        process.kill()
    third = one_file("third")
    assert not running.exists()
    assert third.exists()


def test_a_version_that_is_used_just_before_its_removal_is_kept(one_file: Callable[[str], Path]) -> None:
    """The look that found it unused was before the lock."""
    folder = one_file("old")
    launcher.remove(folder)
    assert (folder / "a.py").exists()
    unused_for(folder, 2 * launcher.UNUSED_SECONDS)
    launcher.remove(folder)
    assert list(folder.parent.iterdir()) == []


def test_a_version_that_is_run_again_is_kept(one_file: Callable[[str], Path]) -> None:
    """Though it was unpacked long ago; and running it removes nothing."""
    first, second = one_file("first"), one_file("second")
    for folder in (first, second):
        unused_for(folder, 30 * launcher.UNUSED_SECONDS)
    assert one_file("first") == first
    assert second.exists()
    third = one_file("third")
    assert set(third.parent.iterdir()) == {first, third}


def test_wheels_that_differ_end_the_build(tmp_path: Path) -> None:
    """One of two versions of a module would be missing for some Python."""
    for name, text in (("a-1-cp311-cp311-linux_x86_64.whl", "one"), ("a-1-cp312-cp312-linux_x86_64.whl", "two")):
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.writestr("a/b.py", text)
    with pytest.raises(ReleaseError, match=r"a-1-cp312.*: a/b\.py differs"):
        onefile.merged(list(tmp_path.glob("*.whl")))
