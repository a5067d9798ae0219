"""Tried as a new user would: each command in README and the guide that can run here is run, as it stands there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.release.statement import SUMS, sums
from e2e.testbed.documents import PROJECT, blocks, pages, title
from e2e.testbed.node.product import dist
from e2e.testbed.programs.installed import Bed
from e2e.testbed.programs.reader import Reader, for_one_node

BEFORE = ("README.md", "docs/install.md", "docs/certificates.md")
"""Documents that install it themselves."""


def _with_commands() -> list[Path]:
    found = [page for page in pages() if any(block.commands and not block.not_run for block in blocks(page))]
    return sorted(found, key=lambda page: title(page) not in BEFORE)


@pytest.fixture(scope="module")
def reader(bed: Bed, digest: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader with a cluster of their own."""
    folder = dist(tmp_path_factory.mktemp("release") / "dist", bed.kubectl)
    for file in folder.glob("install-*.yaml"):
        file.write_text(for_one_node(file.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / SUMS).write_text(sums(folder), encoding="utf-8")
    reader = Reader(bed, digest, tmp_path_factory.mktemp("documents"), folder)
    with reader.service_ca:
        reader.prepare()
        yield reader
        reader.leave()


@pytest.mark.timeout(600)
def test_a_stranger_installs_it_from_a_release_alone(reader: Reader) -> None:
    """The first chapter of docs/install.md, in order: from dist/ to healed streams and a pod, within ten minutes."""
    page = PROJECT / "docs" / "install.md"
    end = page.read_text(encoding="utf-8").splitlines().index("## Other clusters")
    reader.new_checkout()
    reader.uninstall()
    with reader.stranger():
        for block in blocks(page):
            if block.line < end:
                reader.follow(block)
        pods = reader.client.get("/api/v1/namespaces/mirrorstream/pods")["items"]
        images = {container["image"].partition("@")[0] for pod in pods for container in pod["spec"]["containers"]}
        assert images == {reader.image}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [pytest.param(page, id=title(page)) for page in _with_commands()])
def test_what_the_document_says_can_be_typed(reader: Reader, page: Path) -> None:
    """Every command of the document works, in the document's order.

    Nor ever a webhook configuration without its Service.
    """
    reader.new_checkout()
    if title(page) in BEFORE:
        reader.uninstall()
    else:
        reader.install()
    for block in blocks(page):
        reader.follow(block)
