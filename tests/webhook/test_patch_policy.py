"""Without the policies that bound the account's right, pods are reported and not changed."""

import pytest
from mirrorstream.kube.client import ApiError, ApiUnreachable
from mirrorstream_webhook.pending_pods.patch_policy import NAMES
from structlog.testing import capture_logs

from tests.webhook.builders import HEALED, OURS, SOURCE, Bed, Object, hanging, settings
from tests.webhook.pending_loop import NOT_FOUND, Loop


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"pendingPods": "report"}, "webhook.pendingPods is report"),
        ({"mode": "observe"}, "mode is observe"),
    ],
    ids=["report", "observe"],
)
def test_where_nothing_may_be_changed_it_is_reported(change: Object, expected: str) -> None:
    """What would become of the pod, once: by an Event, or in an observer's log."""
    loop = Loop(Bed(HEALED, mode=change.get("mode", "active")), **change)
    loop.see(hanging(f"{SOURCE}:v1"))
    with capture_logs() as lines:
        loop.evaluate()
        loop.evaluate()
    told = [line["reason"] for line in lines if line["event"] == "pending pod not repaired"]
    events = [text for _, reason, text in loop.recorder.events if reason == "PendingPodNotRepaired"]
    # An observer writes no Event either.
    (text,) = told if "mode" in change else events
    assert len(told) + len(loop.recorder.events) == 1
    assert expected in text
    assert OURS in text
    assert loop.counted() == {"reported": 1}
    assert not loop.api.patches
    loop.bed.decider.configure(settings())
    loop.loop.configure(settings())
    loop.evaluate()
    assert len(loop.api.patches) == 1


UNBOUNDED = {
    "no such API": {"policies/": NOT_FOUND},
    **{
        f"no {kind} {name}": {f"{kind}/{name}$": ApiError(404, "NotFound", "not found", {"name": name})}
        for kind in ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
        for name in NAMES
    },
    "may not see it": {"policies/": ApiError(403, "Forbidden", "forbidden")},
}


@pytest.mark.parametrize("case", UNBOUNDED)
def test_an_account_that_is_not_bounded_changes_nothing(case: str) -> None:
    """It reports, until the policies are there."""
    loop = Loop(lead=False)
    loop.api.problems = dict(UNBOUNDED[case])
    loop.loop.election.attempt()
    loop.loop.tick()
    loop.see(hanging(f"{SOURCE}:v1"))
    loop.evaluate()
    assert not loop.api.patches
    assert "ValidatingAdmissionPolicy" in loop.recorder.events[0][2]
    loop.api.problems = {}
    loop.now += 61
    loop.loop.election.attempt()
    loop.loop.tick()
    loop.evaluate()
    assert len(loop.api.patches) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [{"validationActions": ["Warn"]}, {"policyName": "another"}, {"validationActions": []}], ids=str)
def test_a_binding_that_does_not_deny_bounds_nothing(change: Object, name: str) -> None:
    """Neither does one of another policy."""
    loop = Loop(lead=False)
    loop.api.bindings[name] |= change
    loop.loop.election.attempt()
    loop.loop.tick()
    loop.see(hanging(f"{SOURCE}:v1"))
    loop.evaluate()
    assert not loop.api.patches


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_that_fails_open_bounds_nothing(name: str) -> None:
    """While kube-apiserver cannot evaluate it, anything could be changed."""
    loop = Loop(lead=False)
    loop.api.policies[name] = {"failurePolicy": "Ignore"}
    loop.loop.election.attempt()
    loop.loop.tick()
    loop.see(hanging(f"{SOURCE}:v1"))
    loop.evaluate()
    assert not loop.api.patches
    assert f"{name} does not say failurePolicy: Fail" in loop.recorder.events[0][2]


def test_an_api_server_that_does_not_answer_is_no_missing_policy() -> None:
    """Nothing is done, and nobody told, until it is known."""
    loop = Loop(lead=False)
    loop.api.problems = {"policies/": ApiUnreachable("no answer")}
    loop.loop.election.attempt()
    loop.loop.tick()
    loop.see(hanging(f"{SOURCE}:v1"))
    assert not loop.loop._looked
    loop.api.problems = {}
    loop.now += 6
    loop.loop.tick()
    assert loop.loop._looked
    loop.api.problems = {"policies/": ApiUnreachable("no answer")}
    loop.now += 61
    loop.loop.election.attempt()
    loop.loop.tick()
    loop.evaluate()
    assert len(loop.api.patches) == 1
