"""What `status` shows first: one screen, whatever the cluster."""

import dataclasses
import itertools
from collections.abc import Sequence

from mirrorstream.diagnose.causes import IMAGESET, Group, tag_groups
from mirrorstream.diagnose.detail import FULL, Detail
from mirrorstream.diagnose.hanging_pods import pod_groups
from mirrorstream.diagnose.status import (
    TITLES,
    StatusReport,
    headline,
    label,
    lasting,
    many,
    pod_lines,
    rules_headline,
    scheduled_helps,
    warnings_of,
)
from mirrorstream.diagnose.tag_status import State, TagState
from mirrorstream.rules.references import parse_or_none
from mirrorstream.text.terminal import Line, Span, Style, Text, blank, columns, line, notes

from mirrorstream_cli.groups import MOST_GROUPS, cut, group_lines, one_screen

_STYLES = {str(state): style for state, (_, style) in TITLES.items()}
POD_GROUPS = 3
"""At most; there are fewer before groups of tags are left out, since most pods wait for tags."""
BRIEF, TERSE = Detail(1, 40, 160), Detail(1, 24, 80)
"""For narrow terminals and long names: less of each group, before groups are left out; and what fits in any case."""


def render_summary(report: StatusReport, now: float, width: int | None) -> list[Text]:
    """Totals, groups by cause, what else is to be known, a sentence that sums up, and what tells more; at most a screen."""
    groups, pods = tag_groups(report.tags, hosted=report.hosted), pod_groups(report.pods or ())
    warned = list(warnings_of(_without_repository(tag) for tag in report.tags if tag.warnings).items())
    scheduled = [tag for tag in report.tags if tag.heals_on_schedule]

    def draft(limit: int, detail: Detail, most_pods: int, most_others: int) -> list[Text]:
        lines: list[Text] = [headline(report)]
        lines += group_lines(groups, _STYLES, limit, detail=detail, now=now, namespaces=report.namespace is None)
        lines += [blank(), *pod_lines(pods, most_pods, detail)] if pods else []
        if others := [*_warned(warned, most_others, detail), *_scheduled(scheduled, most_others, detail, hosted=report.hosted)]:
            lines += [blank(), *others]
        return [*lines, *_rules(report, most_others, detail), *_end(report, groups, now)]

    drafts = (
        draft(limit, detail, most_pods, limit)
        for limit in range(MOST_GROUPS, 0, -1)
        for detail in (FULL, BRIEF)
        for most_pods in range(POD_GROUPS, 0, -1)
    )
    last = (draft(1, TERSE, 0, most_others) for most_others in (1, 0))
    return one_screen(itertools.chain(drafts, last), width)


def _rules(report: StatusReport, limit: int, detail: Detail) -> list[Text]:
    warnings = [line(Span(detail.text(str(w)), Style.WARNING), indent=2) for w in report.rules.warnings]
    remarks = notes(map(detail.text, report.notes))
    return [blank(), rules_headline(report.rules), *cut(warnings, limit), *cut(remarks, limit)]


def _warned(warnings: Sequence[tuple[str, list[str]]], limit: int, detail: Detail) -> list[Line]:
    """Tags whose image pods may be unable to run, by the reason."""
    lines: list[Line] = []
    for text, names in warnings[:limit]:
        lines.append(line(Span(f"Pods may be unable to run the images of {many(len(names), 'tag')}", Style.WARNING)))
        lines += columns([(label("why"), detail.text(text)), (label("examples"), detail.some(names))], 2)
    if rest := warnings[limit:]:
        left = len({name for _, names in rest for name in names})
        lines.append(line(Span(f"and {many(left, 'tag')} for {many(len(rest), 'more reason')}: --all lists all", Style.QUIET)))
    return lines


def _scheduled(tags: Sequence[TagState], limit: int, detail: Detail, *, hosted: bool) -> list[Line]:
    """Scheduled tags that only mirrorstream imports; with a limit of 0, only how many."""
    if not tags:
        return []
    fails, them = ("fails", "it") if len(tags) == 1 else ("fail", "them")
    count = f"{many(len(tags), 'tag')} {fails} at each scheduled import"
    helps = scheduled_helps(tags, hosted=hosted, named=detail.examples)
    rows = columns([(label("examples"), detail.some([tag.name for tag in tags])), *helps], 2)
    return [line(Span(count, Style.WARNING), f", and mirrorstream imports {them} each time"), *(rows if limit else [])]


def _without_repository(tag: TagState) -> TagState:
    """The tag with warnings that are the same for all repositories."""
    image = parse_or_none(tag.image)
    if not image:
        return tag
    return dataclasses.replace(tag, warnings=tuple(text.replace(image.name, "its repository") for text in tag.warnings))


def _end(report: StatusReport, groups: list[Group], now: float) -> list[Text]:
    """One sentence, and the commands that tell more."""
    failing = [group for group in groups if group.cause.state != State.PENDING]
    scope = f"-n {report.namespace}" if report.namespace else "-A"
    rows: list[tuple[str, str]] = []
    lines: list[Text] = [blank()]
    if failing:
        lines.append(_sentence(report, failing, now))
        namespace = next(iter(failing[0].namespaces))
        first = failing[0].oldest or failing[0].subjects[0]
        rows.append(
            (f"mirrorstream status {scope} --all" if report.namespace else f"mirrorstream status -n {namespace}", "each tag")
        )
        rows += _lists(failing, f"mirrorstream missing {scope} -o imageset")
        rows.append((f"mirrorstream explain {first.name}", "all of one tag"))
    elif report.streams:
        rows.append((f"mirrorstream status {scope} --all", "each tag"))
    return [*lines, *columns(rows, 2)] if rows else []


def _lists(failing: list[Group], command: str) -> list[tuple[str, str]]:
    """The list for oc-mirror, if there is something in it: repositories without a tag are not, and not all is without more."""
    if any(group.cause.helps == IMAGESET.format("missing") for group in failing):
        return [(command, "what the mirrors lack")]
    uncovered = (subject for group in failing if group.cause.state == State.UNMIRRORED for subject in group.subjects)
    return [(f"{command} --unmirrored", "what no rule covers")] if any(":" in subject.name for subject in uncovered) else []


def _sentence(report: StatusReport, failing: list[Group], now: float) -> Line:
    count = sum(len(group.subjects) for group in failing)
    namespaces = {subject.namespace for group in failing for subject in group.subjects}
    since = min((group.oldest.since for group in failing if group.oldest), default="")
    parts = [f"{many(count, 'tag')} {'fails' if count == 1 else 'fail'}"]
    if report.namespace is None:
        parts.append(f" in {many(len(namespaces), 'namespace')}")
    if period := lasting(since, now):
        parts.append(f", the oldest {period}")
    healed = report.counts[State.HEALED]
    parts.append(f"; {healed} healed." if healed else ".")
    return line(Span("".join(parts), Style.TITLE))
