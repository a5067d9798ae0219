"""One version: pyproject.toml has it, every other file repeats it, and one command writes the next one everywhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.release import version
from tests.packaging.containerfile import ROOT

EXAMPLES = ("CHANGELOG.md", "RELEASING.md", "tests/", "config/release/version.py", *version.MEASURED)
"""Files that name other versions on purpose: of the past, of an example, of what was measured."""
TEXTS = {".md", ".py", ".sh", ".toml", ".yaml", ".yml", ""}


def texts() -> dict[str, str]:
    """Every text of the repository by its path, without what others have written."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        pytest.skip("this is no git checkout")
    names = [name for name in done.stdout.split("\0") if Path(name).suffix in TEXTS and (ROOT / name).is_file()]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names if not name.startswith(EXAMPLES)}


def test_no_file_names_another_version() -> None:
    """In none of the forms in which the next version would be written; and no file is left out by that."""
    ours = version.current()
    found = {name: set(version.named(text)) for name, text in texts().items()}
    naming = {name for name, versions in found.items() if versions}
    assert {name: found[name] for name in naming if found[name] != {ours}} == {}
    assert naming == {
        path.relative_to(ROOT).as_posix() for path in version.files() if version.named(path.read_text(encoding="utf-8"))
    }
    assert {"pyproject.toml", "Containerfile", "README.md", "docs/install.md", "config/base/kustomization.yaml"} <= naming


def test_no_file_names_this_version_in_another_form() -> None:
    """It would keep it. Rows of tables have versions of others, and so have locks of Go."""
    dotted = version.current().replace(".", "[.-]")
    ours = re.compile(rf"(?<![\d.-]){dotted}(?![\d.-]*\d)")
    left = {
        f"{name}: {line}"
        for name, text in texts().items()
        for line in version.with_version(text, "999.0.0").splitlines()
        if ours.search(line) and not (line.startswith("|") and "mirrorstream" not in line)
    }
    assert left == set()


def test_the_next_version_is_written_everywhere(tmp_path: Path) -> None:
    """By the command of RELEASING.md; what others are called stays as it is."""
    for path in version.files():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copytree(ROOT / "config" / "release", tmp_path / "config" / "release", dirs_exist_ok=True)
    (command,) = re.findall(
        r"^\$ python3 (-m config\.release\.version) 0\.2\.0$", (ROOT / "RELEASING.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    before = {path: path.read_text(encoding="utf-8") for path in version.files(tmp_path)}
    done = subprocess.run(
        [sys.executable, *command.split(), "97.8.9"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    after = {path: path.read_text(encoding="utf-8") for path in before}
    assert {name for text in after.values() for name in version.named(text)} == {"97.8.9"}
    assert version.current(tmp_path) == "97.8.9"
    changed = {path.relative_to(tmp_path).as_posix() for path in before if before[path] != after[path]}
    assert set(done.stdout.split()) == changed
    back = {path: version.with_version(text, version.current()) for path, text in after.items()}
    assert back == before


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("oci-archive:dist/mirrorstream-0.1.0-oci.tar", "oci-archive:dist/mirrorstream-0.2.0-oci.tar"),
        ("`mirrorstream-0.1.0.tar.gz`", "`mirrorstream-0.2.0.tar.gz`"),
        ("mirror.example.com:5000/mirrorstream/mirrorstream:0.1.0\n", "mirror.example.com:5000/mirrorstream/mirrorstream:0.2.0\n"),
        ("source: cs-mirrorstream-catalog-v0-1-0", "source: cs-mirrorstream-catalog-v0-2-0"),
        ("//config/overlays/openshift?ref=v0.1.0`", "//config/overlays/openshift?ref=v0.2.0`"),
        ("| httptools | 0.1.0 |", "| httptools | 0.1.0 |"),
        ("kube-apiserver v0.1.0", "kube-apiserver v0.1.0"),
        ("mirrorstream-0.1.0.1", "mirrorstream-0.1.0.1"),
        ("apiVersion: 0.1.0", "apiVersion: 0.1.0"),
    ],
)
def test_what_is_before_it_tells_whose_version_it_is(text: str, becomes: str) -> None:
    """Text by text."""
    assert version.with_version(text, "0.2.0") == becomes


@pytest.mark.parametrize("wrong", ["", "v0.2.0", "0.2", "0.2.0rc1", "0.2.0-rc.1", "00.2.0", "0.2.0\n"])
def test_a_version_that_is_none_changes_nothing(wrong: str, tmp_path: Path) -> None:
    """The image's tag, the wheel and OLM's bundle have different forms for anything but three numbers."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.1.0"\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"is not MAJOR\.MINOR\.PATCH"):
        version.write(wrong, tmp_path)
    assert version.current(tmp_path) == "0.1.0"
