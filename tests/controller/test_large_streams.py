"""A stream as large as etcd takes it: nothing of its history is lost, and the work for it grows no faster than the history."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from mirrorstream.diagnose.explain_stream import explain_stream
from mirrorstream.diagnose.tag_status import ControllerView, tag_states
from mirrorstream.imagestream.model import imagestream_from
from mirrorstream.imagestream.outcomes import AttemptHistory
from mirrorstream_webhook.claims import read_claims
from mirrorstream_webhook.index import Index

from e2e.bench.counts import instructions
from tests.controller.bed import KEY, Bed, storing
from tests.controller.builders import POLICY, Object, failure, stream

ITEMS = 10_000
LARGE = 1_400_000
"""Bytes; etcd takes 1.5 MB."""
COUNTED, PART = 1_000, 10
"""To count takes a hundred times longer than to run."""
FASTER = 1.5
"""By so much more than its size the work for a large stream may exceed that for a part of it."""


def large(items: int) -> Object:
    """A stream whose tag fails, and had so many images before."""
    history = [
        {
            "created": "x",
            "dockerImageReference": f"src.io/a@sha256:{number:064x}",
            "image": f"sha256:{number:064x}",
            "generation": 2,
        }
        for number in range(items, 0, -1)
    ]
    return stream({"items": history, "conditions": [failure(3)]}, {"generation": 3, "referencePolicy": {"type": "Local"}})


def heal(document: Object) -> Object:
    """What the controller makes of a stream."""
    bed = Bed(controller={"replaceAfterSeconds": 0})
    platform = storing(bed, document)
    bed.see(KEY, imagestream_from(document))
    bed.settle()
    (written,) = platform.written
    return written


def index(document: Object) -> Index:
    """What the webhook knows of a stream."""
    found = Index()
    document["status"]["dockerImageRepository"] = "registry/ns/app"
    found.apply(None, read_claims(json.dumps(document).encode()))
    return found


def show(document: Object) -> Any:
    """What `status` and `explain` tell of a stream."""
    found = imagestream_from(document)
    states = {state.tag: state for state in tag_states(found, POLICY, AttemptHistory(), ControllerView())}
    return explain_stream(POLICY, found, states)


def test_the_history_stays_as_it_is() -> None:
    """The mirror's image comes in front of ten thousand others."""
    document = large(ITEMS)
    assert len(json.dumps(document)) > LARGE
    before = copy.deepcopy(document)
    (written,) = heal(document)["status"]["tags"]
    assert written["items"][0]["image"] == "sha256:aa"
    assert written["items"][1:] == before["status"]["tags"][0]["items"]
    assert "conditions" not in written


def test_pods_find_every_image_of_the_history() -> None:
    """The oldest, too."""
    assert index(large(ITEMS)).references() >= ITEMS


@pytest.mark.parametrize("work", [heal, index, show])
def test_the_work_grows_with_the_history_and_no_faster(work: Callable[[Object], Any]) -> None:
    """Of the controller, the webhook and the commands, in the interpreter's instructions."""
    part, whole = large(COUNTED // PART), large(COUNTED)
    work(copy.deepcopy(part))
    few = instructions(lambda number: work(part), 1)
    assert instructions(lambda number: work(whole), 1) <= FASTER * PART * few
