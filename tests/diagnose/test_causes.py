"""By what tags are grouped: the mirror's answer and what helps, not what differs from tag to tag."""

import dataclasses
from typing import Any

import pytest
from mirrorstream.diagnose.causes import IMAGESET, REPOSITORY, Cause, cause_of, tag_groups
from mirrorstream.diagnose.check import check_groups
from mirrorstream.diagnose.tag_status import ControllerView, State, TagState, tag_states
from mirrorstream.imagestream.outcomes import AttemptHistory, CandidateAnswer
from mirrorstream.rules.policy import MirrorPolicy

from tests.diagnose.builders import ABSENT, FIRST, IDMS, NOT_FOUND, POLICY, SECOND, asked, attempt, failure, history, item, stream

EMPTY = MirrorPolicy.from_objects([])
TAGS_ONLY = MirrorPolicy.from_objects([IDMS], tags_through_digest_mirrors=False)
BLOCKED = MirrorPolicy.from_objects(
    [IDMS, {"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"registrySources": {"blockedRegistries": ["src.io"]}}}]
)
OPTED_OUT = stream(failure(), annotations={"mirrorstream.github.io/import": "disabled"})
TLS = tuple(CandidateAnswer(ref, "m", "tls", "x509: signed by unknown authority") for ref in (FIRST, SECOND))
PLAIN = tuple(CandidateAnswer(ref, "m", "tls", "http response to https client") for ref in (FIRST, SECOND))


def state(
    known: AttemptHistory | None = None, policy: MirrorPolicy | None = POLICY, found: Any = None, *, observing: bool = False
) -> TagState:
    """The state of one failing tag."""
    view = ControllerView(observing=observing)
    (one,) = tag_states(found or stream(failure()), policy, known or AttemptHistory(), view)
    return one


def tried(*failures: str, result: str = "failed", **more: Any) -> AttemptHistory:
    """What an Event tells."""
    return history(attempt(result, *failures, **more))


@pytest.mark.parametrize(
    ("tag", "word", "text", "helps"),
    [
        pytest.param(state(tried("not-found", "not-found")), "failing", "m.io does not have it, n.io", "-o imageset", id="lacks"),
        pytest.param(state(tried("denied", "denied")), "failing", "m.io denies it, n.io denies it", "secret for m.io", id="denied"),
        pytest.param(state(tried("not-found", "unauthorized")), "failing", "n.io denies it", "secret for n.io", id="one-may"),
        pytest.param(state(tried("timeout", "not-found")), "failing", "m.io does not answer", "m.io runs", id="timeout"),
        pytest.param(state(tried("unreachable", "not-found")), "failing", "m.io cannot be reached", "m.io runs", id="unreachable"),
        pytest.param(state(tried(candidates=TLS)), "failing", "m.io: certificate not trusted", "the CA of m.io", id="certificate"),
        pytest.param(state(tried(candidates=PLAIN)), "failing", "m.io: TLS fails", "m.io", id="plain-http"),
        pytest.param(state(tried("new", "new")), "failing", "m.io does not serve it", "explain", id="a-class-of-a-later-version"),
        pytest.param(state(tried("not-found")), "failing", "n.io has not been asked yet", "wait", id="a-new-mirror"),
        pytest.param(state(history(attempt("failed"))), "failing", "m.io, n.io have not been asked yet", "wait", id="both-new"),
        pytest.param(state(), "failing", "no attempt is known", "controller runs", id="no-event"),
        pytest.param(state(tried("", result="imported")), "failing", "healed before", "wait", id="fails-again"),
        pytest.param(state(tried("", result="not-recorded")), "failing", "refused to record", "explain", id="not-recorded"),
        pytest.param(state(tried(result="error")), "failing", "did not let mirrorstream", "explain", id="error"),
        pytest.param(state(tried(result="refused")), "failing", "rules changed", "wait", id="refused-before"),
        pytest.param(state(policy=None), "failing", "no attempt is known", "controller runs", id="rules-unseen"),
        pytest.param(state(tried(result="failed"), None), "failing", "whether a mirror was asked", "explain", id="no-candidates"),
        pytest.param(state(observing=True), "failing", "mode: observe", "mode: active", id="observes"),
        pytest.param(state(policy=EMPTY), "unmirrored", "no rule covers it", "a mirror set", id="no-rule"),
        pytest.param(state(policy=TAGS_ONLY), "refused", "every mirror is skipped: a digest mirror", "explain", id="skipped"),
        pytest.param(state(policy=BLOCKED), "refused", "the source is blocked by src.io", "Image config", id="blocked"),
        pytest.param(
            state(found=stream(failure(NOT_FOUND, "NotFound"))), "refused", "mirrors.bypassNotFound", "`from`", id="not-found"
        ),
        pytest.param(state(found=OPTED_OUT), "opted-out", "annotation", "nothing", id="opted-out"),
        pytest.param(state(found=stream()), "pending", "has not finished", "wait", id="pending"),
        pytest.param(
            state(tried("not-found", "", result="held"), found=stream({**item(1), "conditions": failure()["conditions"]})),
            "held", "n.io has another image", "replaceAfterSeconds", id="held",
        ),
    ],
)  # fmt: skip
def test_the_cause_is_what_can_be_changed(tag: TagState, word: str, text: str, helps: str) -> None:
    """The mirror's answer; of several that which may still help."""
    cause = cause_of(tag)
    assert (cause.state, cause_of(dataclasses.replace(tag, tag="v2", stream="other"))) == (word, cause)
    assert text in cause.text
    assert helps in cause.helps
    assert "connection refused" not in cause.text, "the source's failure is the same for all"


def test_tags_with_the_same_cause_are_one_group_the_largest_first() -> None:
    """With the oldest, and counts by namespace; what is well is in none."""
    lacks = state(tried("not-found", "not-found"))
    many = [
        dataclasses.replace(lacks, tag=f"v{n}", namespace="b" if n else "a", since=f"2027-01-0{9 - n}T00:00:00Z") for n in range(4)
    ]
    well = [dataclasses.replace(lacks, state=State.HEALED), dataclasses.replace(lacks, state=State.IMPORTED)]
    first, second = tag_groups([state(policy=EMPTY), *many, *well])
    assert first.document() == {
        "state": "failing",
        "cause": "m.io does not have it, n.io does not have it",
        "helps": "mirror it: `mirrorstream missing -o imageset` lists all for oc-mirror",
        "count": 4,
        "namespaces": {"b": 3, "a": 1},
        "oldest": "b/app:v3",
        "examples": ["a/app:v0", "b/app:v1", "b/app:v2"],
    }
    assert second.cause.state == "unmirrored"


def test_a_whole_repository_is_in_no_list_for_oc_mirror() -> None:
    """Its tags are not known; `missing` leaves it out."""
    one = state(tried("not-found", "not-found"))
    assert cause_of(dataclasses.replace(one, tag="")).helps == REPOSITORY
    assert check_groups([dataclasses.replace(asked(ABSENT, ABSENT), tag="")])[0].cause.helps == REPOSITORY
    assert check_groups([asked(ABSENT, ABSENT)])[0].cause.helps == IMAGESET.format("check")


def test_what_a_tenant_writes_is_short_and_harmless() -> None:
    """Anybody may write an Event in their namespace."""
    evil = CandidateAnswer("\x1b[2J" + "x" * 500 + "{0}/y", "m", "not-found", "")
    cause = cause_of(state(history(attempt("failed", candidates=(evil,))), None))
    assert isinstance(cause, Cause)
    assert "\x1b" not in cause.text
    assert len(cause.text) < 200
