"""Importing again: which tags, by which request, and what is told of them."""

from typing import Any

import pytest
from mirrorstream.diagnose.retry import (
    CannotRetry,
    RetryOutcome,
    RetryRequest,
    Snapshot,
    chosen_tags,
    import_request,
    imported_tags,
    outcomes,
    render_outcomes,
    settled,
)
from mirrorstream.diagnose.tag_status import ControllerView, State, TagState, tag_states, with_origins
from mirrorstream.imagestream.model import ImageStream, imagestream_from
from mirrorstream.imagestream.outcomes import AttemptHistory
from mirrorstream.text.terminal import layout

from tests.diagnose.builders import DIGEST, FIRST, HOST, NOT_FOUND, POLICY, SOURCE, attempt, failure, history, item, stream

FOLLOWS: list[Any] = [
    {"name": "latest", "from": {"kind": "ImageStreamTag", "name": "v1"}},
    {"name": "newest", "from": {"kind": "ImageStreamTag", "name": "app:latest"}},
    {"name": "foreign", "from": {"kind": "ImageStreamTag", "name": "base:v1"}},
    {"name": "a", "from": {"kind": "ImageStreamTag", "name": "b"}},
    {"name": "b", "from": {"kind": "ImageStreamTag", "name": "a"}},
    {"name": "pushed"},
    {"name": "reference", "from": {"kind": "DockerImage", "name": "x"}, "reference": True},
    {"name": "image", "from": {"kind": "ImageStreamImage", "name": "x@y"}},
]


def chosen(found: ImageStream, tag: str | None) -> tuple[str, ...]:
    """The tags that are imported."""
    return chosen_tags(found, tag_states(found, POLICY, AttemptHistory(), ControllerView()), tag)


@pytest.mark.parametrize(
    ("status", "tag", "tags"),
    [
        (failure(), None, ("v1",)),
        (failure(NOT_FOUND, "NotFound"), None, ("v1",)),
        (None, None, ("v1",)),
        (item(), None, ()),
        (item(), "v1", ("v1",)),
        (failure(), "latest", ("v1",)),
        (failure(), "newest", ("v1",)),
    ],
    ids=["failing", "refused", "pending", "well", "well-but-named", "follows", "follows-what-follows"],
)
def test_which_tags(status: Any, tag: str | None, tags: tuple[str, ...]) -> None:
    """All that are not well, or the one that is named."""
    assert chosen(stream(status, *FOLLOWS), tag) == tags


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ("nope", "ns/app has no tag 'nope' in its spec"),
        ("foreign", "does not import an image: it follows ImageStreamTag base:v1"),
        ("a", "it follows ImageStreamTag b"),
        ("pushed", "it was pushed or tagged"),
        ("reference", "it is a reference only"),
        ("image", "it follows ImageStreamImage x@y"),
    ],
)
def test_what_cannot_be_imported(tag: str, says: str) -> None:
    """One line that says why."""
    with pytest.raises(CannotRetry, match=says):
        chosen(stream(item(), *FOLLOWS), tag)


def test_the_request_is_ocs() -> None:
    """Everything of the spec tag is repeated: the platform writes the import policy back into it."""
    document = {
        "metadata": {"name": "app", "namespace": "ns"},
        "spec": {
            "dockerImageRepository": "src.io/team/app",
            "tags": [
                {"name": "plain", "from": {"kind": "DockerImage", "name": "src.io/a:1"}},
                {
                    "name": "full",
                    "from": {"kind": "DockerImage", "name": "src.io/b:1"},
                    "importPolicy": {"insecure": True, "scheduled": True, "importMode": "PreserveOriginal"},
                    "referencePolicy": {"type": "Local"},
                },
                {"name": "unasked", "from": {"kind": "DockerImage", "name": "src.io/c:1"}},
            ],
        },
    }
    assert import_request(imagestream_from(document), ("plain", "full", ""), "17") == {
        "apiVersion": "image.openshift.io/v1",
        "kind": "ImageStreamImport",
        "metadata": {"name": "app", "namespace": "ns", "resourceVersion": "17"},
        "spec": {
            "import": True,
            "images": [
                {"from": {"kind": "DockerImage", "name": "src.io/a:1"}, "to": {"name": "plain"}, "importPolicy": {}},
                {
                    "from": {"kind": "DockerImage", "name": "src.io/b:1"},
                    "to": {"name": "full"},
                    "importPolicy": {"insecure": True, "scheduled": True, "importMode": "PreserveOriginal"},
                    "referencePolicy": {"type": "Local"},
                },
            ],
            "repository": {"from": {"kind": "DockerImage", "name": "src.io/team/app"}, "importPolicy": {}},
        },
    }


def test_an_insecure_stream_is_imported_insecurely() -> None:
    """As oc does: the annotation is for all of its tags."""
    found = stream(failure(), annotations={"openshift.io/image.insecureRepository": "true"})
    (image,) = import_request(found, ("v1",), "1")["spec"]["images"]
    assert image["importPolicy"] == {"insecure": True}


@pytest.mark.parametrize(
    ("status", "imported"),
    [
        ({"images": [{"status": {"status": "Success"}}, {"status": {"status": "Failure"}}]}, {"v1"}),
        ({"images": [{"status": {"status": "Failure"}}, {"status": {"status": "Success"}}]}, {"v2"}),
        ({"repository": {"status": {"status": "Failure"}, "images": [{"status": {"status": "Success"}}]}}, {""}),
        ({"repository": {"status": {"status": "Failure"}}}, set()),
        ({}, set()),
        (None, set()),
    ],
)
def test_what_the_platform_imported(status: Any, imported: set[str]) -> None:
    """Its answer is in the request's order."""
    request = {"spec": {"images": [{"to": {"name": "v1"}}, {"to": {"name": "v2"}}]}}
    assert imported_tags(request, {"status": status}) == imported


def state(status: Any = None, known: AttemptHistory | None = None, *, observing: bool = False, **changes: Any) -> TagState:
    """A tag's state."""
    (found,) = tag_states(stream(status, **changes), POLICY, known or AttemptHistory(), ControllerView(observing=observing))
    return found


OLD_IMAGE: Any = {**item(1), "conditions": failure()["conditions"]}
HELD = history(attempt("held", "", message="serves another image"))
TRIED, SERVED = history(attempt("failed", "not-found")), history(attempt("imported", ""))
OPTED_OUT: Any = {"mirrorstream.github.io/import": "disabled"}


@pytest.mark.parametrize(
    ("found", "fresh", "configured", "patient", "over"),
    [
        pytest.param(state(item()), False, True, True, True, id="well"),
        pytest.param(state(failure(), annotations=OPTED_OUT), False, True, True, True, id="opted-out"),
        pytest.param(state(failure(NOT_FOUND, "NotFound")), False, True, True, True, id="refused"),
        pytest.param(state(failure(NOT_FOUND, "NotFound")), False, False, True, False, id="refused-by-default"),
        pytest.param(state(failure(NOT_FOUND, "NotFound")), True, False, True, True, id="refused-again"),
        pytest.param(state(failure()), False, True, False, False, id="not-tried-yet"),
        pytest.param(state(failure(), TRIED), True, True, False, True, id="tried"),
        pytest.param(state(failure(), TRIED), True, True, True, False, id="tried-but-the-user-is-patient"),
        pytest.param(state(failure(), SERVED), True, True, False, False, id="tried-and-served"),
        pytest.param(state(failure(), observing=True), False, True, True, True, id="observed"),
        pytest.param(state(OLD_IMAGE, HELD), True, True, False, True, id="held"),
        pytest.param(state(OLD_IMAGE, HELD), False, True, False, False, id="held-before"),
        pytest.param(state(OLD_IMAGE, HELD), True, True, True, False, id="held-but-the-user-is-patient"),
        pytest.param(state(), True, True, False, False, id="pending"),
    ],
)
def test_how_long_to_wait(found: TagState, fresh: bool, configured: bool, patient: bool, over: bool) -> None:
    """Not for what cannot come."""
    assert settled(found, fresh=fresh, configured=configured, patient=patient) is over


@pytest.mark.parametrize(
    ("outcome", "says", "well"),
    [
        (RetryOutcome(state(item()), platform=True), f"ns/app:v1  imported by the platform  src.io/team/app@{DIGEST}", True),
        (RetryOutcome(with_origins([state(item())], {(DIGEST, ""): HOST})[0]), f"ns/app:v1  healed  through {HOST}", True),
        (RetryOutcome(state(item())), f"ns/app:v1  imported  src.io/team/app@{DIGEST}", True),
        (
            RetryOutcome(state(failure(), history(attempt("failed", "not-found", "timeout")))),
            "ns/app:v1  still failing  unreachable: dial tcp 10.0.0.1:443: connect: connection refused; "
            "m.io/x/team/app:v1: not-found; n.io/y/team/app:v1: timeout",
            False,
        ),
        (
            RetryOutcome(state(failure(), history(attempt("error", message="no rights")))),
            "ns/app:v1  still failing  unreachable: dial tcp 10.0.0.1:443: connect: connection refused; no rights",
            False,
        ),
        (RetryOutcome(state(failure())), "connection refused; no attempt through a mirror is known", False),
        (RetryOutcome(state(failure(NOT_FOUND, "NotFound"))), "ns/app:v1  refused  the failure (not-found) must not be", False),
        (
            RetryOutcome(state(failure(), annotations=OPTED_OUT)),
            "the stream's annotation mirrorstream.github.io/import is disabled",
            False,
        ),
        (RetryOutcome(state(failure(), observing=True)), "refused; mirrorstream observes only (mode: observe)", False),
        (RetryOutcome(state(OLD_IMAGE, HELD)), f"ns/app:v1  held  {FIRST} serves another image\n", False),
        (RetryOutcome(state(item()), problem="not imported again: why"), "ns/app:v1  not imported again  why", False),
        (RetryOutcome(state(item()), platform=True, problem="gone"), "ns/app:v1  gone\n", False),
        (RetryOutcome(state()), "ns/app:v1  pending  the platform's import is pending", False),
    ],
)
def test_one_line_for_each_tag(outcome: RetryOutcome, says: str, well: bool) -> None:
    """What became of it, and why it did not."""
    text = layout(render_outcomes([outcome]))
    assert says in text
    assert text.count("\n") == 1
    assert outcome.well is well
    assert set(outcome.document()) > {"state", "importedByPlatform"}
    assert SOURCE in outcome.document()["source"]


def test_a_healed_tag_over_an_old_failure_is_well() -> None:
    """The state decides, not what was before."""
    assert state(item(), history(attempt("failed", "timeout"))).state is State.IMPORTED


def look(found: ImageStream) -> Snapshot:
    """A stream and its states."""
    return Snapshot(found, {one.tag: one for one in tag_states(found, POLICY, AttemptHistory(), ControllerView())})


def repository(*tags: Any, listed: tuple[str, ...] = ()) -> Snapshot:
    """A stream of a whole repository, with tags of its spec besides, and those that were listed."""
    document = {
        "metadata": {"name": "app", "namespace": "ns", "annotations": {"openshift.io/image.dockerRepositoryCheck": "x"}},
        "spec": {"dockerImageRepository": "src.io/team/app", "tags": list(tags)},
        "status": {"tags": [{"tag": name, **item()} for name in listed]},
    }
    return look(imagestream_from(document))


def imports(name: str) -> Any:
    """A tag of the spec."""
    return {"name": name, "from": {"kind": "DockerImage", "name": f"src.io/team/app:{name}"}}


WHOLE = repository()


@pytest.mark.parametrize(
    ("asked", "found", "told"),
    [
        pytest.param(
            RetryRequest(look(stream(failure())), ("v1",)), look(stream(failure())), [("v1", "failing", "")], id="the-same"
        ),
        pytest.param(
            RetryRequest(look(stream(failure())), ("v1",)),
            repository(),
            [("v1", "failing", "no longer in the spec")],
            id="a-deleted-tag",
        ),
        pytest.param(
            RetryRequest(look(stream(failure())), ("v1",)),
            repository({"name": "v1", "from": {"kind": "ImageStreamTag", "name": "x"}}),
            [("v1", "failing", "no longer a tag that imports an image")],
            id="a-changed-tag",
        ),
        pytest.param(RetryRequest(WHOLE, ("",)), WHOLE, [("", "failing", "")], id="a-repository-in-vain"),
        pytest.param(
            RetryRequest(WHOLE, ("",)),
            repository(listed=("a", "b")),
            [("a", "imported", ""), ("b", "imported", "")],
            id="a-repository",
        ),
        pytest.param(
            RetryRequest(WHOLE, ("",), frozenset({""})),
            repository(imports("a"), listed=("a",)),
            [("a", "imported", "")],
            id="a-repository-that-the-platform-imported",
        ),
        pytest.param(
            RetryRequest(WHOLE, ("",)), look(stream(item())), [("", "failing", "no longer in the spec")], id="a-deleted-repository"
        ),
        pytest.param(
            RetryRequest(look(stream(item())), ("v1",), unended=True),
            look(stream(item())),
            [("v1", "imported", "not imported again: the platform's own import did not end")],
            id="well-before-and-not-imported-again",
        ),
        pytest.param(
            RetryRequest(look(stream(item())), ("v1",), unended=True),
            look(stream(item(3))),
            [("v1", "imported", "")],
            id="imported-again",
        ),
        pytest.param(
            RetryRequest(look(stream(failure())), ("v1",), unended=True),
            look(stream(item())),
            [("v1", "imported", "")],
            id="healed",
        ),
    ],
)
def test_everything_that_was_asked_for_has_an_outcome(
    asked: RetryRequest, found: Snapshot, told: list[tuple[str, str, str]]
) -> None:
    """No answer would be taken for a success."""
    made = outcomes(asked, found)
    assert [(one.state.tag, str(one.state.state), one.problem) for one in made] == told
    assert all(one.platform is (asked.imported == {""}) for one in made)
