"""Times as the API writes them."""

import pytest
from mirrorstream.text.times import rfc3339, seconds_of


def test_a_time_is_read_as_it_is_written() -> None:
    """The API knows whole seconds."""
    assert (rfc3339(1_800_000_000.9), seconds_of("2027-01-15T08:00:00Z")) == ("2027-01-15T08:00:00Z", 1_800_000_000)


@pytest.mark.parametrize("text", [None, "", "today", "2027-13-01T00:00:00Z"])
def test_what_is_no_time_is_none(text: str | None) -> None:
    """Conditions and annotations may have anything."""
    assert seconds_of(text) is None
