"""What `make bench` reads out of a Prometheus histogram."""

import pytest

from e2e.bench.histograms import read_histogram

EARLIER = """
# TYPE wait_seconds histogram
wait_seconds_bucket{name="a",le="0.005"} 10
wait_seconds_bucket{name="a",le="0.025"} 10
wait_seconds_bucket{name="a",le="+Inf"} 10
wait_seconds_sum{name="a"} 0.02
wait_seconds_count{name="a"} 10
"""
LATER = """
wait_seconds_bucket{name="a",le="0.005"} 100
wait_seconds_bucket{name="a",le="0.025"} 109
wait_seconds_bucket{name="a",le="+Inf"} 110
wait_seconds_bucket{name="b",le="0.005"} 0
wait_seconds_bucket{name="b",le="0.025"} 1000
wait_seconds_bucket{name="b",le="+Inf"} 1000
wait_seconds_sum{name="a"} 0.32
wait_seconds_sum{name="b"} 20
"""


def test_only_what_was_observed_between_two_readings_counts() -> None:
    """Of the series that is asked for; others of the same metric are not ours."""
    found = read_histogram(LATER, "wait_seconds", name="a") - read_histogram(EARLIER, "wait_seconds", name="a")
    assert found.count == 100
    assert found.mean == pytest.approx(0.003)
    assert found.share_within(0.005) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(0.45, 0.0025, id="inside the first bucket, which begins at 0"),
        pytest.param(0.9, 0.005, id="at a bound"),
        pytest.param(0.95, 0.005 + 0.020 * 5 / 9, id="inside the second"),
        pytest.param(1.0, 0.025, id="beyond the last finite bound, that bound"),
    ],
)
def test_quantiles_are_interpolated_as_prometheus_does(share: float, expected: float) -> None:
    """So that the figure is the one that a dashboard shows."""
    found = read_histogram(LATER, "wait_seconds", name="a") - read_histogram(EARLIER, "wait_seconds", name="a")
    assert found.quantile(share) == pytest.approx(expected)
