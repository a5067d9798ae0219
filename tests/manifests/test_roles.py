"""The controller's role: short enough to be read as a whole, and told as it is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.testbed.documents import PROJECT
from tests.manifests.conftest import NAMES, Render

Object = dict[str, Any]
MOST_RULES = 12
"""What fits on a page, with a sentence for each."""
ROLES = ("controller_role.yaml", "leader_election_role.yaml")
SENTENCE = re.compile(r"[A-Z].*[.]", re.DOTALL)


def _files() -> list[Path]:
    return [PROJECT / "config" / "base" / "rbac" / name for name in ROLES]


def _rules() -> list[Object]:
    return [rule for path in _files() for rule in yaml.safe_load(path.read_text(encoding="utf-8"))["rules"]]


def _told(rule: Object) -> tuple[str, str]:
    (group,) = rule["apiGroups"]
    return ", ".join(rule["verbs"]), ", ".join(f"`{name}`" for name in rule["resources"]) + (f" of {group}" if group else "")


@pytest.mark.parametrize("name", NAMES)
def test_the_controllers_whole_role_fits_on_a_page(name: str, rendered: Render) -> None:
    """In each overlay: everything that is bound to its account is in these two files, and they have few rules."""
    items = rendered(name)
    bound = {
        binding["roleRef"]["name"]
        for binding in items
        if binding["kind"] in ("RoleBinding", "ClusterRoleBinding")
        and any(subject["name"] == "mirrorstream-controller" for subject in binding["subjects"])
    }
    roles = [item for item in items if item["kind"] in ("Role", "ClusterRole") and item["metadata"]["name"] in bound]
    rules = [rule for role in roles for rule in role["rules"]]
    if name == "with webhook-only":
        assert rules == []
    else:
        assert sorted(json.dumps(rule, sort_keys=True) for rule in rules) == sorted(
            json.dumps(rule, sort_keys=True) for rule in _rules()
        )
        assert 0 < len(rules) <= MOST_RULES


def test_each_rule_has_a_sentence() -> None:
    """Right before it: who reviews the role reads why, not only what."""
    for path in _files():
        before = re.findall(r"((?:^  # .*\n)*)^  - apiGroups:", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert before
        for comment in before:
            assert SENTENCE.fullmatch(" ".join(line.strip(" #") for line in comment.splitlines())), f"{path.name}: {comment!r}"


def test_the_page_has_every_rule() -> None:
    """The table of docs/security.md, in the order of the files."""
    page = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| the controller may \| on \| for \|\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    assert [(verbs, resources) for verbs, resources, _ in rows] == [_told(rule) for rule in _rules()]
    assert all(reason for _, _, reason in rows)
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    assert f"The controller has {words[len(rows) - 1]} rules." in page
