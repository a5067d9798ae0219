"""An import that nobody wants any more, while the one that is wanted waits for its turn."""

from collections.abc import Callable
from typing import Any

import pytest
from mirrorstream.imagestream.model import imagestream_from
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream_controller.stream_state import Phase

from tests.controller.bed import FAILED, KEY, WELL, Bed, Platform
from tests.controller.builders import failure, stream


def rules(*mirrors: str) -> MirrorPolicy:
    """A digest mirror set for the source."""
    spec = {"imageDigestMirrors": [{"source": "src.io", "mirrors": list(mirrors)}]}
    return MirrorPolicy.from_objects([{"kind": "ImageDigestMirrorSet", "metadata": {"name": "m"}, "spec": spec}])


class Hanging(Platform):
    """A platform that calls a function of the test during its first request."""

    def __init__(self) -> None:
        super().__init__()
        self.during_request: Callable[[], None] | None = None

    def request(self, *args: Any, **more: Any) -> Any:
        """A dry run, or an Image."""
        if args[1].endswith("/images"):
            return {}
        if self.during_request:
            during_request, self.during_request = self.during_request, None
            during_request()
        return super().request(*args, **more)


def remove_mirror(bed: Bed) -> None:
    """The administrator takes the mirror that hangs out of the set."""
    bed.reconciler.on_policy(rules("b.io/x"))


def fail_again(bed: Bed) -> None:
    """The same failure in other words, which is a new generation: the number of a port, say."""
    bed.see(
        KEY, imagestream_from(stream({"conditions": [failure(3, "dial tcp: connection refused on port 2")]}, {"generation": 3}))
    )


@pytest.mark.parametrize(
    ("before", "change", "asked"),
    [
        (("a.io/x", "b.io/x"), remove_mirror, ["a.io/x/team/app:v1", "b.io/x/team/app:v1"]),
        (("m.io/x", "m.io/y"), fail_again, ["m.io/x/team/app:v1", "m.io/x/team/app:v1", "m.io/y/team/app:v1"]),
    ],
    ids=["a mirror is removed", "the source fails again"],
)
def test_the_wanted_import_is_made(before: tuple[str, ...], change: Callable[[Bed], None], asked: list[str]) -> None:
    """The obsolete one's next candidate once took its place, and the tag was never tried again."""
    platform = Hanging()
    bed = Bed(platform)
    bed.reconciler.on_policy(rules(*before))
    bed.see(KEY, FAILED)
    bed.work()

    def during_request() -> None:
        change(bed)
        bed.time += 1
        bed.work()

    platform.during_request = during_request
    bed.pool.run()
    assert platform.asked == asked
    assert bed.reconciler._states[KEY]._tags["v1"].phase is Phase.BACKING_OFF


@pytest.mark.parametrize("fetched", [False, True], ids=["while it is imported", "before it is recorded"])
def test_an_item_that_is_dropped_leaves_no_time_behind(fetched: bool) -> None:
    """Were it remembered, the tag's next item of the same image could be weeks older than those before it."""
    platform = Hanging()
    platform.digest = "sha256:bb"
    bed = Bed(platform)
    bed.reconciler.on_policy(rules("a.io/x"))
    bed.see(KEY, FAILED)
    bed.work()

    def succeed() -> None:
        bed.see(KEY, WELL)
        bed.work()

    if not fetched:
        platform.during_request = succeed
    bed.pool.run()
    succeed()
    assert platform.asked == ["a.io/x/team/app:v1"]
    assert not bed.reconciler._worker._times._created
