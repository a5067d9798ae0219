"""docs/cli.md names everything that a program may meet."""

import re
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.diagnose.check import CheckReport, Fate, Skipped, checks_of
from mirrorstream.diagnose.hanging_pods import HangingPod, WaitsFor
from mirrorstream.diagnose.missing import Absence, missing_images
from mirrorstream.diagnose.retry import RetryOutcome
from mirrorstream.diagnose.status import RuleObject, Rules, StatusReport
from mirrorstream.diagnose.tag_status import ControllerView, State, tag_states
from mirrorstream.imagestream.failures import FailureClass
from mirrorstream.imagestream.outcomes import RESULTS

from tests.diagnose.builders import POLICY, attempt, failure, history, stream

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
        (_listed("waitsFor: import"), set(map(str, WaitsFor))),
        (_listed("fate: survives"), set(map(str, Fate))),
        (set(re.findall(r"(\w+): \d", TEXT[TEXT.index("      skipped: {") :].partition("}")[0])), set(map(str, Skipped))),
    ],
    ids=["states", "results", "failures", "absences", "pods", "fates", "skipped"],
)
def test_every_word_is_explained(documented: set[str], known: set[str]) -> None:
    """Where its meaning stands, not somewhere in the prose; and no word is left that nothing says any more."""
    assert documented == known


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for item in value.values() for key in _keys(item)}
    return {key for item in value for key in _keys(item)} if isinstance(value, list) else set()


def test_every_field_is_in_the_schema() -> None:
    """Of status, missing, check and retry."""
    tags = tuple(tag_states(stream(failure()), POLICY, history(attempt("failed", "not-found", "not-found")), ControllerView()))
    pods = (HangingPod("ns", "web", "c", "image", "ns/app:v1", "ImagePullBackOff", WaitsFor.IMPORT, "", ""),)
    report = StatusReport("ns", 1, tags, Rules(True, (RuleObject("Kind/name", 1),)), (), pods)
    checked = CheckReport("ns", 1, tuple(checks_of(stream(), POLICY, ControllerView())), {})
    documents = [
        report.document(),
        checked.document(),
        *(image.document() for image in missing_images(tags)),
        RetryOutcome(tags[0]).document(),
    ]
    keys = _keys(documents)
    assert {"importedByPlatform", "followers", "candidates", "sources", "repository"} <= keys
    schema = TEXT[TEXT.index("## JSON and YAML") :]
    assert {key for key in keys if f"{key}:" not in schema} == set()
