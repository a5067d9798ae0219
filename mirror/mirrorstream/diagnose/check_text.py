"""What `check` prints for people."""

from collections.abc import Mapping

from mirrorstream.diagnose.check import CheckReport, Fate, Skipped, TagCheck
from mirrorstream.diagnose.status import DETAILED, LISTED, label, many, notes
from mirrorstream.text.sanitize import shortened
from mirrorstream.text.terminal import Line, Span, Style, blank, columns, line

_TITLES = {
    Fate.LOST: ("Would not survive", Style.BAD),
    Fate.UNKNOWN: ("Not known: a mirror could not be asked", Style.WARNING),
}
_SKIPPED = {
    Skipped.REFERENCE: "with reference: true",
    Skipped.IMAGE: "from an ImageStreamImage",
    Skipped.PUSHED: "pushed",
    Skipped.OTHER_STREAM: "that follow another stream",
    Skipped.NOTHING: "that follow a tag that imports nothing",
}
WHY_WIDTH, MESSAGE_WIDTH = 300, 160


def render_check(report: CheckReport, where: str) -> list[Line]:
    """The text; `where` names what was checked."""
    lines = [_headline(report, where)]
    for fate, (title, style) in _TITLES.items():
        if found := [tag for tag in report.tags if tag.fate is fate]:
            lines += [blank(), line(Span(title, style))]
            lines += [item for tag in found for item in _story(tag)] if len(found) <= DETAILED else _rows(found)
    if remarked := [tag for tag in report.tags if tag.fate is Fate.SURVIVES and tag.remark]:
        lines += [blank(), line(Span("Would survive, but", Style.WARNING))]
        lines += columns([(tag.name, tag.remark) for tag in remarked[:LISTED]], 2)
        if len(remarked) > LISTED:
            lines.append(line(Span(f"and {len(remarked) - LISTED} more: -o yaml lists all", Style.QUIET), indent=2))
    if left_out := _left_out(report.skipped):
        lines += [blank(), line(Span("Not asked for: ", Style.QUIET), Span(left_out, Style.QUIET))]
    return [*lines, *notes(report.notes)]


def _headline(report: CheckReport, where: str) -> Line:
    if not report.streams:
        return line(Span(f"{where}: ", Style.TITLE), "there is no ImageStream")
    counts = report.counts
    spans: list[str | Span] = [Span(f"{where}: ", Style.TITLE)]
    if counts[Fate.LOST]:
        spans += [Span(f"{counts[Fate.LOST]} would not survive without the sources", Style.BAD), ", "]
    if counts[Fate.UNKNOWN]:
        spans += [Span(f"{counts[Fate.UNKNOWN]} not known", Style.WARNING), ", "]
    if len(spans) > 1:
        spans.append(f"{counts[Fate.SURVIVES]} would")
    else:
        spans.append(Span("every tag would survive without the sources", Style.GOOD))
    return line(*spans, f"; {many(len(report.tags), 'tag')} in {many(report.streams, 'stream')}")


def _story(tag: TagCheck) -> list[Line]:
    whole = "" if tag.tag else "  (the whole repository)"
    rows: list[tuple[str | Span, ...]] = [(label("from"), tag.source), (label("why"), shortened(tag.reason, WHY_WIDTH))]
    lines = [line(Span(tag.name, Style.TITLE), whole, indent=2), *columns(rows, 4)]
    answers = [(a.reference, Span(a.failure, Style.BAD), shortened(a.message, MESSAGE_WIDTH)) for a in tag.answers]
    lines += columns(answers, 6)
    if tag.followers:
        lines += columns([(label("followed by"), ", ".join(tag.followers))], 4)
    return lines


def _rows(tags: list[TagCheck]) -> list[Line]:
    return columns([(tag.name, shortened(tag.reason, MESSAGE_WIDTH), f"from {tag.source}") for tag in tags], 2)


def _left_out(skipped: Mapping[Skipped, int]) -> str:
    return ", ".join(f"{many(skipped[kind], 'tag')} {text}" for kind, text in _SKIPPED.items() if skipped.get(kind))
