"""The oldest libraries that pyproject.toml allows are those that `make lowest` tests."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
REQUIREMENTS = [
    Requirement(text) for text in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
]


def pins(lock: str) -> dict[str, Version]:
    """The version of each package in a lock file."""
    found = re.findall(r"^([\w.-]+)==([^ ;]+)", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in found}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_a_lower_bound_is_tested(requirement: Requirement) -> None:
    """`make lock` chooses that version; the image has a later one, or the same."""
    (bound,) = requirement.specifier
    assert bound.operator == ">="
    name = canonicalize_name(requirement.name)
    assert pins("requirements-lowest.lock")[name] == Version(bound.version)
    assert Version(bound.version) <= pins("requirements.lock")[name]
