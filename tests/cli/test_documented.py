"""docs/cli.md names everything that a program may meet."""

import re
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.attempts import RESULTS
from mirrorstream.failures import FailureClass
from mirrorstream.missingimages import Absence, missing_images
from mirrorstream.retries import Outcome
from mirrorstream.statusreport import RuleObject, Rules, StatusReport
from mirrorstream.tagstates import Asking, State, tag_states

from tests.cli.builders import POLICY, attempt, failure, journal, stream

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def _listed(field: str) -> set[str]:
    """The values of a field of the schema, as the comment behind it lists them, over several lines if need be."""
    schema = TEXT[TEXT.index("## JSON and YAML") :]
    found = re.search(rf"^ +(?:- )?{field} +# (.+(?:\n +# .+)*)", schema, re.MULTILINE)
    assert found, field
    return set(re.findall(r"[a-z-]+", found[1]))


@pytest.mark.parametrize(
    ("documented", "known"),
    [
        (set(re.findall(r"^\| `([a-z-]+)` \| .* \| .* \|$", TEXT, re.MULTILINE)), set(map(str, State))),
        (_listed("result: failed"), RESULTS),
        (_listed("class: unreachable"), set(map(str, FailureClass))),
        (_listed("state: missing"), set(map(str, Absence))),
    ],
    ids=["states", "results", "failures", "absences"],
)
def test_every_word_is_explained(documented: set[str], known: set[str]) -> None:
    """Where its meaning stands, not somewhere in the prose; and no word is left that nothing says any more."""
    assert documented == known


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for item in value.values() for key in _keys(item)}
    return {key for item in value for key in _keys(item)} if isinstance(value, list) else set()


def test_every_field_is_in_the_schema() -> None:
    """Of status, missing and retry."""
    tags = tuple(tag_states(stream(failure()), POLICY, journal(attempt("failed", "not-found", "not-found")), Asking()))
    report = StatusReport("ns", 1, tags, Rules(True, (RuleObject("Kind/name", 1),)), ())
    documents = [report.document(), *(image.document() for image in missing_images(tags)), Outcome(tags[0]).document()]
    keys = _keys(documents)
    assert {"importedByPlatform", "followers", "candidates", "sources", "repository"} <= keys
    schema = TEXT[TEXT.index("## JSON and YAML") :]
    assert {key for key in keys if f"{key}:" not in schema} == set()
