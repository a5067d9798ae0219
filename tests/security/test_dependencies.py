"""What we depend on: pinned by hash, under licences that are allowed, and listed for people."""

import re

import pytest

from docs.generate_dependencies import PAGE, Dependency, dependencies, page, reasons
from tests.packaging.containerfile import ROOT

LOCKS = ["requirements.lock", "requirements-build.lock", "requirements-dev.lock", "requirements-lowest.lock"]
ENTRY = re.compile(
    r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,_-]+\])?==[0-9][\w.!+]*( ; [^\\#]+?)?(?P<hashes>( \\\n    --hash=sha256:[0-9a-f]{64})+)"
)


@pytest.fixture(scope="module")
def found() -> list[Dependency]:
    """The packages of the image."""
    return dependencies()


def test_every_lock_file_is_looked_at() -> None:
    """A new one, too."""
    assert sorted(path.name for path in ROOT.glob("*.lock")) == sorted(LOCKS)
    assert not list(ROOT.glob("requirements*.txt"))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_with_hashes(lock: str) -> None:
    """One exact version with hashes each, and nothing else: no URL, no path, no index, no option."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE)
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 3
    for entry in entries:
        assert ENTRY.fullmatch(entry.rstrip()), entry[:200]


def test_installing_asks_for_the_hashes() -> None:
    """`make` and the image."""
    for name in ("Makefile", "Containerfile"):
        for line in re.sub(r"\\\n", " ", (ROOT / name).read_text(encoding="utf-8")).splitlines():
            if re.search(r"pip\b.*\binstall\b.* -r ", line):
                assert "--require-hashes" in line, line


def test_licences_are_allowed(found: list[Dependency]) -> None:
    """As the packages declare them; a new licence has to be added to the list first."""
    assert {one.name: one.refused for one in found if one.refused} == {}


@pytest.mark.parametrize(
    ("licences", "refused"),
    [
        (("MIT",), []),
        (("Apache-2.0 OR BSD-3-Clause",), []),
        (("Apache-2.0 AND MIT", "BSD"), []),
        (("GPL-3.0-only",), ["GPL-3.0-only"]),
        (("MIT AND (Apache-2.0 OR LGPL-2.1-only)",), ["LGPL-2.1-only"]),
        (("License :: Other/Proprietary License",), ["License :: Other/Proprietary License"]),
        ((), ["(none declared)"]),
    ],
)
def test_what_is_refused(licences: tuple[str, ...], refused: list[str]) -> None:
    """What is not on the list, also as a part of an expression."""
    assert Dependency("x", "1", licences, "").refused == refused


def test_the_page_lists_what_is_locked(found: list[Dependency]) -> None:
    """docs/image.md, as `make docs` writes it."""
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run `make docs`"
    locked = re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    shown = {(re.sub(r"[-_.]+", "-", one.name).lower(), one.version) for one in found}
    assert shown == {(re.sub(r"[-_.]+", "-", name), version) for name, version in locked}


def test_every_direct_dependency_has_a_reason() -> None:
    """In pyproject.toml, beside its name."""
    assert [name for name, why in reasons().items() if not why] == []
    assert len(reasons()) > 5
