"""Packages are used by their public interfaces only: what is private may change with any release of them."""

import ast
import sys
from collections.abc import Iterator

import pytest

from tests.packaging.containerfile import ROOT

PLACES = ("mirror", "controller", "webhook", "config", "docs", "e2e")
OURS = {"mirrorstream", "mirrorstream_cli", "mirrorstream_controller", "mirrorstream_webhook", *PLACES, "tests"}
ALLOWED = OURS | sys.stdlib_module_names


def private_uses(source: str) -> Iterator[str]:
    """The private modules and names of packages that a module imports, or reaches through a module that it imports."""
    tree = ast.parse(source)
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in found if name.partition(".")[0] not in ALLOWED and any(map(is_private, name.split("."))))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            whole = ast.unparse(node)
            if whole.partition(".")[0] in modules - ALLOWED:
                yield whole


def is_private(name: str) -> bool:
    """Whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("place", PLACES)
def test_nothing_private_of_a_dependency_is_used(place: str) -> None:
    """Neither by the product nor by what tests it."""
    paths = sorted((ROOT / place).rglob("*.py"))
    assert paths
    assert [f"{path.relative_to(ROOT)}: {use}" for path in paths for use in private_uses(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("source", "uses"),
    [
        ("from granian._futures import scheduler", ["granian._futures.scheduler"]),
        ("from granian import _granian", ["granian._granian"]),
        ("import granian._granian as inside", ["granian._granian"]),
        ("import granian as server\nserver.cli._run()", ["server.cli._run"]),
        ("from mirrorstream.kube import _own\nimport os\nos._exit(0)\nimport granian\ngranian.__version__", []),
    ],
)
def test_the_rule_finds_what_it_is_for(source: str, uses: list[str]) -> None:
    """Each way to reach something private."""
    assert list(private_uses(source)) == uses
