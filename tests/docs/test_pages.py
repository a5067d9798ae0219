"""The guide as a site: it builds, its links lead somewhere, and what is generated is current."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from docs.generate_configuration import PAGE, page
from e2e.testbed.documents import PROJECT
from tests.docs.conftest import built

OUTSIDE = [
    pytest.param(PROJECT / f"{name}.md", id=name)
    for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY", "RELEASING", "CODE_OF_CONDUCT", "e2e/README")
]


def test_the_configuration_reference_is_current() -> None:
    """Every field of the models is in the page, as the models have it; `make docs` writes it."""
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run `make docs`"


def test_the_default_configuration_that_is_shown_is_the_default_one() -> None:
    """The file in the page, and the one that is installed, say what the models say."""
    from mirrorstream.runtime.settings import Settings, parse_settings

    (shown,) = re.findall(r"## The file, with its defaults\n\n```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    installed = (PROJECT / "config" / "base" / "configuration" / "config.yaml").read_text(encoding="utf-8")
    for text in (shown, installed):
        assert parse_settings(text, "file") == Settings()
        assert set(_paths(yaml.safe_load(text))) == set(_paths(Settings().model_dump())), "every field is shown"


def _paths(document: dict[str, object], prefix: str = "") -> list[str]:
    found = []
    for name, value in document.items():
        found += _paths(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return found


def _anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ +(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", OUTSIDE)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    """These are read where they lie; the site's own links are checked when it is built."""
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), f"{document.name}: {target}: there is no such file"
        assert not anchor or anchor in _anchors(path), f"{document.name}: {target}: there is no such heading"


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    """Mkdocs counts only the warnings that it prints: with --quiet, --strict finds nothing."""
    (tmp_path / "docs").mkdir()
    for hook in (PROJECT / "docs").glob("m*.py"):
        shutil.copy(hook, tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text("# Here\n\n[there](#there)\n", encoding="utf-8")
    head, _, _ = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8").partition("not_in_nav:")
    (tmp_path / "mkdocs.yml").write_text(f"{head}nav: [index.md]\n", encoding="utf-8")
    assert "mkdocs build --strict\n" in (PROJECT / "Makefile").read_text(encoding="utf-8")
    done = built(tmp_path, tmp_path / "site")
    assert (done.returncode, "'#there'" in done.stderr) == (1, True), done.stdout + done.stderr


def test_pages_need_nothing_from_elsewhere(site: Path) -> None:
    """The site works in a disconnected network: nothing is loaded from another host."""
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=\"?(https?:[^\"\s>]+)", text)
        loaded += re.findall(r"<link[^>]*\brel=\"?(?:stylesheet|preconnect|icon)\"?[^>]*\bhref=\"?(https?:[^\"\s>]+)", text)
        loaded += re.findall(r"<link[^>]*\bhref=\"?(https?:[^\"\s>]+)\"?[^>]*\brel=\"?(?:stylesheet|preconnect)", text)
        assert loaded == [], path.relative_to(site)
    for path in site.rglob("*.css"):
        assert "@import url(http" not in path.read_text(encoding="utf-8")


def test_the_site_holds_every_page_and_no_program(site: Path) -> None:
    """What is in docs/ is on the site; scripts are not."""
    for path in (PROJECT / "docs").rglob("*.md"):
        name = path.relative_to(PROJECT / "docs").with_suffix("")
        made = site / "index.html" if path.stem == "index" else site / name / "index.html"
        assert made.exists(), path.name
    assert list(site.rglob("*.py")) == []
