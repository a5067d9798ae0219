"""docs/cli.md names everything that a program may meet."""

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


@pytest.mark.parametrize("word", [*map(str, State), *sorted(RESULTS), *map(str, FailureClass), *map(str, Absence)])
def test_every_word_is_explained(word: str) -> None:
    """States, results, failure classes."""
    assert word in TEXT


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
