"""What `status` answers: how tags stand, the rules in force, what could not be seen; for people and for programs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mirrorstream.diagnose.causes import tag_groups
from mirrorstream.diagnose.detail import FULL, Detail
from mirrorstream.diagnose.hanging_pods import HangingPod, WaitsFor, pod_groups
from mirrorstream.diagnose.suggest import HOSTED, skipping
from mirrorstream.diagnose.tag_status import BROKEN, OBSERVES, State, TagState
from mirrorstream.imagestream.messages import brief
from mirrorstream.imagestream.outcomes import AttemptResult
from mirrorstream.rules.policy import PolicyWarning
from mirrorstream.text.sanitize import shortened
from mirrorstream.text.terminal import Line, Span, Style, Text, blank, columns, comma_separated, line, notes, period, table
from mirrorstream.text.times import seconds_of

DETAILED = 20
"""How many broken tags are described in full; if there are more, each gets one line."""
MESSAGE_WIDTH = 200
LABEL_WIDTH = len("followed by:")

TITLES = {
    State.FAILING: ("mirrorstream imports it as soon as a mirror serves it", Style.BAD),
    State.REFUSED: ("no mirror may stand in here, so somebody has to act", Style.BAD),
    State.HELD: ("keeps its image until the source has failed for long enough: a mirror has another one", Style.WARNING),
    State.UNMIRRORED: ("its import fails, and no rule covers the source", Style.WARNING),
    State.OPTED_OUT: ("its import fails, and is left to the platform", Style.WARNING),
    State.PENDING: ("the platform has not finished its import", Style.WARNING),
    State.HEALED: ("imported through a mirror", Style.GOOD),
}
"""What each state means, for people; IMPORTED tags are listed only on request."""
_ALL_TITLES = {**TITLES, State.IMPORTED: ("its import succeeded without mirrorstream", Style.GOOD)}


@dataclass(frozen=True, slots=True)
class RuleObject:
    """A mirror set in force and the number of sources that it names."""

    object: str
    sources: int


@dataclass(frozen=True, slots=True)
class Rules:
    """The mirror rules, as far as they may be seen."""

    known: bool
    objects: tuple[RuleObject, ...] = ()
    warnings: tuple[PolicyWarning, ...] = ()

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "known": self.known,
            "objects": [asdict(item) for item in self.objects],
            "warnings": [asdict(warning) for warning in self.warnings],
        }


def is_unsettled(tag: TagState) -> bool:
    """Whether waiting may change how a tag stands."""
    return tag.state is State.PENDING or (tag.state is State.FAILING and not tag.why)


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The whole answer; `namespace` is None for all."""

    namespace: str | None
    streams: int
    tags: tuple[TagState, ...]
    rules: Rules
    notes: tuple[str, ...] = ()
    pods: tuple[HangingPod, ...] | None = ()
    """The pods that hang; None where pods may not be seen."""
    hosted: bool = False
    """Whether it is a hosted cluster, in which nobody may create mirror sets."""

    @property
    def counts(self) -> dict[State, int]:
        """How many tags are in each state."""
        found = Counter(state.state for state in self.tags)
        return {state: found[state] for state in State}

    @property
    def broken(self) -> bool:
        """Whether something fails that a mirror covers."""
        return any(state.state in BROKEN for state in self.tags)

    @property
    def unsettled(self) -> bool:
        """Whether waiting may change the answer: something is being imported, or is tried again and again."""
        return any(map(is_unsettled, self.tags))

    def document(self) -> dict[str, Any]:
        """The JSON and YAML form, with every tag."""
        return {
            "namespace": self.namespace,
            "summary": {"streams": self.streams, "tags": {str(state): count for state, count in self.counts.items()}},
            "groups": [group.document() for group in tag_groups(self.tags, hosted=self.hosted)],
            "tags": [state.document() for state in self.tags],
            "pods": None if self.pods is None else [pod.document() for pod in self.pods],
            "rules": self.rules.document(),
            "notes": list(self.notes),
        }


def render_status(report: StatusReport, now: float, *, everything: bool = False) -> list[Text]:
    """Every tag and pod, for people, tags that are just imported only with `everything`; `now` in seconds since the epoch."""
    lines: list[Text] = [headline(report)]
    for state in _ALL_TITLES if everything else TITLES:
        found = [tag for tag in report.tags if tag.state is state]
        if found:
            lines += [blank(), *_section(state, found, now)]
    if scheduled := [tag for tag in report.tags if tag.heals_on_schedule]:
        lines += [blank(), *_scheduled(scheduled, hosted=report.hosted)]
    if warned := [tag for tag in report.tags if tag.warnings]:
        lines += [blank(), *_warned(warned)]
    if report.pods:
        lines += [blank(), *pod_lines(pod_groups(report.pods))]
    lines += [blank(), *_rules(report.rules)]
    return [*lines, *notes(report.notes)]


def headline(report: StatusReport) -> Line:
    """The totals, by the words of the states."""
    where = f"Namespace {report.namespace}" if report.namespace else "All namespaces"
    counts = report.counts
    if not report.streams:
        return line(Span(f"{where}: ", Style.TITLE), "there is no ImageStream")
    parts = [Span(f"{counts[state]} {state}", style) for state, (_, style) in TITLES.items() if counts[state]]
    spans: list[str | Span] = [Span(f"{where}: ", Style.TITLE)]
    if not any(counts[state] for state in TITLES if state is not State.HEALED):
        spans += [Span("nothing fails", Style.GOOD), "; " if parts else ""]
    return line(*spans, *comma_separated(parts), f"; {many(sum(counts.values()), 'tag')} in {many(report.streams, 'stream')}")


def many(count: int, noun: str) -> str:
    """A number of things, whose plural ends with an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _section(state: State, found: list[TagState], now: float) -> list[Text]:
    meaning, style = _ALL_TITLES[state]
    if state is State.FAILING and found[0].why:
        meaning = found[0].why
    lines: list[Text] = [line(Span(str(state).capitalize(), style), Span(f" ({meaning})", Style.QUIET))]
    if state in BROKEN and len(found) <= DETAILED:
        return [*lines, *(item for tag in found for item in tag_lines(tag, now))]
    lines.append(table([_row(tag, now) for tag in found], indent=2))
    if state in BROKEN:
        lines.append(line(Span("`mirrorstream explain NAMESPACE/STREAM:TAG` tells more of each", Style.QUIET), indent=2))
    return lines


def _warned(found: list[TagState]) -> list[Text]:
    """Tags whose image pods may be unable to run, by the reason."""
    lines: list[Text] = [line(Span("Pods may be unable to run", Style.WARNING), Span(" (an image that its tag has)", Style.QUIET))]
    for text, names in warnings_of(found).items():
        lines += [line(text, indent=2), table([(name,) for name in names], indent=4)]
    return lines


def warnings_of(tags: Iterable[TagState]) -> dict[str, list[str]]:
    """What is to be said of images that pods may be unable to run, each with the names of its tags."""
    found: dict[str, list[str]] = {}
    for tag in tags:
        for text in tag.warnings:
            found.setdefault(text, []).append(tag.name)
    return found


def _row(tag: TagState, now: float) -> tuple[str, ...]:
    if tag.state is State.HEALED:
        return (tag.name, f"through {tag.through}")
    if tag.state is State.IMPORTED:
        return (tag.name, f"from {tag.source}")
    if tag.state is State.PENDING:
        return (tag.name, f"from {tag.source}" + (f"; before: {tag.failure.kind}" if tag.failure else ""))
    return (tag.name, failing_for(tag, now), f"from {tag.source}")


def failing_for(tag: TagState, now: float) -> str:
    """How long it has been failing, and the failure's class."""
    return ", ".join(part for part in (lasting(tag.since, now), str(tag.failure.kind) if tag.failure else "") if part)


def lasting(since: str | None, now: float) -> str:
    """For how long it has been so; empty where that is not known."""
    at = seconds_of(since)
    return f"for {period(now - at)}" if at is not None else ""


def ago(at: str, now: float) -> str:
    """How long ago something was; empty where that is not known."""
    seconds = seconds_of(at)
    return f"{period(now - seconds)} ago" if seconds is not None else ""


def tag_lines(tag: TagState, now: float) -> list[Line]:
    """A tag that is not well, at length."""
    style = TITLES[tag.state][1] if tag.state in TITLES else Style.PLAIN
    whole = "" if tag.tag else " (the whole repository)"
    lines = [line(Span(tag.name, Style.TITLE), f"{whole}  ", Span(failing_for(tag, now), style), indent=2)]
    return [*lines, *story_lines(tag, now, 4)]


def story_lines(tag: TagState, now: float, indent: int, *, source: bool = True) -> list[Line]:
    """What there is to know of a tag, one thing a line; without `source` where that stands above."""
    rows: list[tuple[str | Span, ...]] = [(label("from"), tag.source)] if source else []
    if tag.failure:
        rows.append((label("failure"), shortened(brief(tag.failure.message), MESSAGE_WIDTH)))
    if tag.why and tag.why != OBSERVES:
        why = tag.why.removesuffix(f": {tag.failure.message}") if tag.failure else tag.why  # that has been said
        rows.append((label("why"), shortened(why, 2 * MESSAGE_WIDTH)))
    if tag.through:
        rows.append((label("through"), Span(tag.through, Style.GOOD)))
    lines = columns(rows, indent)
    if tag.failure or tag.tried:
        lines += _tried(tag, now, indent)
    more: list[tuple[str | Span, ...]] = []
    if tag.image and tag.failure:
        more.append((label("still has"), tag.image))
    if tag.followers:
        more.append((label("followed by"), ", ".join(tag.followers)))
    return [*lines, *columns(more, indent)]


def label(text: str) -> Span:
    """The name of what stands behind it; of one width."""
    return Span(f"{text}:".ljust(LABEL_WIDTH), Style.QUIET)


def _tried(tag: TagState, now: float, indent: int) -> list[Line]:
    """What was tried, and what each candidate answered; otherwise what would be tried."""
    tried = tag.tried
    if tried is None:
        if tag.state is not State.FAILING:
            return []
        lines = [line(label("tried"), "  no attempt is known from Events", indent=indent)]
        if tag.candidates:
            lines.append(line("candidates, in this order:", indent=indent + 2))
            lines += columns([(c.reference, Span(c.mirror_set, Style.QUIET)) for c in tag.candidates], indent + 4)
        return lines
    attempt = tried.attempt
    when = ", ".join(
        part for part in (ago(tried.at, now), f"{tried.count} times with this result" if tried.count > 1 else "") if part
    )
    if attempt.result == AttemptResult.REFUSED and tag.state is State.REFUSED:
        return []  # the reason stands above
    lines = [line(label("tried"), f"  {attempt.result}", f" {when}" if when else "", indent=indent)]
    if attempt.message and not tag.why.endswith(attempt.message):
        lines.append(line(shortened(attempt.message, MESSAGE_WIDTH), indent=indent + 2))
    rows: list[tuple[str | Span, ...]] = []
    for answer in attempt.candidates:
        if answer.failure:
            said = shortened(brief(answer.message), MESSAGE_WIDTH)
            said = "" if said.replace(" ", "-") == answer.failure else said
            rows.append((answer.reference, Span(answer.failure, Style.BAD), said))
        else:
            rows.append((answer.reference, Span("served it", Style.GOOD)))
    lines += columns(rows, indent + 2)
    known = {answer.reference for answer in attempt.candidates}
    if untried := [c.reference for c in tag.candidates or () if c.reference not in known and tag.state is State.FAILING]:
        lines.append(line("not yet: ", ", ".join(untried), indent=indent + 2))
    return lines


_NOT_PULLED = "mirrorstream's reference, which the node cannot pull"
_WAITING = {
    WaitsFor.IMPORT: ("waits for the import of {}: {}", "wait for the import of {}: {}"),
    WaitsFor.REPAIR: ("is about to get its image", "are about to get their image"),
    WaitsFor.PULL: (f"has {_NOT_PULLED}", f"have {_NOT_PULLED}"),
    WaitsFor.OWNER: ("is not changed by mirrorstream", "are not changed by mirrorstream"),
}
"""What one pod does, and several."""


def pod_lines(groups: Sequence[Sequence[HangingPod]], limit: int | None = None, detail: Detail = FULL) -> list[Line]:
    """Pods that hang, by what would help (`pod_groups`), in at most `limit` groups."""
    lines = [line(Span("Pods that hang", Style.BAD), Span(" (on the image of a Local tag)", Style.QUIET))]
    for group in groups[:limit]:
        names = list(dict.fromkeys(pod.name for pod in group))
        tags = list(dict.fromkeys(pod.tag for pod in group))
        first = group[0]
        what = _WAITING[first.waits_for][len(names) > 1].format(
            detail.name(tags[0]) if len(tags) == 1 else many(len(tags), "tag"), detail.text(first.why)
        )
        lines.append(line(Span(f"{many(len(names), 'pod')} ", Style.TITLE), what, indent=2))
        why = [] if first.waits_for is WaitsFor.IMPORT else [(label("why"), detail.text(first.why))]
        lines += columns([(label("pods"), detail.some(names)), *why, (label("helps"), first.helps)], 4)
    if rest := [] if limit is None else groups[limit:]:
        count = len({pod.name for group in rest for pod in group})
        lines.append(line(Span(f"and {many(count, 'pod')} in {many(len(rest), 'more group')}", Style.QUIET), indent=2))
    return lines


def _scheduled(tags: Sequence[TagState], *, hosted: bool) -> list[Text]:
    """Scheduled tags that only mirrorstream imports, and how that ends."""
    title = Span("Failing at each scheduled import", Style.WARNING)
    lines = [line(title, Span(" (and healed each time: the platform has no tag mirror for the source)", Style.QUIET))]
    return [*lines, table([(tag.name,) for tag in tags], indent=2), *columns(scheduled_helps(tags, hosted=hosted), 4)]


def scheduled_helps(tags: Sequence[TagState], *, hosted: bool, named: int | None = None) -> list[tuple[Span, str]]:
    """What can be done about scheduled tags that only mirrorstream imports; it names at most `named` streams."""
    rows = []
    if not hosted:
        rows.append((label("helps"), "`mirrorstream suggest` prints mirror sets for the platform's own import"))
    if hint := skipping(tags, named):
        rows.append((label("helps" if hosted else "or"), hint))
        rows.append((label("alert"), "SamplesImagestreamImportFailing counts each of these failures, although they heal"))
    return rows or [(label("helps"), f"nothing: {HOSTED}")]


def rules_headline(rules: Rules) -> Line:
    """How many rules there are."""
    if not rules.known:
        return line(Span("Mirror rules: ", Style.TITLE), "you have no permission to list them")
    if not rules.objects:
        return line(Span("Mirror rules: ", Style.TITLE), Span("there are none", Style.WARNING))
    sources = sum(item.sources for item in rules.objects)
    return line(Span("Mirror rules: ", Style.TITLE), f"{many(sources, 'source')} in {many(len(rules.objects), 'object')}")


def _rules(rules: Rules) -> list[Text]:
    lines: list[Text] = [rules_headline(rules)]
    if rules.objects:
        lines.append(table([(item.object, many(item.sources, "source")) for item in rules.objects], 2))
    if rules.warnings:
        lines.append(line(Span("Parts of them that cannot be used:", Style.WARNING)))
        lines += [line(str(warning), indent=2) for warning in rules.warnings]
    return lines
