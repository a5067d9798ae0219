"""Drawing groups of tags by cause, so that they fit one screen."""

from collections.abc import Iterable, Mapping, Sequence

from mirrorstream.diagnose.causes import Group
from mirrorstream.diagnose.detail import FULL, Detail
from mirrorstream.diagnose.status import lasting, many
from mirrorstream.text.sanitize import listed
from mirrorstream.text.terminal import Line, Span, Style, Text, blank, columns, layout, line

SCREEN = 60
"""The lines of a first answer, at most, whatever the cluster."""
MOST_GROUPS = 8
LABEL_WIDTH = len("examples:")


def one_screen(drafts: Iterable[list[Text]], width: int | None) -> list[Text]:
    """The first draft that fits a screen, else the last one."""
    lines: list[Text] = []
    for lines in drafts:
        if fits(lines, width):
            break
    return lines


def fits(lines: Sequence[Text], width: int | None) -> bool:
    """Whether lines fit a screen."""
    return layout(lines, width=width).count("\n") <= SCREEN


def group_lines(
    groups: Sequence[Group],
    styles: Mapping[str, Style],
    limit: int,
    *,
    detail: Detail = FULL,
    now: float | None = None,
    namespaces: bool = True,
) -> list[Text]:
    """At most `limit` groups, the largest first; `now` where subjects have times, `namespaces` where there are several."""
    lines: list[Text] = []
    for group in groups[:limit]:
        count = f"{len(group.subjects)} {group.cause.state}"
        lines += [blank(), line(Span(f"{count}: ", styles[group.cause.state]), Span(detail.text(group.cause.text), Style.TITLE))]
        lines += columns(_rows(group, detail, now, namespaces), 2)
    if rest := groups[limit:]:
        count = many(sum(len(group.subjects) for group in rest), "tag")
        lines += [blank(), line(Span(f"and {count} in {many(len(rest), 'smaller group')}: --all lists all", Style.QUIET))]
    return lines


def _rows(group: Group, detail: Detail, now: float | None, namespaces: bool) -> list[tuple[str | Span, ...]]:
    rows: list[tuple[str | Span, ...]] = [(_label("helps"), group.cause.helps)]
    oldest = group.oldest
    if oldest and now is not None:
        rows.append((_label("oldest"), f"{detail.name(oldest.name)} {lasting(oldest.since, now)}"))
    # Where one example is enough, the oldest is it.
    if not (oldest and min(len(group.subjects), detail.examples) <= 1):
        names = [detail.name(subject.name) for subject in group.subjects[: detail.examples]]
        rows.append((_label("examples"), ", ".join(names)))
    if namespaces:
        rows.append((_label("in"), _counts(group.namespaces, detail)))
    return rows


def _label(text: str) -> Span:
    return Span(f"{text}:".ljust(LABEL_WIDTH), Style.QUIET)


def _counts(namespaces: Mapping[str, int], detail: Detail) -> str:
    return listed([f"{detail.name(name)} {count}" for name, count in namespaces.items()], detail.examples + 1)


def cut(lines: Sequence[Line], limit: int) -> list[Line]:
    """At most `limit` lines, and how many more there are."""
    rest = len(lines) - limit
    return [*lines[:limit], *([line(Span(f"and {rest} more: -o yaml lists all", Style.QUIET), indent=2)] if rest > 0 else [])]
