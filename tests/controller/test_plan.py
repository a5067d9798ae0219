"""The decision table: every state of a tag, and what is done about it."""

import dataclasses
from typing import Any

import pytest
from mirrorstream.failures import FailureClass
from mirrorstream.imagestreams import WHOLE_REPOSITORY, imagestream_from
from mirrorstream.policy import MirrorPolicy
from mirrorstream_controller.plan import (
    Action,
    Memory,
    PlanSettings,
    TagPlan,
    plan_stream,
    replacement,
)

NOW = 1_800_000_000.0
SOURCE = "src.io/team/app:v1"
REFUSED = f"Internal error occurred: {SOURCE}: dial tcp 10.0.0.1:443: connect: connection refused"
IDMS = {
    "kind": "ImageDigestMirrorSet",
    "metadata": {"name": "m"},
    "spec": {"imageDigestMirrors": [{"source": "src.io", "mirrors": ["m.io/x"]}]},
}
POLICY = MirrorPolicy.from_objects([IDMS])
Object = dict[str, Any]


def failure(generation: int = 2, message: str = REFUSED, reason: str = "InternalError", **more: Any) -> Object:
    """An ImportSuccess=False condition."""
    return {"type": "ImportSuccess", "status": "False", "reason": reason, "message": message, "generation": generation, **more}


def item(generation: int = 2, image: str = "sha256:aa") -> Object:
    """A tag event."""
    return {"image": image, "dockerImageReference": f"src.io/team/app@{image}", "generation": generation, "created": "x"}


def stream(
    status: Object | None = None, spec: Object | None = None, annotations: Object | None = None, **stream_spec: Any
) -> Object:
    """A stream with one tag `v1` at generation 2."""
    tag = {"name": "v1", "from": {"kind": "DockerImage", "name": SOURCE}, "generation": 2, **(spec or {})}
    return {
        "metadata": {"name": "app", "namespace": "ns", "uid": "u", "generation": 2, "annotations": annotations or {}},
        "spec": {"tags": [tag], **stream_spec},
        "status": {"tags": [{"tag": "v1", **status}] if status else []},
    }


def plans(
    document: Object, settings: PlanSettings | None = None, memory: Memory | None = None, policy: MirrorPolicy = POLICY
) -> Any:
    """Every plan for a stream."""
    return plan_stream(imagestream_from(document), policy, settings or PlanSettings(), memory or Memory(), NOW)


def test_mirrors_that_are_all_left_out_are_as_none() -> None:
    """Nobody wants an Event about each tag of a cluster where digest mirrors do not count for tags."""
    policy = MirrorPolicy.from_objects([IDMS], tags_through_digest_mirrors=False)
    (plan,) = plans(stream({"conditions": [failure()]}), policy=policy)
    assert (plan.action, plan.candidates) == (Action.NOTHING, ())
    assert plan.why.startswith("every mirror is left out: m.io/x/team/app:v1: a digest mirror")


@pytest.mark.parametrize(
    ("document", "action"),
    [
        pytest.param(stream({"items": [item()]}), Action.NOTHING, id="imported"),
        pytest.param(stream(), Action.WAIT, id="the-platforms-import-is-pending"),
        pytest.param(stream({"items": [item(1)]}), Action.WAIT, id="pending-after-a-change-of-the-spec"),
        pytest.param(stream({"conditions": [failure(1)]}), Action.WAIT, id="an-older-failure-while-pending"),
        pytest.param(stream({"conditions": [failure()]}), Action.IMPORT, id="failed"),
        pytest.param(stream({"items": [item(1)], "conditions": [failure()]}), Action.IMPORT, id="failed-over-an-item"),
        pytest.param(stream({"items": None, "conditions": [failure(5)]}), Action.IMPORT, id="failed-at-a-later-generation"),
        pytest.param(
            stream({"conditions": [failure(message=f'dockerimage "{SOURCE}" not found', reason="NotFound")]}),
            Action.REFUSE,
            id="not-found",
        ),
        pytest.param(
            stream({"conditions": [failure(message="registry src.io blocked", reason="Forbidden")]}), Action.REFUSE, id="forbidden"
        ),
        pytest.param(
            stream({"conditions": [failure()]}, {"from": {"kind": "DockerImage", "name": "other.io/a/b"}}),
            Action.NOTHING,
            id="no-mirror",
        ),
        pytest.param(
            stream({"conditions": [{**failure(), "type": "MirrorImport"}], "items": [item()]}),
            Action.NOTHING,
            id="a-condition-of-another-type",
        ),
        pytest.param(
            stream({"conditions": [{**failure(), "status": "True"}], "items": [item()]}), Action.NOTHING, id="a-true-condition"
        ),
    ],
)
def test_what_is_done(document: Object, action: Action) -> None:
    """One row of the table each."""
    assert [plan.action for plan in plans(document)] == [action]


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(
            stream({"conditions": [failure()]}, annotations={"mirrorstream.github.io/import": "disabled"}), id="opted-out"
        ),
        pytest.param(stream({"conditions": [failure()]}, {"reference": True}), id="reference-only"),
        pytest.param(stream({"conditions": [failure()]}, {"from": {"kind": "ImageStreamTag", "name": "v0"}}), id="follows"),
        pytest.param(stream({"conditions": [failure()]}, {"from": {"kind": "ImageStreamImage", "name": "x@y"}}), id="an-image"),
        pytest.param(stream({"conditions": [failure()]}, {"from": None}), id="pushed"),
    ],
)
def test_what_is_never_touched(document: Object) -> None:
    """There is not even a plan for it."""
    assert not plans(document)


def test_the_plan_says_everything_that_recording_needs() -> None:
    """What it is for, through what, and at which generation."""
    (plan,) = plans(
        stream({"items": [item(1)], "conditions": [failure(lastTransitionTime="2027-01-15T07:00:00Z")]}, {"generation": 2})
    )
    assert (plan.source, plan.generation, plan.newest_image, plan.condition_generation) == (SOURCE, 2, "sha256:aa", 2)
    assert [candidate.reference for candidate in plan.candidates] == ["m.io/x/team/app:v1"]
    assert plan.failing_since == 1_799_996_400.0
    assert plan.failure is not None
    assert plan.failure.kind is FailureClass.UNREACHABLE


@pytest.mark.parametrize(
    ("since", "after", "action"),
    [(NOW - 179, 180, Action.WAIT), (NOW - 180, 180, Action.IMPORT), (NOW - 100000, 0, Action.WAIT)],
    ids=["not-yet", "stuck", "never"],
)
def test_a_pending_import_counts_as_failed_after_a_while(since: float, after: float, action: Action) -> None:
    """stuckAfterSeconds; 0 means never."""
    (plan,) = plans(stream(), PlanSettings(stuck_after=after), Memory(pending_since={"v1": since}))
    assert plan.action is action
    if action is Action.WAIT:
        assert plan.again_at == (since + after if after else None)


NOT_FOUND = f'dockerimage.image.openshift.io "{SOURCE}" not found'


@pytest.mark.parametrize(
    ("before", "bypass", "action", "kind"),
    [
        pytest.param(failure(1, NOT_FOUND, "NotFound"), False, Action.REFUSE, FailureClass.NOT_FOUND, id="not-found"),
        pytest.param(failure(1, NOT_FOUND, "NotFound"), True, Action.IMPORT, FailureClass.STUCK, id="not-found-and-bypassed"),
        pytest.param(failure(1, NOT_FOUND.replace("v1", "v0"), "NotFound"), False, Action.IMPORT, FailureClass.STUCK, id="another"),
        pytest.param(failure(1), False, Action.IMPORT, FailureClass.STUCK, id="refused-connection"),
    ],
)
@pytest.mark.parametrize("after", [180, 0], ids=["stuck", "never-stuck"])
def test_what_the_source_said_before_an_import_that_does_not_end(
    before: Object, bypass: bool, action: Action, kind: FailureClass, after: float
) -> None:
    """The platform does not write the same failure twice, so a tag whose source says the same again looks pending.

    That holds where no import counts as stuck, too: there it would look so for ever. What another source said tells nothing.
    """
    document, settings = stream({"conditions": [before]}), PlanSettings(bypass, stuck_after=after)
    (early,) = plans(document, settings, Memory(pending_since={"v1": NOW - 179}))
    (plan,) = plans(document, settings, Memory(pending_since={"v1": NOW - 180}))
    assert early.action is Action.WAIT
    if not after and before["message"] == NOT_FOUND.replace("v1", "v0"):
        assert (plan.action, plan.again_at) == (Action.WAIT, None)
        return
    assert early.again_at == NOW + 1
    assert plan.action is action
    assert plan.failure is not None
    assert plan.failure.kind is kind


@pytest.mark.parametrize(
    ("config", "action", "why"),
    [
        ({"registrySources": {"blockedRegistries": ["src.io"]}}, Action.REFUSE, "blockedRegistries"),
        ({"registrySources": {"allowedRegistries": ["else.io"]}}, Action.REFUSE, "allowedRegistries"),
        (
            {"allowedRegistriesForImport": [{"domainName": "m.io"}]},
            Action.REFUSE,
            "src.io is not in spec.allowedRegistriesForImport",
        ),
        ({"allowedRegistriesForImport": [{"domainName": "src.io"}]}, Action.IMPORT, ""),
        ({"registrySources": {"blockedRegistries": ["m.io"]}}, Action.NOTHING, "every mirror is left out: "),
    ],
)
def test_the_image_config_is_obeyed(config: Object, action: Action, why: str) -> None:
    """The platform reports some of it as InternalError, so it is evaluated again."""
    policy = MirrorPolicy.from_objects([IDMS, {"kind": "Image", "metadata": {"name": "cluster"}, "spec": config}])
    (plan,) = plans(stream({"conditions": [failure()]}), policy=policy)
    assert plan.action is action
    assert why in plan.why


def test_a_mirror_that_may_not_be_recorded_is_refused() -> None:
    """recordedReference: mirror, and the mirror's host is not in the allow-list."""
    config = {"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"allowedRegistriesForImport": [{"domainName": "src.io"}]}}
    policy = MirrorPolicy.from_objects([IDMS, config])
    (plan,) = plans(stream({"conditions": [failure()]}), PlanSettings(recorded_reference="mirror"), policy=policy)
    assert plan.action is Action.REFUSE
    assert "m.io is not in spec.allowedRegistriesForImport" in plan.why


CHECKED = {"openshift.io/image.dockerRepositoryCheck": "2027-01-15T07:00:00Z"}


@pytest.mark.parametrize(
    ("annotations", "status", "actions"),
    [
        ({}, [], [Action.WAIT]),
        (CHECKED, [], [Action.IMPORT]),
        (CHECKED, [{"tag": "v1", "items": [item()]}], []),
    ],
    ids=["the-platform-has-not-tried", "it-left-nothing", "there-are-tags"],
)
def test_whole_repositories(annotations: Object, status: list[Object], actions: list[Action]) -> None:
    """The platform writes no condition for them."""
    document = stream(annotations=annotations, dockerImageRepository="src.io/team/app")
    document["spec"]["tags"] = []
    document["status"]["tags"] = status
    found = plans(document)
    assert [plan.action for plan in found] == actions
    assert all(plan.tag == WHOLE_REPOSITORY and plan.generation == 2 for plan in found)


@pytest.mark.parametrize(
    ("source", "actions"),
    [
        (SOURCE, [Action.NOTHING]),
        ("src.io/other/app:v1", [Action.NOTHING, Action.IMPORT]),
    ],
    ids=["the-platform-imported-it", "by-hand"],
)
def test_a_repository_that_the_platform_imported_is_left_alone(source: str, actions: list[Action]) -> None:
    """It adds every tag to the spec, so none is in the status alone; a tag of another repository says nothing."""
    tag = {"from": {"kind": "DockerImage", "name": source}}
    found = plans(stream({"items": [item()]}, tag, CHECKED, dockerImageRepository="src.io/team/app"))
    assert [plan.action for plan in found] == actions


BASE = TagPlan("v1", Action.IMPORT, "", newest_image="sha256:aa", failing_since=NOW - 100)


@pytest.mark.parametrize(
    ("plan", "digest", "ours", "after", "allowed", "only_condition", "again_at"),
    [
        pytest.param(dataclasses.replace(BASE, newest_image=""), "sha256:bb", False, 3600, True, False, None, id="nothing-there"),
        pytest.param(BASE, "sha256:bb", True, 3600, True, False, None, id="ours-at-once"),
        pytest.param(BASE, "sha256:aa", True, 3600, True, False, None, id="the-same-and-ours"),
        pytest.param(BASE, "sha256:aa", False, 3600, True, True, None, id="the-same-only-drops-the-condition"),
        pytest.param(BASE, "sha256:bb", False, 3600, False, False, NOW + 3500, id="a-short-outage"),
        pytest.param(BASE, "sha256:bb", False, 100, True, False, None, id="a-long-outage"),
    ],
)
def test_what_may_replace_what_the_platform_imported(
    plan: TagPlan, digest: str, ours: bool, after: float, allowed: bool, only_condition: bool, again_at: float | None
) -> None:
    """A short outage must not roll a tag back to a stale mirror."""
    found = replacement(plan, digest, newest_is_ours=ours, settings=PlanSettings(replace_after=after), now=NOW)
    assert (found.allowed, found.only_condition, found.again_at) == (allowed, only_condition, again_at)
