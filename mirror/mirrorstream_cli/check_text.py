"""What `check` prints for people."""

from collections.abc import Mapping
from dataclasses import replace

from mirrorstream.diagnose.check import CheckReport, Fate, Skipped, TagCheck, check_groups
from mirrorstream.diagnose.status import label, many
from mirrorstream.text.sanitize import shortened
from mirrorstream.text.terminal import Line, Span, Style, Text, blank, columns, line, notes, table

from mirrorstream_cli.groups import MOST_GROUPS, cut, fits, group_lines, one_screen

_TITLES = {
    Fate.LOST: ("would not survive without its source", Style.BAD),
    Fate.UNKNOWN: ("a mirror could not be asked, and no other serves it", Style.WARNING),
    Fate.SURVIVES: ("a mirror serves it", Style.GOOD),
}
_STYLES = {str(fate): style for fate, (_, style) in _TITLES.items()}
_SKIPPED = {
    Skipped.REFERENCE: "with reference: true",
    Skipped.IMAGE: "from an ImageStreamImage",
    Skipped.PUSHED: "pushed",
    Skipped.OTHER_STREAM: "that follow another stream",
    Skipped.NOTHING: "that follow a tag that imports nothing",
}
WHY_WIDTH, MESSAGE_WIDTH = 300, 160
CAUSES = 8
"""The rows of the table by cause."""


def render_check(
    report: CheckReport, where: str, *, width: int | None = None, each: bool = True, everything: bool = False
) -> list[Text]:
    """The text; `where` names what was checked.

    It lists each tag if `everything` is wanted, or if `each` is and fits a screen; otherwise groups of tags.
    """
    if everything or each:
        lines = _each(report, where)
        if everything or fits(lines, width):
            return lines
    return one_screen((_summary(report, where, limit) for limit in range(MOST_GROUPS, 0, -1)), width)


def _each(report: CheckReport, where: str) -> list[Text]:
    lines: list[Text] = [_headline(report, where)]
    for fate in (Fate.LOST, Fate.UNKNOWN):
        if found := [tag for tag in report.tags if tag.fate is fate]:
            meaning, style = _TITLES[fate]
            lines += [blank(), line(Span(str(fate).capitalize(), style), Span(f" ({meaning})", Style.QUIET))]
            lines += [item for tag in found for item in _story(tag)]
    if remarked := _remarked(report):
        lines += [blank(), line(Span("Survives, but", Style.WARNING))]
        lines += columns([(tag.name, tag.remark) for tag in remarked], 2)
    return [*lines, *_end(report, len(report.notes))]


def _summary(report: CheckReport, where: str, limit: int) -> list[Text]:
    lines: list[Text] = [_headline(report, where)]
    lines += group_lines(check_groups(report.tags, hosted=report.hosted), _STYLES, limit, namespaces=report.namespace is None)
    if remarked := _remarked(report):
        lines += [blank(), line(Span(f"{many(len(remarked), 'tag')} with a remark: ", Style.WARNING), "`--all` lists them")]
        lines.append(table([(tag.name, tag.remark) for tag in remarked[:limit]], 2))
    return [*lines, *_end(replace(report, notes=tuple(shortened(note, WHY_WIDTH) for note in report.notes)), limit)]


def _remarked(report: CheckReport) -> list[TagCheck]:
    return [tag for tag in report.tags if tag.fate is Fate.SURVIVES and tag.remark]


def _end(report: CheckReport, limit: int) -> list[Text]:
    """What was not asked for, the notes, and the table by cause."""
    lines: list[Text] = []
    if left_out := _left_out(report.skipped):
        lines += [blank(), line(Span("Not asked for: ", Style.QUIET), Span(left_out, Style.QUIET))]
    lines += cut(notes(report.notes), limit)
    groups = check_groups(report.tags)
    rows = [(len(group.subjects), group.cause.state, group.cause.text) for group in groups[:CAUSES]]
    if rest := sum(len(group.subjects) for group in groups[CAUSES:]):
        rows.append((rest, "", "for other reasons"))
    survives, meaning = report.counts[Fate.SURVIVES], _TITLES[Fate.SURVIVES][0]
    rows += [(survives, str(Fate.SURVIVES), meaning)] if survives else []
    size = max((len(str(count)) for count, *_ in rows), default=0)
    cells = [(f"{count:>{size}}", Span(fate, _STYLES.get(fate, Style.PLAIN)), text) for count, fate, text in rows]
    lines += [blank(), table(cells, 2)] if rows else []
    return lines


def _headline(report: CheckReport, where: str) -> Line:
    if not report.streams:
        return line(Span(f"{where}: ", Style.TITLE), "there is no ImageStream")
    counts = report.counts
    spans: list[str | Span] = [Span(f"{where}: ", Style.TITLE)]
    for fate in (Fate.LOST, Fate.UNKNOWN):
        if counts[fate]:
            spans += [Span(f"{counts[fate]} {fate}", _TITLES[fate][1]), ", "]
    if len(spans) > 1:
        spans.append(f"{counts[Fate.SURVIVES]} survive" + ("s" if counts[Fate.SURVIVES] == 1 else ""))
    elif report.tags:
        spans.append(Span("every tag survives without its source", Style.GOOD))
    else:
        spans.append(Span("no tag was checked", Style.WARNING))
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


def _left_out(skipped: Mapping[Skipped, int]) -> str:
    return ", ".join(f"{many(skipped[kind], 'tag')} {text}" for kind, text in _SKIPPED.items() if skipped.get(kind))
