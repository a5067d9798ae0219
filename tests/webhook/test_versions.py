"""Never another version: an item that stayed while its tag's `from` changed stands for nothing, whatever came before and after."""

import itertools

import pytest
from mirrorstream_webhook.claims import StreamClaims

from tests.webhook.builders import NOW, REGISTRY, SOURCE, Bed, digest, imported, stream, tag

V1, V2 = f"{SOURCE}:v1", f"{SOURCE}:v2"
APP = f"{REGISTRY}/team/app"
REFUSED = f"Internal error occurred: {V2}: dial tcp 10.0.0.1:443: connect: connection refused"


def app(source: str, *numbers: int, generation: int = 1, item: int = 1, failed: bool = False, uid: str = "1") -> StreamClaims:
    """The stream with one tag: the digests of its history, the tag's generation and that of its newest item."""
    items = [imported(number, generation=item) for number in numbers]
    return stream(
        "app", tag("v", source, *items, generation=generation, failure=REFUSED if failed else ""), namespace="team", uid=uid
    )


FIRST = app(V1, 1)
BUMPED = app(V2, 1, generation=2)
FAILED = app(V2, 1, generation=3, failed=True)
HEALED = app(V2, 2, 1, generation=3, item=3)
BACK = app(V1, 1, generation=4)


def seen(*states: StreamClaims) -> Bed:
    """What the webhook knows after it saw these states of the stream, one after the other."""
    bed = Bed()
    for old, new in itertools.pairwise((None, *states)):
        bed.index.apply(old, new)
    return bed


@pytest.mark.parametrize("states", [(FIRST, BUMPED), (FIRST, FAILED), (FIRST, BUMPED, FAILED)], ids=["pending", "failed", "both"])
def test_after_a_bump_the_old_image_is_not_served_for_the_new_version(states: tuple[StreamClaims, ...]) -> None:
    """Neither by digest nor by tag, by no way, and however long the failure lasts; who names the digest gets it."""
    bed = seen(*states)
    bed.now = NOW + 86400
    assert bed.image(V2) == ("earlier-image", "the tag's image is of an earlier from", "")
    assert bed.image(V2, imagePullSecrets=[])[2] == ""
    assert bed.image(f"{SOURCE}@{digest(1)}")[2] == f"{APP}@{digest(1)}"
    assert bed.image(V1)[0] == "no-stream"
    bed.index.apply(states[-1], HEALED)
    assert bed.image(V2)[2] == f"{APP}@{digest(2)}"


def test_a_scheduled_import_that_fails_at_each_turn_keeps_its_image() -> None:
    """The same `from` all the time: each failure raises the generation, and the image serves."""
    turns = [app(V1, 1, generation=n, item=1, failed=True) for n in (2, 3, 5)]
    bed = seen(FIRST, *turns)
    assert bed.image(V1)[2] == f"{APP}@{digest(1)}"
    # An import that was asked for is no change of `from` either.
    bed.index.apply(turns[-1], app(V1, 1, generation=6))
    assert bed.image(V1)[2] == f"{APP}@{digest(1)}"


def test_from_goes_back_and_forth() -> None:
    """Back at the `from` that the item came from, it serves again; forth again, it does not."""
    bed = seen(FIRST, BUMPED, BACK)
    assert bed.image(V1)[2] == f"{APP}@{digest(1)}"
    bed.index.apply(BACK, app(V2, 1, generation=5))
    assert bed.image(V2)[0] == "earlier-image"


def test_another_tag_of_the_stream_or_of_another_one_serves_what_it_has() -> None:
    """One tag that waits is no claim, and hides none."""
    both = [
        stream("app", tag("a", source, imported(1), generation=generation), tag("b", V2, imported(5)), namespace="team")
        for source, generation in ((V1, 1), (V2, 2))
    ]
    assert seen(*both).image(V2)[2] == f"{APP}@{digest(5)}"
    bed = seen(FIRST, BUMPED)
    bed.index.apply(None, stream("later", tag("x", V2, failure=REFUSED), namespace="team"))
    assert bed.image(V2)[::2] == ("pending", f"{REGISTRY}/team/later:x")


def test_a_stream_that_was_made_again_has_no_past() -> None:
    """Another uid: what was known of the one before says nothing."""
    bed = seen(FIRST, BUMPED)
    bed.index.apply(BUMPED, app(V2, 1, uid="2"))
    assert bed.image(V2)[2] == f"{APP}@{digest(1)}"


def test_what_was_changed_before_the_start_waits_for_the_controller() -> None:
    """A webhook that just started cannot know: pending is not served, a failure serves after a minute."""
    assert seen(BUMPED).image(V2)[0] == "earlier-image"
    bed = seen(FAILED)
    item, status = tag("v", V2, imported(1), generation=3, failure=REFUSED)
    status["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    bed.index.apply(FAILED, young := stream("app", (item, status), namespace="team"))
    reason = "the tag's image may be of an earlier from, until it is imported again"
    for now, result in ((NOW + 1, "earlier-image"), (NOW + 59, "earlier-image"), (NOW + 61, "rewritten")):
        bed.now = now
        assert bed.image(V2)[:2] == (result, reason if result == "earlier-image" else "the tag has this image")
    # What was not known is known once it is imported.
    bed.now = NOW + 1
    bed.index.apply(young, HEALED)
    assert bed.image(V2)[2] == f"{APP}@{digest(2)}"


def test_a_tag_that_failed_once_is_known_at_the_start() -> None:
    """A failure alone raises the generation by one: nothing was changed since, and a restart does not hold pods up."""
    bed = seen(app(V1, 1, generation=2, failed=True))
    assert bed.image(V1)[2] == f"{APP}@{digest(1)}"


def test_a_digest_never_becomes_another_digest() -> None:
    """Legacy imported one architecture's manifest of the list: the pod that names the list keeps it."""
    bed = Bed(stream("app", tag("v1", f"{SOURCE}@{digest(9)}", imported(1))))
    result, reason, target = bed.image(f"{SOURCE}@{digest(9)}")
    assert (result, target) == ("architecture", "")
    assert reason == f"the tag has one architecture's image (importMode Legacy), {digest(1)}"
    assert bed.image(f"{SOURCE}@{digest(1)}")[2] == f"{REGISTRY}/openshift/app@{digest(1)}"
    # Another tag that has that very digest serves it.
    bed.index.apply(None, stream("whole", tag("v1", V1, imported(9))))
    assert bed.image(f"{SOURCE}@{digest(9)}")[2] == f"{REGISTRY}/openshift/whole@{digest(9)}"
