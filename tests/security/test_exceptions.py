"""Exceptions from ruff's security rules: each says why, and none is hidden elsewhere."""

import re
import tomllib

from tests.packaging.containerfile import ROOT

FOLDERS = ("mirror", "controller", "webhook", "config")
EXCEPTION = re.compile(r"# noqa: (?P<codes>[A-Z]+\d+(?:, ?[A-Z]+\d+)*)(?P<why>.*)$")


def test_every_exception_says_why() -> None:
    """On its line, in words; and nothing is excepted by bandit's own marks."""
    found = 0
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                where = f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
                assert "nosec" not in line, where
                exception = EXCEPTION.search(line)
                if exception and re.search(r"\bS\d", exception["codes"]):
                    found += 1
                    assert re.fullmatch(r"  (\S+ ){2,}\S+", exception["why"]), f"{where}: say why"
    assert found


def test_the_rules_are_on_and_excepted_for_tests_only() -> None:
    """No rule `S` is ignored as a whole, nor in a folder of the product."""
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert [code for code in lint["ignore"] if re.match(r"S\d", code)] == []
    for pattern, codes in lint["per-file-ignores"].items():
        if any(re.match(r"S\d*$", code) for code in codes):
            assert pattern.partition("/")[0] in ("tests", "e2e"), pattern
