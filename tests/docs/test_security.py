"""SECURITY.md: what it says is shown by a test is shown by a test."""

import ast
import re

import pytest

from e2e.testbed.documents import PROJECT

TEXT = (PROJECT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("|") and not re.match(r"\|(-|\s*asset\b)", line)
]
NAMED = sorted(set(re.findall(r"`((?:tests|e2e)/[\w/]+\.py::\w+)`", TEXT)))


def _tests(path: str) -> set[str]:
    """The functions of a test module."""
    tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("test", NAMED)
def test_a_test_that_is_named_exists(test: str) -> None:
    """Under that name, where it says."""
    path, _, name = test.partition("::")
    assert (PROJECT / path).is_file(), path
    assert name.startswith("test_")
    assert name in _tests(path)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_every_row_is_shown_or_admitted(row: list[str]) -> None:
    """Attack, defence, and a test for it, or the plain words that there is none."""
    assert len(row) == 4, row
    _, attack, defence, shown = row
    assert attack
    assert defence
    assert re.findall(r"`[\w/]+\.py::\w+`", shown) or defence.startswith("**not defended**"), row


def test_every_attacker_has_a_table() -> None:
    """Who can be thought of."""
    headings = re.findall(r"^### (.*)$", TEXT, re.MULTILINE)
    words = ("tenant", "mirror", "compromised pod", "authority", "network", "supply chain")
    assert [word for word in words if not any(word in heading for heading in headings)] == []
    assert len(ROWS) > len(words)
    assert any("CI" in heading and "GitOps" in heading for heading in headings)


def test_reports_go_where_they_are_private() -> None:
    """No address is invented: GitHub's advisories."""
    assert "Report a vulnerability" in TEXT
    assert "@" not in re.sub(r"`[^`]*`", "", TEXT)


@pytest.mark.parametrize("page", ["README.md", "docs/security.md", "mkdocs.yml", "CONTRIBUTING.md"])
def test_it_is_found(page: str) -> None:
    """From wherever somebody looks for it."""
    assert "SECURITY.md" in (PROJECT / page).read_text(encoding="utf-8")
