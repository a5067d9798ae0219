"""When items are made that are not recorded yet."""

from mirrorstream_controller.item_times import REMEMBERED, ItemTimes

KEY = ("ns", "app")


def test_an_item_keeps_its_time_until_it_is_recorded() -> None:
    """Each stream, tag and image has its own."""
    now = [1_800_000_000.0]
    times = ItemTimes(lambda: now[0])
    assert times.of(KEY, "v1", "sha256:aa") == "2027-01-15T08:00:00Z"
    now[0] += 60
    assert times.of(KEY, "v1", "sha256:aa") == "2027-01-15T08:00:00Z"
    for other in ((KEY, "v2", "sha256:aa"), (KEY, "v1", "sha256:bb"), (("ns2", "app"), "v1", "sha256:aa")):
        assert times.of(*other) == "2027-01-15T08:01:00Z"
    times.forget(KEY, "v1", "sha256:aa")
    times.forget(KEY, "unknown", "sha256:aa")
    assert times.of(KEY, "v1", "sha256:aa") == "2027-01-15T08:01:00Z"


def test_so_many_are_remembered_and_those_that_are_tried_again() -> None:
    """Streams come and go."""
    now = [1_800_000_000.0]
    times = ItemTimes(lambda: now[0])
    tried = times.of(KEY, "tried", "sha256:aa")
    for number in range(REMEMBERED + 10):
        now[0] += 1
        times.of(KEY, f"v{number}", "sha256:aa")
        assert times.of(KEY, "tried", "sha256:aa") == tried
    assert len(times._created) == REMEMBERED
