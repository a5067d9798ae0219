"""What came from a cluster is shown without anything that a terminal would act on."""

import pytest
from mirrorstream.text.sanitize import harmless, one_line, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text: äöü 中 🙂", "plain text: äöü 中 🙂"),
        ("two\nlines\tand\r\nmore", "two lines and more"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07rest", "rest"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2J\x1b[Hgone", "gone"),
        ("\x9b31mred", "red"),
        ("\x1bPdevice\x1b\\rest", "rest"),
        ("\x1b]52;c;never ended", ""),
        ("\x1bcreset", "reset"),
        ("back\x08\x08space\x7f", "backspace"),
        ("right\u202eto\u2066left\u2069", "righttoleft"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("nul\x00", "nul"),
        ("\ud800lone", "lone"),
        ("\x1b", ""),
        ("", ""),
    ],
)
def test_text_in_one_line(text: str, shown: str) -> None:
    """Whole sequences go, not only their first byte."""
    assert one_line(text) == shown


def test_documents_keep_line_breaks_only() -> None:
    """Programs get them as well; YAML would print some of them as they are."""
    found = harmless({"a\x1b[1m": ["x\ny\x07", ("z\u202e", 1, None, True)]})
    assert found == {"a": ["x\ny", ["z", 1, None, True]]}


@pytest.mark.parametrize(("limit", "shown"), [(5, "abcd…"), (6, "abcdef"), (1, "…")])
def test_what_is_too_long_is_cut(limit: int, shown: str) -> None:
    """And that is to be seen."""
    assert shortened("abcdef", limit) == shown
