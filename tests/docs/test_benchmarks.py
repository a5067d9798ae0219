"""The recorded figures: the page says what the file says."""

import json

from e2e.bench.figures import JSON, PAGE, page


def test_the_page_is_made_of_the_recorded_figures() -> None:
    """The page has every recorded figure and every limit that was missed."""
    made = page(json.loads(JSON.read_text(encoding="utf-8")))
    assert made == PAGE.read_text(encoding="utf-8"), "run `python -m e2e.bench.figures`"
