"""Reading the mirror rules of a cluster."""

from typing import Any

from mirrorstream.rules.source import IMAGE_CONFIG, PolicySource
from structlog.testing import capture_logs


def test_an_image_config_that_may_not_be_read_is_logged_when_that_changes() -> None:
    """It is looked for each second, and may be refused for days."""
    client: Any = None
    source = PolicySource(client, lambda policy: None, tags_through_digest_mirrors=True)
    informer = source.informers[IMAGE_CONFIG]
    reasons = ["403", "403", "403", "500", "403"]
    with capture_logs() as lines:
        for informer.problem in reasons:
            source._rebuild()
    assert [line["reason"] for line in lines] == ["403", "500", "403"]
