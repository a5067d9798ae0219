"""`python3 -m config.release.version 0.2.0`: writes the version of the next release wherever a file names it.

pyproject.toml is where it is read from. What cannot read it there (documents, kustomize's base, a default in the Containerfile)
repeats it, in one of the forms of `FORMS`. Needs the standard library only: an environment is made of what it writes.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("pyproject.toml", "Containerfile", "README.md", "docs/**/*.md", "config/**/*.yaml")
MEASURED = ("docs/benchmarks.md", "docs/reliability.md")
"""Reports name the version that was measured."""
_NUMBER = r"(?:0|[1-9][0-9]*)"
VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}")
FORMS = re.compile(
    r"(?P<before>^version = \"|^ARG VERSION=|\bnewTag: |\bmirrorstream(?:-bundle|-catalog)?[-:]v?|\?ref=v|/version=v)"
    rf"(?P<version>{_NUMBER}(?P<dot>[.-]){_NUMBER}(?P=dot){_NUMBER})(?![\d.-]*\d)",
    re.MULTILINE,
)
"""What is before a version tells that it is this project's: documents name those of others, too. A CatalogSource has dashes."""


def files(root: Path = ROOT) -> Iterator[Path]:
    """The files that may name it."""
    for pattern in PLACES:
        yield from (path for path in sorted(root.glob(pattern)) if path.relative_to(root).as_posix() not in MEASURED)


def current(root: Path = ROOT) -> str:
    """The project's version."""
    return str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def named(text: str) -> list[str]:
    """Every version of the project that a text names, with dots."""
    return [found["version"].replace("-", ".") for found in FORMS.finditer(text)]


def with_version(text: str, version: str) -> str:
    """The text with another version."""
    return FORMS.sub(lambda found: found["before"] + version.replace(".", found["dot"]), text)


def write(version: str, root: Path = ROOT) -> list[Path]:
    """Write a version everywhere; the files that changed. Raises ValueError."""
    if not VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is not MAJOR.MINOR.PATCH")
    changed = []
    for path in files(root):
        text = path.read_text(encoding="utf-8")
        if (new := with_version(text, version)) != text:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


def main() -> int:
    """Write it, and list the files that changed."""
    if len(sys.argv) != 2:
        print("usage: python3 -m config.release.version MAJOR.MINOR.PATCH", file=sys.stderr)  # noqa: T201
        return 2
    try:
        changed = write(sys.argv[1])
    except ValueError as error:
        print(f"version: {error}", file=sys.stderr)  # noqa: T201
        return 1
    for path in changed:
        print(path.relative_to(ROOT))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
