"""What `status` answers: how tags stand, the rules in force, what could not be seen; for people and for programs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from mirrorstream.diagnose.hanging_pods import HangingPod, WaitsFor, grouped
from mirrorstream.diagnose.suggest import skipping
from mirrorstream.diagnose.tag_status import BROKEN, OBSERVES, State, TagState
from mirrorstream.imagestream.messages import brief
from mirrorstream.imagestream.outcomes import AttemptResult
from mirrorstream.rules.policy import PolicyWarning
from mirrorstream.text.sanitize import shortened
from mirrorstream.text.terminal import Line, Span, Style, blank, columns, line, period

DETAILED = 20
"""How many broken tags are described in full; each further one gets one line."""
LISTED = 20
"""How many tags that need no action are listed per state; `-o json` and `-o yaml` list all."""
EXAMPLES = 3
"""How many pods of a group are named."""
MESSAGE_WIDTH = 200
LABEL_WIDTH = len("followed by:")

_TITLES = {
    State.FAILING: ("Failing", "no mirror has served it yet; mirrorstream retries", Style.BAD),
    State.REFUSED: ("Refused", "no mirror may stand in here, so somebody has to act", Style.BAD),
    State.HELD: ("Held", "keeps its image until the source has failed for long enough: a mirror has another one", Style.WARNING),
    State.UNMIRRORED: ("Failing without a mirror", "no rule covers the source", Style.WARNING),
    State.OPTED_OUT: ("Failing, and left to the platform", "opted out", Style.WARNING),
    State.PENDING: ("Not imported yet", "the platform has not finished", Style.WARNING),
    State.HEALED: ("Healed", "imported through a mirror", Style.GOOD),
}


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
        return any(tag.state is State.PENDING or (tag.state is State.FAILING and not tag.why) for tag in self.tags)

    def document(self) -> dict[str, Any]:
        """The JSON and YAML form; tags that are well without a mirror are counted only, unless there is something to be said."""
        return {
            "namespace": self.namespace,
            "summary": {"streams": self.streams, "tags": {str(state): count for state, count in self.counts.items()}},
            "tags": [state.document() for state in self.tags if state.state is not State.IMPORTED or state.warnings],
            "pods": None if self.pods is None else [pod.document() for pod in self.pods],
            "rules": self.rules.document(),
            "notes": list(self.notes),
        }


def render_status(report: StatusReport, now: float) -> list[Line]:
    """The text for people; `now` in seconds since the epoch."""
    lines = [_headline(report)]
    for state in _TITLES:
        found = [tag for tag in report.tags if tag.state is state]
        if found:
            lines += [blank(), *_section(state, found, now)]
    if scheduled := [tag for tag in report.tags if tag.fails_on_schedule]:
        lines += [blank(), *_scheduled(scheduled)]
    if warned := [tag for tag in report.tags if tag.warnings]:
        lines += [blank(), *_warned(warned)]
    if report.pods:
        lines += [blank(), *_pods(report.pods)]
    lines += [blank(), *_rules(report.rules)]
    return [*lines, *notes(report.notes)]


def notes(texts: Iterable[str]) -> list[Line]:
    """What the asking user should know of the answer itself."""
    return [line(Span("Note: ", Style.QUIET), Span(text, Style.QUIET), hang=6) for text in texts]


def _headline(report: StatusReport) -> Line:
    where = f"Namespace {report.namespace}" if report.namespace else "All namespaces"
    counts = report.counts
    if not report.streams:
        return line(Span(f"{where}: ", Style.TITLE), "there is no ImageStream")
    total = sum(counts.values())
    words = {
        State.FAILING: "failing",
        State.REFUSED: "refused",
        State.HELD: "held",
        State.UNMIRRORED: "failing without a mirror",
        State.OPTED_OUT: "opted out",
        State.PENDING: "not imported yet",
        State.HEALED: "healed",
    }
    parts = [Span(f"{counts[state]} {word}", _TITLES[state][2]) for state, word in words.items() if counts[state]]
    spans: list[str | Span] = [Span(f"{where}: ", Style.TITLE)]
    if not any(counts[state] for state in words if state is not State.HEALED):
        spans.append(Span("nothing fails", Style.GOOD))
        spans.append("; " if parts else "")
    for index, part in enumerate(parts):
        spans += [", " if index else "", part]
    return line(*spans, f"; {many(total, 'tag')} in {many(report.streams, 'stream')}")


def many(count: int, noun: str) -> str:
    """A number of things, whose plural ends with an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _section(state: State, found: list[TagState], now: float) -> list[Line]:
    title, meaning, style = _TITLES[state]
    if state is State.FAILING and found[0].why:
        meaning = found[0].why
    lines = [line(Span(title, style), Span(f" ({meaning})", Style.QUIET))]
    if state in BROKEN and len(found) <= DETAILED:
        return [*lines, *(item for tag in found for item in tag_lines(tag, now))]
    shown = found if state in BROKEN else found[:LISTED]
    lines += columns([_row(tag, now) for tag in shown], indent=2)
    if state in BROKEN:
        lines.append(line(Span("`explain NAMESPACE/STREAM:TAG` says more of each", Style.QUIET), indent=2))
    elif len(found) > LISTED:
        lines.append(line(Span(f"and {len(found) - LISTED} more: -o yaml lists all", Style.QUIET), indent=2))
    return lines


def _warned(found: list[TagState]) -> list[Line]:
    """Tags whose image pods may be unable to run, by the reason."""
    lines = [line(Span("Pods may be unable to run", Style.WARNING), Span(" (an image that its tag has)", Style.QUIET))]
    for text in dict.fromkeys(text for tag in found for text in tag.warnings):
        names = [tag.name for tag in found if text in tag.warnings]
        lines += [line(text, indent=2), *columns([(name,) for name in names[:LISTED]], indent=4)]
        if len(names) > LISTED:
            lines.append(line(Span(f"and {len(names) - LISTED} more: -o yaml lists all", Style.QUIET), indent=4))
    return lines


def _row(tag: TagState, now: float) -> tuple[str, ...]:
    if tag.state is State.HEALED:
        return (tag.name, f"through {tag.through}")
    if tag.state is State.PENDING:
        return (tag.name, f"from {tag.source}" + (f"; before: {tag.failure.kind}" if tag.failure else ""))
    return (tag.name, failing_for(tag, now), f"from {tag.source}")


def failing_for(tag: TagState, now: float) -> str:
    """How long it has been failing, and the failure's class."""
    return ", ".join(part for part in (_for(tag.since, now), str(tag.failure.kind) if tag.failure else "") if part)


def _for(since: str | None, now: float) -> str:
    at = _seconds(since)
    return f"for {period(now - at)}" if at is not None else ""


def ago(at: str, now: float) -> str:
    """How long ago something was; empty where that is not known."""
    seconds = _seconds(at)
    return f"{period(now - seconds)} ago" if seconds is not None else ""


def _seconds(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except (ValueError, OverflowError):
        return None


def tag_lines(tag: TagState, now: float) -> list[Line]:
    """A tag that is not well, at length."""
    style = _TITLES[tag.state][2] if tag.state in _TITLES else Style.PLAIN
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
        lines = [line(label("tried"), "  nothing, as far as Events tell", indent=indent)]
        if tag.candidates:
            lines.append(line("the rules give, in this order:", indent=indent + 2))
            lines += columns([(c.reference, Span(c.mirror_set, Style.QUIET)) for c in tag.candidates], indent + 4)
        return lines
    attempt = tried.attempt
    when = ", ".join(part for part in (ago(tried.at, now), f"{tried.count} times alike" if tried.count > 1 else "") if part)
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


_WAITING = {
    WaitsFor.IMPORT: "wait for the import of {}",
    WaitsFor.REPAIR: "are about to get their image",
    WaitsFor.PULL: "have mirrorstream's reference, which the node cannot pull",
    WaitsFor.OWNER: "are not changed by mirrorstream",
}


def _pods(found: Sequence[HangingPod]) -> list[Line]:
    """Pods that hang, by what would help."""
    lines = [line(Span("Pods that hang", Style.BAD), Span(" (on the image of a Local tag)", Style.QUIET))]
    for group in grouped(found):
        names = list(dict.fromkeys(pod.name for pod in group))
        shown = ", ".join(names[:EXAMPLES]) + (f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else "")
        what = _WAITING[group[0].waits_for].format(group[0].tag)
        if len(names) == 1:
            what = (
                what.replace("wait for", "waits for").replace("are ", "is ", 1).replace("have ", "has ", 1).replace("their", "its")
            )
        lines.append(line(Span(f"{many(len(names), 'pod')} ", Style.TITLE), what, indent=2))
        lines += columns([(label("pods"), shown), (label("why"), group[0].why), (label("helps"), group[0].helps)], 4)
    return lines


def _scheduled(tags: Sequence[TagState]) -> list[Line]:
    """Scheduled tags that only mirrorstream imports, and how that ends."""
    title = Span("Failing at each scheduled import", Style.WARNING)
    lines = [line(title, Span(" (and healed each time: the platform has no tag mirror for the source)", Style.QUIET))]
    lines += [line(tag.name, indent=2) for tag in tags[:LISTED]]
    if len(tags) > LISTED:
        lines.append(line(Span(f"and {len(tags) - LISTED} more: -o yaml lists all", Style.QUIET), indent=2))
    rows = [(label("helps"), "`mirrorstream suggest` prints mirror sets with which the platform imports them itself")]
    if hint := skipping(tags):
        rows.append((label("or"), hint))
        rows.append((label("alert"), "SamplesImagestreamImportFailing counts each of these failures, although they heal"))
    return [*lines, *columns(rows, 4)]


def _rules(rules: Rules) -> list[Line]:
    if not rules.known:
        return [line(Span("Mirror rules: ", Style.TITLE), "not to be seen by you")]
    if not rules.objects:
        lines = [line(Span("Mirror rules: ", Style.TITLE), Span("there are none", Style.WARNING))]
    else:
        sources = sum(item.sources for item in rules.objects)
        head = f"{many(sources, 'source')} in {many(len(rules.objects), 'object')}"
        lines = [line(Span("Mirror rules: ", Style.TITLE), head)]
        lines += columns([(item.object, many(item.sources, "source")) for item in rules.objects[:LISTED]], 2)
        if len(rules.objects) > LISTED:
            lines.append(line(Span(f"and {len(rules.objects) - LISTED} more: -o yaml lists all", Style.QUIET), indent=2))
    if rules.warnings:
        lines.append(line(Span("Parts of them that cannot be used:", Style.WARNING)))
        lines += [line(str(warning), indent=2) for warning in rules.warnings]
    return lines
