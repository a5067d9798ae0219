"""What becomes of a pod that hangs when the API server refuses its change: for good, for now, or because a right is gone."""

import pytest
from mirrorstream.kube.client import ApiError
from mirrorstream_webhook.pending_pods.repair import REFUSED_SECONDS

from tests.webhook.builders import OURS, SOURCE, hanging
from tests.webhook.pending_loop import Loop


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ('pods "pod" is forbidden: unable to validate against any security context constraint: []', "create the pod again"),
        ('pods "pod" is forbidden: exceeded quota: count/pods', "exceeded quota"),
        ('admission webhook "policy.example.com" denied the request: no', "policy.example.com"),
    ],
    ids=["scc", "quota", "another policy"],
)
def test_a_refusal_is_told_once_and_not_repeated(message: str, said: str) -> None:
    """Its owner has to make the pod again; events of the pod bring no further attempt."""
    loop = Loop()
    attempts = []

    def refuse(path: str) -> None:
        attempts.append(loop.now)
        raise ApiError(403, "Forbidden", message)

    loop.api.on_patch = refuse
    for _ in range(1300):
        loop.see(hanging(f"{SOURCE}:v1"))
        loop.evaluate()
        loop.now += 0.5
        loop.loop.election.attempt()
    assert len(attempts) == 2, "once, and once more after ten minutes"
    ((_, reason, text),) = loop.recorder.events
    assert reason == "PendingPodNotRepaired"
    assert said in text
    assert loop.counted() == {"refused": 1, "reported": 1}


POLICY = "ValidatingAdmissionPolicy 'mirrorstream-pending-pods-images'"
STARTING = {
    "unresolved": f"{POLICY} denied request: failed to configure policy: failed to find resource referenced by paramKind",
    "not synced": f"{POLICY} with binding 'b' denied request: paramKind not yet synced to use for admission",
    "plugins": "not yet ready to handle request",
}


def refusing(said: str) -> Loop:
    """A loop with a pod whose patch the API server refuses."""
    loop = Loop()

    def refuse(path: str) -> None:
        raise ApiError(422, "Invalid", f'pods "pod" is forbidden: {said}')

    loop.api.on_patch = refuse
    loop.see(hanging(f"{SOURCE}:v1"))
    return loop


def test_the_policys_own_refusal_counts_as_one_too() -> None:
    """The API server says 422 for a policy that names no reason."""
    loop = refusing(f"{POLICY} with binding 'b' denied request: the webhook's account may change pending pods only")
    loop.evaluate()
    assert [reason for _, reason, _ in loop.recorder.events] == ["PendingPodNotRepaired"]


@pytest.mark.parametrize("case", STARTING)
def test_a_kube_apiserver_that_starts_refuses_no_pod(case: str) -> None:
    """It cannot decide yet: the pod is tried again soon, and its owner is told nothing."""
    loop = refusing(STARTING[case])
    assert loop.evaluate() < 1
    loop.api.on_patch = lambda path: None
    loop.now += 1
    loop.evaluate()
    assert len(loop.api.patches) == 1
    assert [reason for _, reason, _ in loop.recorder.events] == ["PendingPodRepaired"]


def test_a_policy_that_is_never_resolved_refuses_the_pod() -> None:
    """A kube-apiserver has started within half a minute: after a whole one the owner is told."""
    loop = refusing(STARTING["unresolved"])
    began = loop.now
    while not loop.recorder.events:
        loop.now += loop.evaluate()
        loop.loop.election.attempt()
    assert 60 < loop.now - began - REFUSED_SECONDS < 120
    assert loop.counted() == {"failed": 7, "refused": 1, "reported": 1}


def test_without_parameters_the_policy_refuses_the_pod() -> None:
    """There is no Image config: that is no matter of a moment."""
    loop = refusing(f"{POLICY} with binding 'b' denied request: failed to configure binding: no params found for policy binding")
    loop.evaluate()
    assert [reason for _, reason, _ in loop.recorder.events] == ["PendingPodNotRepaired"]


def test_without_the_right_to_patch_pods_are_reported() -> None:
    """It is no pod's own trouble: each is told what would become of it, and none to be made again."""
    loop = Loop()

    def refuse(path: str) -> None:
        user = "system:serviceaccount:mirrorstream:mirrorstream-webhook"
        raise ApiError(403, "Forbidden", f'pods "pod" is forbidden: User "{user}" cannot patch resource "pods" in API group ""')

    loop.api.on_patch = refuse
    loop.see(hanging(f"{SOURCE}:v1"))
    loop.evaluate()
    loop.evaluate()
    loop.evaluate()
    ((_, _, text),) = loop.recorder.events
    assert "may not patch pods" in text
    assert OURS in text
    assert len([path for path in loop.api.asked if "/pods/" in path]) == 1
    loop.now += 61
    loop.loop.election.attempt()
    loop.api.on_patch = lambda path: None
    loop.evaluate()
    assert len(loop.api.patches) == 1
