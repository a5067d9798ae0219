"""Times as the API writes them."""

from datetime import UTC, datetime


def seconds_of(text: str | None) -> float | None:
    """A time in RFC 3339 as seconds since the epoch; None if `text` is no time."""
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except (ValueError, OverflowError):
        return None


def rfc3339(seconds: float) -> str:
    """`seconds` since the epoch as the API writes them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
