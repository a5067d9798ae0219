"""Pages that have moved: a hook of mkdocs. Alerts of installed releases lead to `/runbooks/#…`; that leads on, anchor included."""

import html
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

MOVED = {"runbooks": "monitoring", "webhook": "how-it-decides", "management-clusters": "hosted-control-planes"}
"""Where a page was, and the page that has its headings now."""
_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Moved</title>
<link rel="canonical" href="../{to}/">
<meta name="robots" content="noindex">
<script>location.replace("../{to}/" + location.hash)</script>
<noscript><meta http-equiv="refresh" content="0; url=../{to}/"></noscript>
<a href="../{to}/">This page has moved.</a>
"""


def on_post_build(config: MkDocsConfig) -> None:
    """Write a page at each old place."""
    for old, new in MOVED.items():
        folder = Path(config.site_dir) / old
        folder.mkdir()
        (folder / "index.html").write_text(_PAGE.format(to=html.escape(new)), encoding="utf-8")
