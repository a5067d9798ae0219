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


DENIED = "pods \"pod\" is forbidden: ValidatingAdmissionPolicy 'mirrorstream-pending-pods-images' denied request:"
STARTING = {
    "unresolved": (422, f"{DENIED} failed to configure policy: failed to find resource referenced by paramKind"),
    "not synced": (422, f"{DENIED} failed to configure binding: paramKind kind `x` not yet synced to use for admission"),
    "plugins": (403, 'pods "pod" is forbidden: not yet ready to handle request'),
}
FOR_GOOD = {
    "a policy with a reason": (403, f"{DENIED} the webhook's account may change pending pods only"),
    "a policy without a reason": (422, f"{DENIED} failed expression: false"),
    "no Image config": (422, f"{DENIED} failed to configure binding: no params found for policy binding"),
    "no room": (422, 'Pod "pod" is invalid: metadata.annotations: Too long: may not be more than 262144 bytes'),
}


def refusing(status: int, said: str) -> Loop:
    """A loop with a pod whose patch the API server refuses."""
    loop = Loop()

    def refuse(path: str) -> None:
        raise ApiError(status, "Invalid" if status == 422 else "Forbidden", said)

    loop.api.on_patch = refuse
    loop.see(hanging(f"{SOURCE}:v1"))
    return loop


@pytest.mark.parametrize("case", FOR_GOOD)
def test_what_is_no_matter_of_a_moment_is_told_at_once(case: str) -> None:
    """Some of it comes as a 422, as does a conflict."""
    loop = refusing(*FOR_GOOD[case])
    assert loop.evaluate() == REFUSED_SECONDS
    assert [reason for _, reason, _ in loop.recorder.events] == ["PendingPodNotRepaired"]


@pytest.mark.parametrize("case", STARTING)
def test_a_kube_apiserver_that_starts_refuses_no_pod(case: str) -> None:
    """It cannot decide yet: the pod is tried again soon, and its owner is told nothing."""
    loop = refusing(*STARTING[case])
    assert loop.evaluate() < 1
    loop.api.on_patch = lambda path: None
    loop.now += 1
    loop.evaluate()
    assert len(loop.api.patches) == 1
    assert [reason for _, reason, _ in loop.recorder.events] == ["PendingPodRepaired"]


def test_a_policy_that_is_never_resolved_refuses_the_pod() -> None:
    """A kube-apiserver has started within half a minute: after a whole one the owner is told."""
    loop = refusing(*STARTING["unresolved"])
    began = loop.now
    while not loop.recorder.events:
        loop.now += loop.evaluate()
        loop.loop.election.attempt()
    assert 60 < loop.now - began - REFUSED_SECONDS < 120
    assert loop.counted() == {"failed": 7, "refused": 1, "reported": 1}


def test_failures_of_another_kind_do_not_count_as_a_start() -> None:
    """While a cluster comes up, webhooks of others answer first with errors; then kube-apiserver has still half a minute."""
    loop = refusing(500, "failed calling webhook")
    for _ in range(10):
        loop.now += loop.evaluate()
        loop.loop.election.attempt()
    loop.api.on_patch = refusing(*STARTING["unresolved"]).api.on_patch
    loop.now += loop.evaluate()
    assert not loop.recorder.events
    assert loop.counted() == {"failed": 11}


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
