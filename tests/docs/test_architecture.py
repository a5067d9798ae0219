"""The architecture page knows every module, and names none that is not there."""

import re

import pytest

from e2e.testbed.documents import PROJECT

PAGE = (PROJECT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
ROOTS = ("mirror", "controller", "webhook")
MODULES = {
    path.relative_to(PROJECT).as_posix() for root in ROOTS for path in (PROJECT / root).rglob("*.py") if path.name != "__init__.py"
}
ROW = re.compile(rf"^\| `((?:{'|'.join(ROOTS)})/[\w/]+\.py)` \| [^|]+ \|$", re.MULTILINE)


def test_every_module_has_one_row() -> None:
    """A new module is told of, and one that goes leaves no row behind."""
    rows = ROW.findall(PAGE)
    assert (sorted(rows), len(rows)) == (sorted(MODULES), len(set(rows)))


def test_no_module_is_over_400_lines() -> None:
    """Longer ones have more than one reason to change; that counts for tests and the test bed, too."""
    lengths = {
        path.relative_to(PROJECT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for root in (*ROOTS, "e2e", "tests", "docs")
        for path in (PROJECT / root).rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_no_test_module_is_imported_by_another() -> None:
    """What tests share lives beside them, in builders, conftest or the test bed."""
    found = {
        path.relative_to(PROJECT).as_posix(): imports
        for root in ("e2e", "tests")
        for path in (PROJECT / root).rglob("*.py")
        if (imports := re.findall(r"^\s*(?:from|import) .*\btest_\w+.*", path.read_text(encoding="utf-8"), re.MULTILINE))
    }
    assert found == {}


def test_every_room_is_in_the_picture() -> None:
    """The layers of the import contract, by their last names."""
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    found: list[str] = re.findall(r"^layers = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    (layers,) = [each for each in found if "mirrorstream_cli" in each]
    rooms = {name.rpartition(".")[2] for name in re.findall(r"[\w.]+", layers)}
    assert set(re.findall(r'\["<b>(\w+)</b>', PAGE)) == rooms


@pytest.mark.parametrize("subject", ["stream", "review"])
def test_a_way_has_ten_steps_with_modules_that_exist(subject: str) -> None:
    """Each step names its file."""
    (way,) = re.findall(rf"^## The way of a {subject}.*?\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    assert [int(number) for number in re.findall(r"^(\d+)\. ", way, re.MULTILINE)] == list(range(1, 11))
    names = {path.rpartition("/")[2] for path in MODULES}
    assert [name for name in re.findall(r"`(\w+\.py)`", way) if name not in names] == []


def test_every_thread_is_told_of() -> None:
    """By the name that a stack dump shows; what is numbered by what comes before."""
    (table,) = re.findall(r"^\| thread \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    told = set(re.findall(r"^\| `([\w-]+…?)`", table, re.MULTILINE))
    sources = "\n".join((PROJECT / path).read_text(encoding="utf-8") for path in sorted(MODULES))
    started = re.findall(r'threading\.Thread\([^\n]*name=f?"([^"]*)"', sources)
    assert len(started) > 10
    assert {re.sub(r"\{.*\}", "…", name) for name in started} <= told


def test_locks_are_those_of_the_code() -> None:
    """`Class._lock` is a lock that this class makes."""
    sources = [(PROJECT / path).read_text(encoding="utf-8") for path in sorted(MODULES)]
    named: set[tuple[str, str]] = set(re.findall(r"`(\w+)\.(_\w+)`", PAGE))
    assert named
    for owner, name in named:
        made = re.compile(rf"^class {owner}\b.*self\.{name} = threading\.(?:Lock|Condition)\(", re.MULTILINE | re.DOTALL)
        assert any(made.search(text) for text in sources), f"{owner} has no lock {name}"
