"""The decision table: every state of a tag, and what is done about it."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from mirrorstream.imagestream.failures import Bypass, FailureClass
from mirrorstream.imagestream.model import WHOLE_REPOSITORY, imagestream_from
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream_controller.history import History
from mirrorstream_controller.plan import (
    Action,
    PlanSettings,
    TagPlan,
    plan_stream,
    recorded_repository,
    replacement,
)

from tests.controller.builders import IDMS, NOW, POLICY, REFUSED, SOURCE, Object, failure, item, stream


def plans(
    document: Object, settings: PlanSettings | None = None, history: History | None = None, policy: MirrorPolicy = POLICY
) -> Any:
    """Every plan for a stream."""
    return plan_stream(imagestream_from(document), policy, settings or PlanSettings(), history or History(), NOW)


def test_mirrors_that_are_all_left_out_are_as_none() -> None:
    """Nobody wants an Event about each tag of a cluster where digest mirrors do not count for tags."""
    policy = MirrorPolicy.from_objects([IDMS], tags_through_digest_mirrors=False)
    (plan,) = plans(stream({"conditions": [failure()]}), policy=policy)
    assert (plan.action, plan.candidates) == (Action.NOTHING, ())
    assert plan.why.startswith("every mirror is skipped: m.io/x/team/app:v1: a digest mirror")


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
    (plan,) = plans(stream(), PlanSettings(stuck_after=after), History(pending_since={"v1": since}))
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

    That holds where no import counts as stuck, too: there it would look so without end. What another source said tells nothing.
    """
    document, settings = stream({"conditions": [before]}), PlanSettings(Bypass(not_found=bypass), stuck_after=after)
    (early,) = plans(document, settings, History(pending_since={"v1": NOW - 179}))
    (plan,) = plans(document, settings, History(pending_since={"v1": NOW - 180}))
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
        ({"registrySources": {"blockedRegistries": ["m.io"]}}, Action.NOTHING, "every mirror is skipped: "),
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


TIMED_OUT = f'Internal error occurred: {SOURCE}: Get "https://src.io/v2/": net/http: TLS handshake timeout'


@pytest.mark.parametrize(
    ("message", "config", "spec", "recorded", "name"),
    [
        pytest.param(REFUSED, {}, {}, "auto", "src.io/team/app", id="refused"),
        pytest.param(TIMED_OUT, {}, {}, "auto", "m.io/x/team/app", id="timed-out"),
        pytest.param(TIMED_OUT, {}, {}, "source", "src.io/team/app", id="source"),
        pytest.param(REFUSED, {}, {}, "mirror", "m.io/x/team/app", id="mirror"),
        pytest.param("", {}, {}, "auto", "m.io/x/team/app", id="stuck"),
        pytest.param(
            TIMED_OUT, {"allowedRegistriesForImport": [{"domainName": "src.io"}]}, {}, "auto", "src.io/team/app", id="not-allowed"
        ),
        pytest.param(
            TIMED_OUT,
            {"allowedRegistriesForImport": [{"domainName": "src.io"}, {"domainName": "m.io"}]},
            {},
            "auto",
            "m.io/x/team/app",
            id="allowed",
        ),
        pytest.param(
            TIMED_OUT,
            {"registrySources": {"insecureRegistries": ["m.io/x"]}},
            {},
            "auto",
            "src.io/team/app",
            id="insecure-for-a-path",
        ),
        pytest.param(
            TIMED_OUT,
            {"registrySources": {"insecureRegistries": ["m.io"]}},
            {},
            "auto",
            "m.io/x/team/app",
            id="insecure-for-the-cluster",
        ),
        pytest.param(
            TIMED_OUT,
            {"registrySources": {"insecureRegistries": ["m.io/x"]}},
            {"importPolicy": {"insecure": True}},
            "auto",
            "m.io/x/team/app",
            id="insecure-for-the-tag",
        ),
        pytest.param(
            TIMED_OUT,
            {
                "registrySources": {"insecureRegistries": ["m.io/x"]},
                "allowedRegistriesForImport": [{"domainName": "src.io"}, {"domainName": "m.io", "insecure": True}],
            },
            {"annotations": {"openshift.io/image.insecureRepository": "true"}},
            "auto",
            "m.io/x/team/app",
            id="insecure-for-the-stream",
        ),
        pytest.param(
            TIMED_OUT,
            {"registrySources": {"allowedRegistries": ["src.io"]}},
            {},
            "auto",
            "src.io/team/app",
            id="nodes-reject-the-mirrors-name",
        ),
        pytest.param(
            TIMED_OUT,
            {"registrySources": {"allowedRegistries": ["src.io", "m.io"]}},
            {},
            "auto",
            "m.io/x/team/app",
            id="nodes-allow-the-mirrors-name",
        ),
    ],
)
def test_which_reference_is_recorded(message: str, config: Object, spec: Object, recorded: str, name: str) -> None:
    """A source that lets its callers wait is not recorded: the registry would ask it for every blob first."""
    policy = MirrorPolicy.from_objects([IDMS, {"kind": "Image", "metadata": {"name": "cluster"}, "spec": config}])
    settings = PlanSettings(recorded_reference=recorded)
    status = {"conditions": [failure(message=message)]} if message else None
    (plan,) = plans(stream(status, spec, spec.get("annotations")), settings, History(pending_since={"v1": NOW - 200}), policy)
    assert plan.action is Action.IMPORT
    assert recorded_repository(plan, plan.candidates[0], "sha256:aa", policy, settings) == name


def test_a_mirrors_name_that_is_recorded_stays() -> None:
    """A source times out today and refuses tomorrow: the history does not grow by an item each time."""
    by_mirror = {"image": "sha256:aa", "dockerImageReference": "m.io/x/team/app@sha256:aa", "generation": 1}
    (plan,) = plans(stream({"items": [by_mirror], "conditions": [failure()]}))
    names = [recorded_repository(plan, plan.candidates[0], digest, POLICY, PlanSettings()) for digest in ("sha256:aa", "sha256:bb")]
    assert names == ["m.io/x/team/app", "src.io/team/app"]
    by_source = PlanSettings(recorded_reference="source")
    assert recorded_repository(plan, plan.candidates[0], "sha256:aa", POLICY, by_source) == "src.io/team/app"


SAMPLE = {"samples.operator.openshift.io/managed": "true"}


@pytest.mark.parametrize(
    ("age", "labels", "items", "retry", "wait"),
    [
        pytest.param(0.0, SAMPLE, [item(1)], "", 5.0, id="just-failed"),
        pytest.param(4.9, SAMPLE, [item(1)], "", 0.1, id="not-yet-seen"),
        pytest.param(5.0, SAMPLE, [item(1)], "", None, id="seen"),
        pytest.param(0.0, SAMPLE, [], "", None, id="without-an-image"),
        pytest.param(0.0, {}, [item(1)], "", None, id="no-sample"),
        pytest.param(0.0, {"samples.operator.openshift.io/managed": "false"}, [item(1)], "", None, id="not-managed"),
        pytest.param(1.0, SAMPLE, [item(1)], "2027-01-15T07:59:59.500+00:00", None, id="a-user-asked"),
        pytest.param(1.0, SAMPLE, [item(1)], "2027-01-15T07:59:58.500+00:00", 4.0, id="a-user-asked-before-it-failed"),
        pytest.param(1.0, SAMPLE, [item(1)], "now", 4.0, id="a-retry-that-is-no-time"),
        pytest.param(-1.0, SAMPLE, [item(1)], "", 6.0, id="a-clock-that-is-ahead"),
        pytest.param(-60.0, SAMPLE, [item(1)], "", None, id="another-clock"),
        pytest.param(None, SAMPLE, [item(1)], "", None, id="without-a-time"),
    ],
)
def test_a_sample_is_healed_after_its_operator_has_seen_the_failure(
    age: float | None, labels: Object, items: list[Object], retry: str, wait: float | None
) -> None:
    """A heal right after the failure leaves the ClusterOperator with a failure of no stream."""
    at = {} if age is None else {"lastTransitionTime": datetime.fromtimestamp(NOW - age, UTC).isoformat()}
    annotations = {"mirrorstream.github.io/retry": retry} if retry else {}
    document = stream({"items": items, "conditions": [failure(**at)]}, annotations=annotations)
    document["metadata"]["labels"] = labels
    (plan,) = plans(document)
    assert plan.action is (Action.IMPORT if wait is None else Action.WAIT)
    assert plan.again_at == (None if wait is None else pytest.approx(NOW + wait))


def test_a_sample_that_is_refused_is_refused_at_once() -> None:
    """The user is told, and there is no heal that could come too early."""
    at = datetime.fromtimestamp(NOW, UTC).isoformat()
    document = stream({"items": [item(1)], "conditions": [failure(message=NOT_FOUND, reason="NotFound", lastTransitionTime=at)]})
    document["metadata"]["labels"] = SAMPLE
    assert [plan.action for plan in plans(document)] == [Action.REFUSE]


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
