"""The guide as readers meet it: its search, its diagrams and pictures, its old addresses, and how it looks in a narrow window."""

import html
import io
import json
import re
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs import mermaid, pictures, png
from docs.browser import NoBrowserError, browser, told
from docs.moved import MOVED
from e2e.testbed.documents import PROJECT, blocks, pages

NARROW = 400
"""The width in CSS pixels of a small telephone's window."""
MEASURE = Path(__file__).with_name("measure.html")
WORDS = {
    "ImagePullBackOff": "troubleshooting/",
    "disconnected": "install/",
    "HyperShift": "hosted-control-planes/",
    "MirrorstreamTagsFailing": "monitoring/",
    "replaceAfterSeconds": "configuration/",
    "uninstall": "upgrade/",
    "Kyverno": "limits/",
    "FIPS": "image/",
    "Argo": "gitops-and-olm/",
    "not-mirrored": "how-it-decides/",
}
"""What readers search for, and a page that must be found."""
LETTERS = re.compile(r"[─│┌┐└┘├┤▶◀]|\+-{3,}\+|^\s*\|\s+\|\s*$", re.MULTILINE)
"""What a picture drawn with letters has."""
PICTURE_BYTES = 150_000


def _searched(site: Path) -> list[tuple[str, str]]:
    """The address of a page, and a part of its text, for each part."""
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    return [(entry["location"].partition("#")[0], html.unescape(entry["title"] + entry["text"])) for entry in index["docs"]]


@pytest.mark.parametrize(("word", "page"), WORDS.items())
def test_search_finds_the_important_words(word: str, page: str, site: Path) -> None:
    """In the index that the site's search box uses."""
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {
        entry["location"].partition("#")[0] for entry in index["docs"] if word in html.unescape(entry["title"] + entry["text"])
    }
    assert page in found


def test_every_page_can_be_searched(site: Path) -> None:
    """Also those that are not in the navigation."""
    found = {where for where, _ in _searched(site)}
    for page in (PROJECT / "docs").rglob("*.md"):
        name = page.relative_to(PROJECT / "docs").with_suffix("").as_posix()
        assert (f"{name}/" if name != "index" else "") in found, name


def test_old_addresses_lead_on(site: Path) -> None:
    """With the anchor: alerts that are installed name one."""
    for old, new in MOVED.items():
        assert (site / new / "index.html").exists()
        text = (site / old / "index.html").read_text(encoding="utf-8")
        assert f'location.replace("../{new}/" + location.hash)' in text


def test_no_picture_is_drawn_with_letters() -> None:
    """They are Mermaid's or files, which narrow windows and screen readers can show."""
    for page in pages():
        for block in (block for block in blocks(page) if block.language != "console"):
            assert not LETTERS.search(block.text), f"{block}: a picture of letters"


def test_pictures_are_small_and_say_what_they_show() -> None:
    """Each is named by a page, with a text for who does not see it."""
    named: set[str] = set()
    for page in pages():
        for text, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            assert len(text) > 20, f"{page.name}: {target} has no text"
            named.add(target)
    there = sorted((PROJECT / "docs" / "pictures").glob("*.png"))
    assert {f"pictures/{path.name}" for path in there} == {target for target in named if target.startswith("pictures/")}
    for path in there:
        assert path.stat().st_size < PICTURE_BYTES, path.name


def test_the_dashboard_is_drawn_as_it_is() -> None:
    """The picture is of the panels that are installed; that of `status` follows with the next `make docs`."""
    assert "dashboard.png" not in pictures.stale(), "run `make docs`"


def test_without_a_browser_pictures_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message tells it, and the pages are built."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(pictures, "stale", lambda: ["dashboard.png"])
    before = (PROJECT / "docs" / "pictures" / "dashboard.png").read_bytes()
    assert pictures.main() == 0
    assert capsys.readouterr().out.startswith("Pictures stay as they are: there is no chromium")
    assert (PROJECT / "docs" / "pictures" / "dashboard.png").read_bytes() == before


def test_pictures_get_a_palette(tmp_path: Path) -> None:
    """A picture with more colours than that keeps its shapes: what is black and white stays so."""
    rows = b"".join(b"\0" + bytes(value for x in range(64) for value in (4 * x, 4 * y, 255 - 4 * x)) for y in range(64))
    head = struct.pack(">IIBBBBB", 64, 64, *png.RGB)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path = tmp_path / "x.png"
    path.write_bytes(png.SIGNATURE + b"".join(png._chunk(kind, content) for kind, content in parts))
    png.shrink(path)
    chunks = dict(png._chunks(path.read_bytes()))
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (64, 64, 8, 3, 0, 0, 0)
    lines, palette = zlib.decompress(chunks[b"IDAT"]), chunks[b"PLTE"]
    assert len(palette) // 3 <= png.MOST
    number = lines[65 * 63 + 1 + 63]
    found = palette[3 * number : 3 * number + 3]
    assert all(abs(value - wanted) < 40 for value, wanted in zip(found, (252, 252, 3), strict=True))


def _archive(folder: Path, script: bytes) -> Path:
    path = folder / "mermaid.tgz"
    with tarfile.open(path, "w:gz") as package:
        for name in mermaid.MEMBERS:
            member = tarfile.TarInfo(name)
            member.size = len(script)
            package.addfile(member, io.BytesIO(script))
    return path


def test_another_script_than_the_known_one_is_refused(tmp_path: Path) -> None:
    """By its sum, before anything of it is used."""
    with pytest.raises(mermaid.NoMermaidError, match="another SHA-512 sum"):
        mermaid.unpack(archive := _archive(tmp_path, b"something else"), tmp_path)
    assert list(tmp_path.iterdir()) == [archive]


def test_each_process_gets_the_script_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that built the site at once read each other's half of the package."""
    (tmp_path / "npm").write_text(f'#!/bin/sh\npwd >> {tmp_path}/folders\n: > "mermaid-{mermaid.VERSION}.tgz"\n', encoding="utf-8")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for _ in range(2):
        with pytest.raises(mermaid.NoMermaidError, match="another SHA-512 sum"):
            mermaid.script_folder()
    one, other = (tmp_path / "folders").read_text(encoding="utf-8").split()
    assert one != other
    assert not Path(one).exists()


def test_without_npm_pages_show_the_text_of_diagrams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing that would have the theme get the script from elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    config: Any = mermaid.MkDocsConfig()
    config.load_dict({"site_name": "x", "mdx_configs": {}, "extra": {}})
    mermaid.on_config(config)
    assert "pymdownx.superfences" not in config.mdx_configs
    page = '<pre class="mermaid">x</pre>'
    assert mermaid.on_post_page(page, None, config) == page  # type: ignore[arg-type]


def test_pages_are_readable_in_a_narrow_window(site: Path) -> None:
    """No page is wider than the window; what is wider scrolls on its own. Diagrams and pictures are drawn."""
    try:
        browser()
    except NoBrowserError as error:
        pytest.skip(str(error))
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("index.html") if path.parent.name not in MOVED)
    text = MEASURE.read_text(encoding="utf-8").replace("WIDTH", str(NARROW)).replace("PAGES", json.dumps(names))
    (site / "measure.html").write_text(text, encoding="utf-8")
    measured = json.loads(told(site, "measure.html"))
    (site / "measure.html").unlink()
    assert set(measured) == set(names)
    drawn = 0
    for name, page in measured.items():
        assert (page["width"], page["wide"]) == (NARROW, []), name
        assert all(page["pictures"]), f"{name}: a picture is not shown"
        assert all(height > 100 for height in page["diagrams"]), f"{name}: {page['diagrams']}"
        drawn += len(page["diagrams"])
    if "mermaid.min.js" in (site / "ARCHITECTURE" / "index.html").read_text(encoding="utf-8"):
        written = sum(block.language == "mermaid" for page in pages() for block in blocks(page) if page.parent.name == "docs")
        assert drawn == written


def test_the_navigation_has_about_sixteen_pages() -> None:
    """Each with a question of its own; a page more is one that nobody finds."""
    text = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8")
    navigation = yaml.safe_load(text)["nav"]

    def count(part: Any) -> int:
        if isinstance(part, str):
            return not part.startswith("https:")
        return sum(map(count, part.values() if isinstance(part, dict) else part))

    assert count(navigation) <= 19
