"""What durations are measured with."""

from mirrorstream_controller.clock import steady


def test_setting_the_clock_counts_for_nothing() -> None:
    """It starts as the time of day, and goes on with the monotonic clock."""
    wall, monotonic = [1_000_000.0], [50.0]
    now = steady(lambda: wall[0], lambda: monotonic[0])
    assert now() == 1_000_000.0
    wall[0] -= 3600
    monotonic[0] += 2
    assert now() == 1_000_002.0
