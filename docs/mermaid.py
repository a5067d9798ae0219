"""Mermaid's diagrams on the site: a hook of mkdocs, which serves the script from the site itself. No reader needs another host.

npm brings the script, once, into the user's cache; it is used only if its sum is the one below. Where it cannot be had, pages show
the diagrams' text, and a line says why.
"""

import base64
import hashlib
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url
from pymdownx.superfences import fence_code_format

VERSION = "11.17.2"
SHA512 = "V6K3C8EBdEsPFZXSKMJe6ppQOENxuHARr9GvHX4hh47lAbhMRD9qf4oEK7LoaRQxULMa80/qt5gHO73aCleBBg=="
"""Of the package, base64, as npm's lock files have it."""
MEMBERS = {"package/dist/mermaid.min.js": "mermaid.min.js", "package/LICENSE": "mermaid.LICENSE.txt"}
SCRIPT = "assets/javascripts/mermaid.min.js"
log = logging.getLogger("mkdocs.mermaid")


class NoMermaidError(Exception):
    """The script cannot be had; the text says why."""


def script_folder() -> Path:
    """The folder with the script and its licence, in the user's cache. Raises NoMermaidError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mirrorstream"
    folder = cache / f"mermaid-{VERSION}"
    if all((folder / name).exists() for name in MEMBERS.values()):
        return folder
    npm = shutil.which("npm")
    if not npm:
        raise NoMermaidError("there is no npm on the PATH")
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", f"mermaid@{VERSION}", "--silent", "--fetch-retries=1", "--fetch-timeout=60000"]
    # Each process in a folder of its own: another one may build the site at the same time.
    with tempfile.TemporaryDirectory(dir=folder) as own:
        done = subprocess.run(command, cwd=own, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603
        archive = Path(own) / f"mermaid-{VERSION}.tgz"
        if done.returncode or not archive.exists():
            raise NoMermaidError(f"npm cannot get mermaid@{VERSION}: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
        unpack(archive, folder)
    return folder


def unpack(archive: Path, folder: Path, sha512: str = SHA512) -> None:
    """Unpack the script and its licence beside the package, then move them to `folder`. Raises NoMermaidError for another sum."""
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != sha512:
        raise NoMermaidError(f"mermaid@{VERSION} has another SHA-512 sum than docs/mermaid.py: {found}")
    with tarfile.open(archive) as package:
        for member, name in MEMBERS.items():
            content = package.extractfile(member)
            assert content, "a file"  # noqa: S101
            part = archive.with_name(name)
            part.write_bytes(content.read())
            part.rename(folder / name)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Have diagrams drawn if the script is there."""
    extra: Any = config.extra
    try:
        extra["mermaid"] = script_folder()
    except NoMermaidError as error:
        log.info("Diagrams stay text: %s", error)
        return config
    fence = {"name": "mermaid", "class": "mermaid", "format": fence_code_format}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the script to the site."""
    if folder := config.extra.get("mermaid"):
        for name in MEMBERS.values():
            files.append(File.generated(config, f"assets/javascripts/{name}", abs_src_path=str(folder / name)))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load the script in pages with a diagram, before the theme's own, which would get it from elsewhere."""
    if not config.extra.get("mermaid") or 'class="mermaid"' not in output:
        return output
    body, bundle, rest = output.rpartition('<script src="')
    assert "bundle" in rest.partition('"')[0], "the theme's own script is the last one"  # noqa: S101
    return f'{body}<script src="{get_relative_url(SCRIPT, page.url)}"></script>\n    {bundle}{rest}'
