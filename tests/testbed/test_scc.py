"""The imitated SecurityContextConstraints admission: which pods it refuses, and what it writes on the others."""

from typing import Any

import pytest

from e2e.testbed.controllers.scc import OWN_RIGHT, SCC, SUBJECT, admitted, response

ADMINISTRATOR, OTHER = ["system:masters"], ["system:serviceaccounts"]
BY_USER, BY_ACCOUNT = {SCC: "restricted-v2", SUBJECT: "user"}, {SCC: "restricted-v2", SUBJECT: "serviceaccount"}
BY_OWN_RIGHT = {SCC: "anyuid", SUBJECT: "user"}
Object = dict[str, Any]


def pod(image: str = "a", *, own: bool = False, **spec: Any) -> Object:
    """A pod; `own`: admitted by its creator's own right."""
    annotations = {OWN_RIGHT: "true"} if own else {}
    return {"metadata": {"name": "p", "annotations": annotations}, "spec": {"containers": [{"image": image}], **spec}}


def request(groups: list[str], new: Object, old: Object | None = None) -> Object:
    """A review's request."""
    return {"uid": "1", "userInfo": {"groups": groups}, "object": new, "oldObject": old}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(request(ADMINISTRATOR, pod()), BY_USER, id="an-administrators-pod"),
        pytest.param(request(OTHER, pod()), BY_ACCOUNT, id="a-controllers-pod"),
        pytest.param(request(OTHER, pod("b"), pod()), BY_ACCOUNT, id="a-changed-image"),
        pytest.param(request(OTHER, pod(), pod()), {}, id="an-unchanged-spec"),
        pytest.param(request(ADMINISTRATOR, pod(own=True)), BY_OWN_RIGHT, id="by-own-right"),
        pytest.param(request(OTHER, pod(own=True)), None, id="without-that-right"),
        pytest.param(request(OTHER, pod("b", own=True), pod(own=True)), None, id="changed-by-another"),
        pytest.param(request(OTHER, pod("b"), pod(own=True)), None, id="changed-by-another-who-removes-the-annotation"),
        pytest.param(request(ADMINISTRATOR, pod("b", own=True), pod(own=True)), BY_OWN_RIGHT, id="changed-by-an-administrator"),
        pytest.param(request(OTHER, pod(own=True), pod(own=True)), {}, id="labels-of-it-by-another"),
        pytest.param(request(OTHER, pod("b", own=True, os={"name": "windows"}), pod(own=True)), {}, id="windows"),
    ],
)
def test_who_may_change_what(asked: Object, expected: dict[str, str] | None) -> None:
    """None is a refusal, with the platform's text."""
    assert admitted(asked) == expected
    answer = response(asked)
    assert answer["allowed"] is (expected is not None)
    if expected is None:
        assert answer["status"]["code"] == 403
        assert "unable to validate against any security context constraint" in answer["status"]["message"]
    else:
        assert bool(answer.get("patch")) is bool(expected)
