"""The text of `check`: read it as a user would."""

from mirrorstream.diagnose.check import CheckReport, Skipped, TagCheck
from mirrorstream.text.terminal import layout
from mirrorstream_cli.check_text import render_check

from tests.diagnose.builders import ABSENT, DIGEST, DOWN, FIRST, OTHER, SECOND, asked, item, stream


def text(*tags: TagCheck, everything: bool = False) -> str:
    """What people read."""
    report = CheckReport("ns", 1, tags, {Skipped.PUSHED: 2}, ("a note",))
    return layout(render_check(report, "Namespace ns", everything=everything))


def test_the_text_tells_what_would_not_survive_and_why() -> None:
    """With each mirror's answer; then what is not known, and what to know of the others; the table by cause is last."""
    found = text(asked(ABSENT, DOWN), asked(None, None), asked(OTHER, of=stream(item())))
    assert found == (
        "Namespace ns: 1 lost, 1 unknown, 1 survives; 3 tags in 1 stream\n"
        "\n"
        "Lost (would not survive without its source)\n"
        "  ns/app:v1\n"
        "    from:         src.io/team/app:v1\n"
        f"    why:          {SECOND} does not serve it: timeout: i/o timeout\n"
        f"      {FIRST}  not-found  name unknown: x\n"
        f"      {SECOND}  timeout    i/o timeout\n"
        "\n"
        "Unknown (a mirror could not be asked, and no other serves it)\n"
        "  ns/app:v1\n"
        "    from:         src.io/team/app:v1\n"
        "    why:          you may not\n"
        "\n"
        "Survives, but\n"
        f"  ns/app:v1  with another image: it has {DIGEST}, {FIRST} has {OTHER}\n"
        "\n"
        "Not asked for: 2 tags pushed\n"
        "Note: a note\n"
        "\n"
        "  1  lost      m.io does not have it, n.io does not answer in time\n"
        "  1  unknown   you may not\n"
        "  1  survives  a mirror serves it\n"
    )
    assert text(asked(DIGEST)).startswith("Namespace ns: every tag survives without its source; 1 tag in 1 stream\n")


def test_where_nothing_was_asked_for_nothing_is_said_to_survive() -> None:
    """Pushed tags only, say."""
    assert text().startswith("Namespace ns: no tag was checked; 0 tags in 1 stream\n")


def test_many_tags_are_grouped_unless_all_are_asked_for() -> None:
    """A screen first."""
    tags = [asked(ABSENT, ABSENT)] * 21
    found = text(*tags)
    assert "\n21 lost: m.io does not have it, n.io does not have it\n" in found
    assert "`mirrorstream check -o imageset`" in found
    assert found.endswith("  21  lost  m.io does not have it, n.io does not have it\n")
    assert text(*tags, everything=True).count("  ns/app:v1\n") == 21
