"""The decision table of the documents says what the code decides."""

import re
from collections.abc import Callable

import pytest
from mirrorstream.imagestream.eligibility import makes_room
from mirrorstream.imagestream.failures import Bypass, FailureClass, may_be_bypassed
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_reference

from e2e.testbed.documents import PROJECT

PAGE = (PROJECT / "docs/how-it-decides.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| [^|]+ \| `([a-z-]+)` \| ([^|]+) \|$", PAGE, re.MULTILINE))
ANSWERS: dict[str, Callable[[Bypass], bool]] = {
    "yes": lambda bypass: True,
    "yes, unless `mirrors.bypassDenied` is false": lambda bypass: bypass.denied,
    "only with `mirrors.bypassNotFound`": lambda bypass: bypass.not_found,
    "never": lambda bypass: False,
}
"""What the last column may say, and what it means under a configuration."""


def test_the_table_has_every_class_of_failure() -> None:
    """And no other."""
    assert set(ROWS) == {str(kind) for kind in FailureClass}


@pytest.mark.parametrize("kind", list(FailureClass))
@pytest.mark.parametrize("not_found", [False, True])
@pytest.mark.parametrize("denied", [False, True])
def test_the_table_says_what_is_bypassed(kind: FailureClass, not_found: bool, denied: bool) -> None:
    """Under every configuration."""
    bypass = Bypass(not_found=not_found, denied=denied)
    assert may_be_bypassed(kind, bypass) is ANSWERS[ROWS[kind]](bypass)


def test_a_source_that_is_never_contacted_is_no_forbidden_one() -> None:
    """The exception that stands below the table."""
    assert "NeverContactSource for its whole host" in PAGE
    entry = {"source": "src.io", "mirrors": ["m.io"], "mirrorSourcePolicy": "NeverContactSource"}
    mirror_set = {"kind": "ImageDigestMirrorSet", "metadata": {"name": "m"}, "spec": {"imageDigestMirrors": [entry]}}
    for objects, expected in ([mirror_set], True), ([], False):
        found = MirrorPolicy.from_objects(objects).resolve(parse_reference("src.io/team/app:v1"))
        assert makes_room(FailureClass.FORBIDDEN, found, Bypass()) is expected


MESSAGES = re.findall(
    r"^\| `[^|]+ \| [^|]+ \| `([a-z-]+)` \| ([^|]+) \|",
    (PROJECT / "docs/troubleshooting.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize(("kind", "does"), MESSAGES)
def test_the_table_of_messages_says_the_same(kind: str, does: str) -> None:
    """By default, and where a setting decides it is named; `the same` is what the row before says."""
    if does == "the same":
        return
    assert may_be_bypassed(FailureClass(kind), Bypass()) is does.startswith("imports through the mirrors")
    for bypass, field in ((Bypass(denied=False), "bypassDenied"), (Bypass(not_found=True), "bypassNotFound")):
        changes = may_be_bypassed(FailureClass(kind), bypass) is not may_be_bypassed(FailureClass(kind), Bypass())
        assert changes is (field in does)
