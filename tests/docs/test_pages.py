"""The guide as a site: it builds, its links lead somewhere, and what is generated is current."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from docs.generate_configuration import PAGE, page
from e2e.documents import PROJECT

OUTSIDE = [pytest.param(PROJECT / name, id=name) for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]


def test_the_configuration_reference_is_current() -> None:
    """Every field of the models is in the page, as the models have it; `make docs` writes it."""
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run `make docs`"


def test_the_default_configuration_that_is_shown_is_the_default_one() -> None:
    """The file in the page, and the one that is installed, say what the models say."""
    from mirrorstream.settings import Settings, parse_settings

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
    """README, CONTRIBUTING, CHANGELOG and SECURITY are read where they lie; the site's own links are checked when it is built."""
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), f"{document.name}: {target}: there is no such file"
        assert not anchor or anchor in _anchors(path), f"{document.name}: {target}: there is no such heading"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does: a link or anchor that leads nowhere, or a page that nothing leads to, fails it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=PROJECT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_need_nothing_from_elsewhere(site: Path) -> None:
    """Whoever reads the site in a disconnected network sees all of it: nothing is loaded from another host."""
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
    for path in (PROJECT / "docs").glob("*.md"):
        made = site / "index.html" if path.stem == "index" else site / path.stem / "index.html"
        assert made.exists(), path.name
    assert list(site.rglob("*.py")) == []
