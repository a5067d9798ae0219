"""Recording: only status.tags changes, and only if nothing has changed since it was planned."""

import copy
import dataclasses
from typing import Any

import pytest
from mirrorstream.imagestream.model import WHOLE_REPOSITORY
from mirrorstream.kube.client import ApiError, ApiUnreachable
from mirrorstream_controller.plan import Action, TagPlan
from mirrorstream_controller.results import TagResult
from mirrorstream_controller.status_writer import StatusWriter, WriteOutcome, apply_results

Object = dict[str, Any]
SOURCE = "src.io/team/app:v1"
FAILED = {"type": "ImportSuccess", "status": "False", "generation": 2, "reason": "InternalError", "message": "m"}
OTHER = {"type": "MirrorImport", "status": "True"}
PLAN = TagPlan("v1", Action.IMPORT, "", SOURCE, 2)
SAME = dataclasses.replace(PLAN, newest_image="sha256:bb")


def result(digest: str = "sha256:bb", plan: TagPlan = PLAN, tag: str = "v1", **more: Any) -> TagResult:
    """An image to record."""
    return TagResult(plan, tag, digest, f"src.io/team/app@{digest}", "m.io/x:v1", "ImageDigestMirrorSet/m", "now", **more)


def stream(*status: Object, tags: list[Object] | None = None, **more: Any) -> Object:
    """A stream with a failed tag v1, and what `more` says."""
    spec_tags = [{"name": "v1", "from": {"kind": "DockerImage", "name": SOURCE}, "generation": 2}] if tags is None else tags
    return {
        "metadata": {"name": "app", "namespace": "ns", "uid": "u", "generation": 2, "annotations": {"a": "b"}},
        "spec": {"lookupPolicy": {"local": False}, "tags": spec_tags, **more},
        "status": {"dockerImageRepository": "reg/ns/app", "tags": list(status)},
    }


def event(image: str, generation: int = 1) -> Object:
    """An item that was there before."""
    return {"image": image, "dockerImageReference": f"src.io/team/app@{image}", "generation": generation, "created": "then"}


def elsewhere(image: str, generation: int = 1) -> Object:
    """An item with another reference."""
    return {**event(image, generation), "dockerImageReference": f"else.io/x@{image}"}


def failed(*items: Object) -> Object:
    """The status of the failed tag."""
    return {"tag": "v1", "items": list(items) or None, "conditions": [FAILED]}


NEW = {"created": "now", "dockerImageReference": "src.io/team/app@sha256:bb", "image": "sha256:bb", "generation": 2}


@pytest.mark.parametrize(
    ("before", "recorded", "after"),
    [
        pytest.param([failed()], result(), [{"tag": "v1", "items": [NEW]}], id="the-first-item"),
        pytest.param([], result(), [{"tag": "v1", "items": [NEW]}], id="no-status-yet"),
        pytest.param(
            [failed(event("sha256:aa"))],
            result(plan=TagPlan("v1", Action.IMPORT, "", SOURCE, 2, newest_image="sha256:aa")),
            [{"tag": "v1", "items": [NEW, event("sha256:aa")]}],
            id="in-front-of-the-history",
        ),
        pytest.param(
            [failed(event("sha256:bb"))],
            result(plan=TagPlan("v1", Action.IMPORT, "", SOURCE, 2, newest_image="sha256:bb")),
            [{"tag": "v1", "items": [event("sha256:bb", 2)]}],
            id="the-same-image-only-raises-the-generation",
        ),
        pytest.param(
            [failed(elsewhere("sha256:bb"), event("sha256:aa"))],
            result(plan=SAME, ours=frozenset({"then"})),
            [{"tag": "v1", "items": [{**NEW, "created": "then"}, event("sha256:aa")]}],
            id="the-same-image-under-another-reference-is-no-second-item",
        ),
        pytest.param(
            [failed(elsewhere("sha256:bb"))],
            result(plan=SAME, ours=frozenset({"earlier"})),
            [{"tag": "v1", "items": [elsewhere("sha256:bb", 2)]}],
            id="what-the-platform-imported-stays-as-it-is",
        ),
        pytest.param(
            [failed(elsewhere("sha256:bb"))],
            result(plan=dataclasses.replace(SAME, settled=False), ours=frozenset({"earlier"})),
            [{"tag": "v1", "items": [NEW, elsewhere("sha256:bb")]}],
            id="also-where-the-user-asked-for-another-source",
        ),
        pytest.param(
            [failed(event("sha256:bb"))],
            result(plan=dataclasses.replace(SAME, settled=False)),
            [{"tag": "v1", "items": [event("sha256:bb", 2)]}],
            id="of-equal-items-there-are-no-two",
        ),
        pytest.param(
            [{"tag": "v1", "items": None, "conditions": [FAILED, OTHER]}],
            result(),
            [{"tag": "v1", "items": [NEW], "conditions": [OTHER]}],
            id="other-conditions-stay",
        ),
    ],
)
def test_what_a_recording_changes(before: list[Object], recorded: TagResult, after: list[Object]) -> None:
    """And every other byte stays as it was."""
    document = stream(*before)
    original = copy.deepcopy(document)
    applied = apply_results(document, [recorded])
    assert applied.recorded == (recorded,)
    assert document["status"]["tags"] == after
    document["status"]["tags"] = original["status"]["tags"]
    assert document == original


@pytest.mark.parametrize(
    ("document", "why"),
    [
        pytest.param(stream(failed(), tags=[]), "changed", id="the-tag-is-gone"),
        pytest.param(
            stream(failed(), tags=[{"name": "v1", "from": {"kind": "DockerImage", "name": "x.io/y"}, "generation": 2}]),
            "changed",
            id="other-source",
        ),
        pytest.param(
            stream(failed(), tags=[{"name": "v1", "from": {"kind": "DockerImage", "name": SOURCE}, "generation": 3}]),
            "generation",
            id="newer",
        ),
        pytest.param(
            stream(
                failed(), tags=[{"name": "v1", "from": {"kind": "DockerImage", "name": SOURCE}, "generation": 2, "reference": True}]
            ),
            "changed",
            id="a-reference-now",
        ),
        pytest.param(stream({"tag": "v1", "items": [event("sha256:cc", 2)]}), "another image", id="the-platform-was-faster"),
    ],
)
def test_what_no_longer_belongs_there_is_left_out(document: Object, why: str) -> None:
    """The stream is read just before it is written, and checked again."""
    original = copy.deepcopy(document)
    applied = apply_results(document, [result()])
    assert not applied.recorded
    assert why in applied.skipped[0][1]
    assert document == original


def test_tags_that_follow_move_in_the_same_write_whatever_their_order() -> None:
    """Chains too; a cycle ends."""
    follow = [
        {"name": name, "from": {"kind": "ImageStreamTag", "name": source}, "generation": 1}
        for name, source in (("a", "b"), ("b", "app:v1"), ("c", "other:v1"), ("d", "e"), ("e", "d"))
    ]
    document = stream(failed(), tags=[*follow, {"name": "v1", "from": {"kind": "DockerImage", "name": SOURCE}, "generation": 2}])
    apply_results(document, [result()])
    assert {tag["tag"]: tag["items"][0]["image"] for tag in document["status"]["tags"]} == dict.fromkeys(
        ("v1", "a", "b"), "sha256:bb"
    )


def test_a_follower_that_the_platform_moved_keeps_its_reference() -> None:
    """It has the image already; only its generation rises, as that of the tag that it follows."""
    follow = {"name": "a", "from": {"kind": "ImageStreamTag", "name": "v1"}, "generation": 1}
    document = stream(failed(), {"tag": "a", "items": [elsewhere("sha256:bb")]})
    document["spec"]["tags"].append(follow)
    apply_results(document, [result()])
    assert document["status"]["tags"] == [{"tag": "v1", "items": [NEW]}, {"tag": "a", "items": [elsewhere("sha256:bb", 2)]}]


def test_a_whole_repository_is_recorded_in_the_status_only() -> None:
    """At the stream's generation; a tag that the spec asks for is not the repository's."""
    plan = TagPlan(WHOLE_REPOSITORY, Action.IMPORT, "", "src.io/team/app", 2)
    document = stream(failed(), dockerImageRepository="src.io/team/app")
    applied = apply_results(document, [result(plan=plan, tag="x"), result(plan=plan, tag="v1")])
    assert [r.tag for r in applied.recorded] == ["x"]
    assert document["status"]["tags"][1] == {"tag": "x", "items": [NEW]}


class Server:
    """An API server with one stream; `answers` to PUTs are errors to raise, None for success, or 'lost' for a lost answer."""

    def __init__(self, document: Object, *answers: Any) -> None:
        self.document, self.answers, self.calls = document, list(answers), []  # type: ignore[var-annotated]

    def get(self, path: str) -> Object:
        """GET."""
        self.calls.append("GET")
        return copy.deepcopy(self.document)

    def request(self, method: str, path: str, body: Object) -> Object:
        """PUT."""
        self.calls.append(method)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        self.document = copy.deepcopy(body)
        if answer == "lost":
            raise ApiUnreachable("the answer was lost")
        return body


def record(server: Server, uid: str = "u") -> tuple[WriteOutcome, list[str]]:
    """Record one result; the outcome and the calls."""
    recorder = StatusWriter(server, sleep=lambda seconds: None)  # type: ignore[arg-type]
    return recorder.record("ns", "app", uid, [result()])[0], server.calls


@pytest.mark.parametrize(
    ("answers", "outcome", "calls"),
    [
        ([], WriteOutcome.WRITTEN, ["GET", "PUT"]),
        ([ApiError(409, "Conflict", "")], WriteOutcome.WRITTEN, ["GET", "PUT", "GET", "PUT"]),
        ([ApiError(409, "Conflict", "")] * 9, WriteOutcome.CONFLICT, ["GET", "PUT"] * 5),
        (["lost"], WriteOutcome.WRITTEN, ["GET", "PUT", "GET"]),
        ([ApiUnreachable("refused")], WriteOutcome.WRITTEN, ["GET", "PUT", "GET", "PUT"]),
    ],
    ids=["once", "conflict", "conflicts", "lost-answer", "unreachable"],
)
def test_one_get_and_one_put_unless_something_goes_wrong(answers: list[Any], outcome: WriteOutcome, calls: list[str]) -> None:
    """And a write whose answer was lost is not made twice."""
    assert record(Server(stream(failed()), *answers)) == (outcome, calls)


def test_a_stream_with_another_uid_is_not_written() -> None:
    """It was deleted and made again."""
    assert record(Server(stream(failed())), uid="other") == (WriteOutcome.GONE, ["GET"])


def test_a_refused_write_is_the_callers_to_tell() -> None:
    """A LimitRange, say."""
    with pytest.raises(ApiError, match="limit"):
        record(Server(stream(failed()), ApiError(403, "Forbidden", "limit")))
