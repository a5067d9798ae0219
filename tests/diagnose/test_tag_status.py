"""How a tag stands: every state, for those who see everything and for those who do not."""

from typing import Any

import pytest
from mirrorstream.diagnose.tag_status import ControllerView, State, TagState, tag_states, with_origins
from mirrorstream.imagestream.failures import Bypass, FailureClass
from mirrorstream.imagestream.model import ImageStream, imagestream_from
from mirrorstream.imagestream.outcomes import Attempt, AttemptHistory, AttemptResult, CandidateAnswer
from mirrorstream.rules.policy import MirrorPolicy

from tests.diagnose.builders import (
    DIGEST,
    FIRST,
    HOST,
    IDMS,
    NOT_FOUND,
    POLICY,
    SECOND,
    SOURCE,
    attempt,
    failure,
    history,
    item,
    stream,
)
from tests.fuzz.bounds import grows_linearly

NOTHING = AttemptHistory()
EMPTY = MirrorPolicy.from_objects([])
OPTED_OUT = {"mirrorstream.github.io/import": "disabled"}
CHECKED = {"openshift.io/image.dockerRepositoryCheck": "2027-01-15T07:00:00Z"}


def states(
    found: ImageStream,
    policy: MirrorPolicy | None = POLICY,
    known: AttemptHistory = NOTHING,
    controller_view: ControllerView | None = None,
) -> list[TagState]:
    """Every state of a stream's tags."""
    return list(tag_states(found, policy, known, controller_view or ControllerView()))


@pytest.mark.parametrize(
    ("found", "policy", "state"),
    [
        pytest.param(stream(item()), POLICY, State.IMPORTED, id="imported"),
        pytest.param(stream(), POLICY, State.PENDING, id="the-platforms-import-is-pending"),
        pytest.param(stream({**item(1), "conditions": failure()["conditions"]}), POLICY, State.FAILING, id="over-an-old-image"),
        pytest.param(stream(failure(generation=1)), POLICY, State.PENDING, id="pending-after-an-older-failure"),
        pytest.param(stream(failure()), POLICY, State.FAILING, id="failing"),
        pytest.param(stream(failure(NOT_FOUND, "NotFound")), POLICY, State.REFUSED, id="the-source-does-not-have-it"),
        pytest.param(stream(failure("registry src.io blocked", "Forbidden")), POLICY, State.REFUSED, id="blocked"),
        pytest.param(stream(failure()), EMPTY, State.UNMIRRORED, id="no-rule"),
        pytest.param(stream(failure(NOT_FOUND, "NotFound")), EMPTY, State.UNMIRRORED, id="no-rule-and-not-found"),
        pytest.param(stream(failure(), annotations=OPTED_OUT), POLICY, State.OPTED_OUT, id="opted-out"),
        pytest.param(stream(failure(), annotations=OPTED_OUT), EMPTY, State.OPTED_OUT, id="opted-out-and-no-rule"),
        pytest.param(stream(item(), annotations=OPTED_OUT), POLICY, State.IMPORTED, id="opted-out-and-well"),
        pytest.param(stream(failure()), None, State.FAILING, id="rules-unseen"),
        pytest.param(stream(failure(NOT_FOUND, "NotFound")), None, State.FAILING, id="rules-unseen-and-not-found"),
        pytest.param(stream(failure(), annotations=OPTED_OUT), None, State.OPTED_OUT, id="rules-unseen-and-opted-out"),
    ],
)
def test_a_tag(found: ImageStream, policy: MirrorPolicy | None, state: State) -> None:
    """One row of the table each."""
    assert [tag.state for tag in states(found, policy)] == [state]


def test_a_failing_tag_says_everything() -> None:
    """Since when, why, through what, what was tried, who follows."""
    follows: list[Any] = [
        {"name": "latest", "from": {"kind": "ImageStreamTag", "name": "v1"}},
        {"name": "stable", "from": {"kind": "ImageStreamTag", "name": "app:latest"}},
        {"name": "other", "from": {"kind": "ImageStreamTag", "name": "base:v1"}},
    ]
    (tag,) = states(stream(failure(), *follows), known=history(attempt(AttemptResult.FAILED, "not-found", "timeout")))
    assert (tag.name, tag.since, tag.source) == ("ns/app:v1", "2027-01-15T07:00:00Z", SOURCE)
    assert tag.failure
    assert tag.failure.kind is FailureClass.UNREACHABLE
    assert tag.candidates
    assert [candidate.reference for candidate in tag.candidates] == [FIRST, SECOND]
    assert tag.tried
    assert [answer.failure for answer in tag.tried.attempt.candidates] == ["not-found", "timeout"]
    assert tag.followers == ("latest", "stable")
    document = tag.document()
    assert set(document) == {
        "namespace", "stream", "tag", "state", "source", "why", "since", "failure", "candidates", "tried", "image", "through",
        "scheduled", "followers", "warnings",
    }  # fmt: skip
    assert document["failure"]["class"] == "unreachable"
    assert document["candidates"][0] == {"reference": FIRST, "mirrorSet": "ImageDigestMirrorSet/m"}


@pytest.mark.parametrize(
    ("policy", "state"), [(None, State.REFUSED), (POLICY, State.FAILING)], ids=["rules-unseen", "the-rules-know-better"]
)
def test_an_event_that_refuses(policy: MirrorPolicy | None, state: State) -> None:
    """It counts for those who see no rules; where they are seen it may be an old one."""
    (tag,) = states(stream(failure()), policy, history(attempt(AttemptResult.REFUSED, message="blocked")))
    assert tag.state is state
    assert tag.why == ("blocked" if state is State.REFUSED else "")


@pytest.mark.parametrize(
    ("known", "state"),
    [
        (attempt(AttemptResult.FAILED, "not-found", failure="stuck"), State.FAILING),
        (attempt(AttemptResult.FAILED, "not-found", failure="timeout"), State.PENDING),
        (attempt(AttemptResult.IMPORTED, "", failure="stuck"), State.PENDING),
    ],
    ids=["in-vain", "for-an-earlier-failure", "with-success"],
)
def test_an_import_that_does_not_end(known: Attempt, state: State) -> None:
    """Where packets are dropped the platform may never write a condition: what mirrorstream tried tells that it is stuck."""
    assert [tag.state for tag in states(stream(), known=history(known))] == [state]


def test_a_pending_tag_tells_how_the_import_before_ended() -> None:
    """The platform does not write the same failure twice, so this may be all that is ever to be seen."""
    (same,) = states(stream(failure(NOT_FOUND, "NotFound", generation=1)))
    (other,) = states(stream(failure("other.io/x: not found", "NotFound", generation=1)))
    assert (same.state, same.why) == (State.PENDING, "the platform's import is pending, the one before it failed")
    assert same.failure is not None
    assert same.failure.kind == "not-found"
    assert (other.state, other.why, other.failure) == (State.PENDING, "the platform's import is pending", None)


@pytest.mark.parametrize(
    ("controller_view", "message", "reason", "state"),
    [
        (ControllerView(bypass=Bypass(not_found=True)), NOT_FOUND, "NotFound", State.FAILING),
        (ControllerView(covers=lambda namespace: namespace != "ns"), "x", "InternalError", State.OPTED_OUT),
        (ControllerView(recorded_reference="mirror"), "x", "InternalError", State.REFUSED),
    ],
    ids=["bypassNotFound", "namespaces", "recordedReference"],
)
def test_the_controllers_configuration_counts(controller_view: ControllerView, message: str, reason: str, state: State) -> None:
    """Otherwise the answer would be that of another installation."""
    config = {"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"allowedRegistriesForImport": [{"domainName": "src.io"}]}}
    policy = MirrorPolicy.from_objects([IDMS, config])
    assert [tag.state for tag in states(stream(failure(message, reason)), policy, controller_view=controller_view)] == [state]


@pytest.mark.parametrize(
    ("annotations", "status", "found"),
    [
        ({}, [], [("", State.PENDING)]),
        (CHECKED, [], [("", State.FAILING)]),
        ({**CHECKED, **OPTED_OUT}, [], [("", State.OPTED_OUT)]),
        (CHECKED, [{"tag": "a", **item()}], [("a", State.IMPORTED)]),
    ],
    ids=["the-platform-has-not-tried", "it-left-nothing", "opted-out", "there-are-tags"],
)
def test_whole_repositories(annotations: Any, status: list[Any], found: list[tuple[str, State]]) -> None:
    """The platform writes no condition for them: no tag at all is the only sign."""
    document = {
        "metadata": {"name": "app", "namespace": "ns", "generation": 2, "annotations": annotations},
        "spec": {"dockerImageRepository": "src.io/team/app"},
        "status": {"tags": status},
    }
    assert [(tag.tag, tag.state) for tag in states(imagestream_from(document))] == found


OLD_IMAGE = {**item(1), "conditions": failure()["conditions"]}
HELD = attempt(
    AttemptResult.HELD, "not-found", "", message="serves another image than the source did: it replaces that one from 09:00 on"
)


@pytest.mark.parametrize("policy", [POLICY, None], ids=["rules", "rules-unseen"])
@pytest.mark.parametrize(
    ("status", "known", "state"),
    [
        (OLD_IMAGE, [HELD], State.HELD),
        (OLD_IMAGE, [HELD, attempt(AttemptResult.FAILED, "not-found", "timeout")], State.FAILING),
        (failure(), [HELD], State.FAILING),
        (item(), [HELD], State.IMPORTED),
    ],
    ids=["held", "and-then-no-mirror-had-it", "no-image-to-keep", "well"],
)
def test_a_tag_that_keeps_its_image_for_a_while(
    policy: MirrorPolicy | None, status: Any, known: list[Attempt], state: State
) -> None:
    """Nothing is missing until the source has failed for long enough; which mirror has what, and when, is said."""
    (tag,) = states(stream(status), policy, history(*known))
    assert tag.state is state
    if state is State.HELD:
        assert tag.why == f"{SECOND} {HELD.message}"


TAGS_ONLY = MirrorPolicy.from_objects([IDMS], tags_through_digest_mirrors=False)
BLOCKED = MirrorPolicy.from_objects([IDMS], blocked_registries=["m.io", "n.io"])


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (TAGS_ONLY, f"every mirror is skipped: {FIRST}: a digest mirror, and mirrors.tagsThroughDigestMirrors is off; {SECOND}: "),
        (BLOCKED, f"every mirror is skipped: {FIRST}: m.io is blocked; {SECOND}: n.io is blocked"),
    ],
    ids=["tagsThroughDigestMirrors", "blocked"],
)
def test_mirrors_that_are_all_left_out_are_not_none(policy: MirrorPolicy, why: str) -> None:
    """A rule covers the image, so somebody meant it to be mirrored, and has to act."""
    (tag,) = states(stream(failure()), policy)
    assert tag.state is State.REFUSED
    assert tag.why.startswith(why)
    assert [tag.state for tag in states(stream(failure(), annotations=OPTED_OUT), policy)] == [State.OPTED_OUT]


def test_what_the_platform_imported_whole_is_well() -> None:
    """It adds every tag to the spec."""
    assert [tag.state for tag in states(stream(item(), dockerImageRepository="src.io/team/app"))] == [State.IMPORTED]


def test_what_was_never_asked_for_has_no_state() -> None:
    """Tags that follow, are references only, or were pushed."""
    others: list[Any] = [
        {"name": "a", "from": {"kind": "ImageStreamTag", "name": "v1"}},
        {"name": "b", "from": {"kind": "DockerImage", "name": "x"}, "reference": True},
        {"name": "c"},
    ]
    assert [tag.tag for tag in states(stream(item(), *others))] == ["v1"]


@pytest.mark.parametrize(
    ("event", "through"), [(FIRST, FIRST), (SECOND, HOST), ("", HOST)], ids=["its-own", "of-another-mirror", "none"]
)
def test_what_served_a_tag(event: str, through: str) -> None:
    """Its own Event has the whole reference; it counts only for the mirror that the Image names for this item."""
    known = history(Attempt("v1", "imported", SOURCE, candidates=(CandidateAnswer(event),))) if event else history()
    (found,) = with_origins(states(stream(item()), known=known), {(DIGEST, ""): HOST})
    assert (found.state, found.through) == (State.HEALED, through)


def with_followers(count: int) -> ImageStream:
    """A stream of so many tags that fail, each with one that follows it."""
    names = [f"v{number}" for number in range(count)]
    tags: list[Any] = [{"name": name, "from": {"kind": "DockerImage", "name": SOURCE}, "generation": 2} for name in names]
    tags += [{"name": f"f{name}", "from": {"kind": "ImageStreamTag", "name": name}} for name in names]
    document = {
        "metadata": {"name": "app", "namespace": "ns", "uid": "u"},
        "spec": {"tags": tags},
        "status": {"tags": [{"tag": name, **failure()} for name in names]},
    }
    return imagestream_from(document)


def test_large_streams_take_linear_time() -> None:
    """No tag is a reason to look at every other."""
    assert [tag.followers for tag in states(with_followers(3))] == [("fv0",), ("fv1",), ("fv2",)]
    grows_linearly(with_followers, states, smallest=250, largest=4000)


def test_healed_is_what_its_image_says() -> None:
    """Only of tags that are well."""
    well, failing = states(stream(item())), states(stream({**item(1), "conditions": failure()["conditions"]}))
    found = with_origins([*well, *failing], {(DIGEST, ""): HOST})
    assert [(tag.state, tag.through) for tag in found] == [(State.HEALED, HOST), (State.FAILING, "")]
    assert with_origins(well, {("sha256:other", ""): HOST}) == well


RECORDED = f"m.io/x/team/app@{DIGEST}"
BY_MIRROR = {"items": [{"image": DIGEST, "dockerImageReference": RECORDED, "generation": 2}]}
ITMS = {
    "kind": "ImageTagMirrorSet",
    "metadata": {"name": "t"},
    "spec": {"imageTagMirrors": [{"source": "src.io", "mirrors": ["m.io/x"]}]},
}


def of_tag(status: Any, *, annotations: Any = None, **more: Any) -> ImageStream:
    """A stream with one Local tag, by default."""
    entry = {"name": "v1", "from": {"kind": "DockerImage", "name": SOURCE}, "generation": 2, "referencePolicy": {"type": "Local"}}
    return imagestream_from(
        {
            "metadata": {"name": "app", "namespace": "ns", "annotations": annotations or {}},
            "spec": {"tags": [{**entry, **more}]},
            "status": {"tags": [{"tag": "v1", **status}]},
        }
    )


def rules(mode: str = "", *insecure: str) -> MirrorPolicy:
    """Rules with a tag mirror, and an Image config."""
    config = {
        "kind": "Image",
        "metadata": {"name": "cluster"},
        "spec": {"registrySources": {"insecureRegistries": list(insecure)}},
        "status": {"imageStreamImportMode": mode},
    }
    return MirrorPolicy.from_objects([ITMS, config])


@pytest.mark.parametrize(
    ("found", "policy", "says"),
    [
        pytest.param(of_tag(BY_MIRROR), rules("", "m.io/x"), "importPolicy.insecure", id="a-path-is-insecure"),
        pytest.param(of_tag(BY_MIRROR), rules("", "m.io"), "importPolicy.insecure", id="the-whole-host"),
        pytest.param(of_tag(BY_MIRROR, importPolicy={"insecure": True}), rules("", "m.io/x"), "", id="the-tag-is-insecure"),
        pytest.param(
            of_tag(BY_MIRROR, importPolicy={"insecure": True, "importMode": "PreserveOriginal"}),
            rules("", "m.io/x"),
            "annotation openshift.io/image.insecureRepository",
            id="the-tag-is-insecure-and-may-be-a-list",
        ),
        pytest.param(
            of_tag(BY_MIRROR, annotations={"openshift.io/image.insecureRepository": "true"}), rules("", "m.io/x"), "", id="stream"
        ),
        pytest.param(of_tag(BY_MIRROR, referencePolicy={"type": "Source"}), rules("PreserveOriginal", "m.io/x"), "", id="source"),
        pytest.param(of_tag(BY_MIRROR), None, "", id="rules-unseen"),
        pytest.param(of_tag(BY_MIRROR), rules("PreserveOriginal"), "set importMode PreserveOriginal", id="several-architectures"),
        pytest.param(of_tag(failure()), rules("PreserveOriginal", "m.io/x"), "", id="no-image"),
        pytest.param(
            of_tag(BY_MIRROR, importPolicy={"importMode": "PreserveOriginal"}), rules("PreserveOriginal"), "", id="a-list"
        ),
        pytest.param(of_tag(BY_MIRROR, importPolicy={"importMode": "Legacy"}), rules("Legacy"), "", id="one-architecture"),
    ],
)
def test_what_may_keep_pods_from_running_a_tags_image(found: ImageStream, policy: MirrorPolicy | None, says: str) -> None:
    """Of a Local tag that has one: each thing by its name, and what helps."""
    (state,) = states(found, policy)
    assert len(state.warnings) == bool(says)
    assert says in "".join(state.warnings)
    assert state.document()["warnings"] == list(state.warnings)
