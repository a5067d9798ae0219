"""Reading from an API server that shows less than everything, and is asked for no more than is needed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from mirrorstream.diagnose.tag_status import ControllerView, State, TagState
from mirrorstream.imagestream.failures import Bypass
from mirrorstream.kube.client import ApiError, load_client
from mirrorstream.kube.pager import METADATA_ONLY, read_all
from mirrorstream_cli.reader import MAX_IMAGE_TAGS, MAX_SINGLE_IMAGES, Reader

from tests.kube.conftest import Request, Script, script

__all__ = ["script"]  # a fixture
Answer = Callable[[Request], None]
THEN = "2027-01-15T08:00:00Z"
THROUGH = {"annotations": {"mirrorstream.github.io/recorded": json.dumps({THEN: "m.io:5000\x1b[2J"})}}


@pytest.fixture
def reader(script: Script, tmp_path: Path) -> Reader:
    """A reader of one namespace of it."""
    return Reader(load_client(str(script.kubeconfig(tmp_path / "kubeconfig")), in_cluster=False), "ns")


def routes(**answers: Any) -> Answer:
    """Answer by the last part of the path: with items, or with the status that is refused with; with nothing elsewhere."""

    def handle(request: Request) -> None:
        name = urlsplit(request.path).path.rpartition("/")[2]
        found = answers.get(name, 404)
        if isinstance(found, int):
            request.fail(found, {403: "Forbidden", 404: "NotFound"}.get(found, ""), f"{name}: {found}")
        else:
            request.answer(200, {"metadata": {}, "items": found} if isinstance(found, list) else found)

    return handle


def well(number: int) -> TagState:
    """A tag that is well."""
    return TagState("ns", "app", f"v{number}", State.IMPORTED, "src.io/a:1", digest=f"sha256:{number}", created=THEN)


def test_lists_are_read_page_by_page(script: Script, reader: Reader) -> None:
    """10,000 streams do not come in one answer; one that cannot be read does not hide the others."""

    def handle(request: Request) -> None:
        query = parse_qs(urlsplit(request.path).query)
        assert query["limit"] == ["500"]
        if "continue" in query:
            request.answer(200, {"metadata": {}, "items": [{"metadata": {"name": 7}}, {"metadata": {"name": "b"}}]})
        else:
            request.answer(200, {"metadata": {"continue": "more"}, "items": [{"metadata": {"name": "a"}}]})

    script.handle = handle
    assert [stream.metadata.name for stream in reader.streams()] == ["a", "b"]
    assert len(reader.notes) == 1
    assert "an ImageStream cannot be read and is left out" in reader.notes[0]


@pytest.mark.parametrize(("expired", "works"), [(1, True), (2, True), (3, False)])
def test_a_list_whose_pages_expire_is_begun_again(script: Script, reader: Reader, expired: int, works: bool) -> None:
    """A bounded number of times."""
    left = [expired]

    def handle(request: Request) -> None:
        if "continue" not in request.path:
            request.answer(200, {"metadata": {"continue": "more"}, "items": [{"metadata": {"name": "a"}}]})
        elif left[0]:
            left[0] -= 1
            request.fail(410, "Expired", "too old")
        else:
            request.answer(200, {"metadata": {}, "items": [{"metadata": {"name": "b"}}]})

    script.handle = handle
    if works:
        assert [stream.metadata.name for stream in reader.streams()] == ["a", "b"]
    else:
        with pytest.raises(ApiError, match="too old"):
            reader.streams()


def test_streams_that_may_not_be_listed_are_an_error(script: Script, reader: Reader) -> None:
    """Without them there is nothing to tell."""
    script.handle = routes(imagestreams=403)
    with pytest.raises(ApiError):
        reader.streams()


def test_events_are_those_of_streams(script: Script, reader: Reader) -> None:
    """The API server picks them; who may not list them gets a note."""
    script.handle = routes(events=[])
    reader.history("app")
    assert "fieldSelector=involvedObject.kind%3DImageStream%2CinvolvedObject.name%3Dapp" in script.requests[0][1]
    assert not reader.notes
    script.handle = routes(events=403)
    reader.history()
    assert reader.notes == ["you may not list Events, so what mirrorstream tried is not known"]


IDMS = [{"metadata": {"name": "m"}, "spec": {"imageDigestMirrors": [{"source": "a.io", "mirrors": ["b.io"]}]}}]


@pytest.mark.parametrize(
    ("answers", "policy", "known", "says"),
    [
        ({"imagedigestmirrorsets": IDMS, "images": []}, True, True, []),
        ({"imagedigestmirrorsets": IDMS, "images": 403}, True, True, ["what the cluster refuses to import is not known"]),
        (
            {"imagedigestmirrorsets": 403, "images": []},
            False,
            False,
            ["imagedigestmirrorsets.config.openshift.io:"],
        ),
        ({}, True, True, []),
    ],
    ids=["all", "no-image-config", "no-mirror-sets", "nothing-is-served"],
)
def test_rules(script: Script, reader: Reader, answers: Any, policy: bool, known: bool, says: list[str]) -> None:
    """A kind that may not be listed could have the rule that counts: then no rule is claimed to be absent."""
    script.handle = routes(**answers)
    found, rules = reader.rules(ControllerView())
    assert (found is not None, rules.known) == (policy, known)
    assert len(reader.notes) == len(says)
    assert all(text in note for text, note in zip(says, reader.notes, strict=True))


@pytest.mark.parametrize(
    ("config", "bypass", "known", "says"),
    [
        ("mirrors: {bypassNotFound: true}", Bypass(not_found=True), True, []),
        ("mirrors: {bypassDenied: false}", Bypass(denied=False), True, []),
        ("mode: observe", Bypass(), True, ["mirrorstream observes only (mode: observe): it heals nothing"]),
        ("mirrors: {nonsense: 1}", Bypass(), False, ["ConfigMap mirrorstream-config: mirrors.nonsense: unknown field"]),
        (403, Bypass(), False, []),
        (404, Bypass(), False, []),
    ],
)
def test_the_controllers_configuration(
    script: Script, reader: Reader, config: Any, bypass: Bypass, known: bool, says: list[str]
) -> None:
    """Where it may be read; otherwise the default is taken, which is not known to be right."""
    answer = config if isinstance(config, int) else {"data": {"config.yaml": config}}
    script.handle = routes(**{"mirrorstream-config": answer})
    controller_view, found = reader.controller_view()
    assert (controller_view.bypass, found, reader.notes) == (bypass, known, says)


@pytest.mark.parametrize("tags", [1, MAX_SINGLE_IMAGES])
def test_few_images_are_asked_for_one_by_one(script: Script, reader: Reader, tags: int) -> None:
    """Any viewer of the namespace may; no list has the annotation."""

    def handle(request: Request) -> None:
        number = request.path.rpartition(":v")[2]
        request.answer(200, {"image": {"metadata": {"name": f"sha256:{number}", **(THROUGH if number == "0" else {})}}})

    script.handle = handle
    assert reader.origins(well(number) for number in range(tags)) == {("sha256:0", THEN): "m.io:5000"}
    assert len(script.requests) == tags


def test_an_item_of_the_platform_did_not_come_through_a_mirror(script: Script, reader: Reader) -> None:
    """Though another tag's item with the same image did: an Image is one for all tags that have it."""
    script.handle = lambda request: request.answer(200, {"image": {"metadata": {"name": "sha256:0", **THROUGH}}})
    others = dataclasses.replace(well(0), tag="other", created="2027-01-15T09:00:00Z")
    assert reader.origins([well(0), others]) == {("sha256:0", THEN): "m.io:5000"}


def test_many_images_are_listed_without_their_contents(script: Script, reader: Reader) -> None:
    """An Image is large; its metadata are not."""
    asked: list[str] = []

    def handle(request: Request) -> None:
        asked.append(request.headers["Accept"])
        items = [{"metadata": {"name": f"sha256:{n}", **THROUGH}} for n in (1, 9999)]
        request.answer(200, {"metadata": {}, "items": items})

    script.handle = handle
    assert reader.origins(well(number) for number in range(MAX_SINGLE_IMAGES + 1)) == {("sha256:1", THEN): "m.io:5000"}
    assert asked == [METADATA_ONLY]


def test_who_may_not_list_images_asks_for_a_bounded_number(script: Script, reader: Reader) -> None:
    """And is told that not all were looked at."""

    def handle(request: Request) -> None:
        if request.path.partition("?")[0].endswith("/images"):
            request.fail(403, "Forbidden", "no")
        else:
            request.answer(200, {"image": {"metadata": {"name": "sha256:1"}}})

    script.handle = handle
    assert reader.origins(well(number) for number in range(MAX_IMAGE_TAGS + 50)) == {}
    assert len(script.requests) == MAX_IMAGE_TAGS + 1
    total = MAX_IMAGE_TAGS + 50
    assert reader.notes == [
        f"you may not list Images: only {MAX_IMAGE_TAGS} of {total} imported tags were checked for their mirror"
    ]


@pytest.mark.parametrize(("status", "notes"), [(403, 1), (404, 0)])
def test_images_that_may_not_be_seen_are_a_note(script: Script, reader: Reader, status: int, notes: int) -> None:
    """One, however many there are; what is gone is none."""
    script.handle = routes(**{f"app:v{number}": status for number in range(5)})
    assert reader.origins(well(number) for number in range(5)) == {}
    assert len(reader.notes) == notes


def test_nothing_is_asked_where_nothing_is_well(script: Script, reader: Reader) -> None:
    """A cluster of failures is quick to tell of."""
    assert reader.origins([]) == {}
    assert not script.requests


def test_another_form_of_an_answer_can_be_asked_for(script: Script, reader: Reader) -> None:
    """The client's usual one is plain JSON."""
    asked: list[str] = []

    def handle(request: Request) -> None:
        asked.append(request.headers["Accept"])
        request.answer(200, {"items": None})

    script.handle = handle
    read_all(reader.client, "/x", json.loads)
    read_all(reader.client, "/x", json.loads, accept="application/other")
    assert asked == ["application/json", "application/other"]
