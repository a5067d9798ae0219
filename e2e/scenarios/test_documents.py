"""Tried as a new user would: each command in README and the guide that can run without nodes is run, as it stands there."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.documents import PROJECT, blocks, pages
from e2e.scenarios.installed import Bed
from e2e.scenarios.reader import Reader

BEFORE = ("README.md", "install.md", "certificates.md")
"""Documents that install it themselves."""


def _with_commands() -> list[Path]:
    found = [page for page in pages() if any(block.commands and not block.not_run for block in blocks(page))]
    return sorted(found, key=lambda page: page.name not in BEFORE)


@pytest.fixture(scope="module")
def reader(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader with a cluster of their own."""
    reader = Reader(bed, tmp_path_factory.mktemp("documents"))
    with reader.kubelet:
        reader.prepare()
        yield reader


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in _with_commands()])
def test_what_the_document_says_can_be_typed(reader: Reader, page: Path) -> None:
    """Whoever follows the document from its beginning to its end meets no command that fails.

    Nor ever a webhook configuration without its Service.
    """
    reader.new_checkout()
    if page.name in BEFORE:
        reader.uninstall()
    else:
        reader.install()
    for block in blocks(page):
        reader.follow(block)


def test_the_demo_is_what_the_readme_says() -> None:
    """`make demo` shows tags that heal and pods that start, and ends well."""
    recipe = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "demo", "READY="], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    assert recipe.split()[-2:] == ["-m", "e2e.demo"]
    done = subprocess.run([sys.executable, "-m", "e2e.demo"], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tags healed" in done.stdout
