"""What `status` answers of many clusters: a line for each. What could not be asked is never taken for nothing; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mirrorstream.diagnose.causes import Group, tag_groups
from mirrorstream.diagnose.status import TITLES, StatusReport, many
from mirrorstream.diagnose.tag_status import BROKEN, State
from mirrorstream.text.sanitize import listed, shortened
from mirrorstream.text.terminal import Line, Span, Style, Text, blank, columns, comma_separated, line, notes

FAILING = 3
"""The exit status while something fails in one of the clusters."""
UNKNOWN = 1
"""The exit status if nothing is known to fail, and a cluster could not be asked."""
NAMED = 3
"""How many clusters a note names."""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """How a cluster stands, but for its single tags; `worst` is the largest group of tags that fail, None if nothing does."""

    context: str
    streams: int
    counts: Mapping[State, int]
    worst: Group | None
    pods: int | None
    """How many pods hang; None where pods may not be seen."""
    notes: tuple[str, ...]

    @property
    def broken(self) -> int:
        """How many tags fail that a mirror covers."""
        return sum(self.counts[state] for state in BROKEN)

    def document(self) -> dict[str, Any]:
        """The JSON and YAML form."""
        return {
            "context": self.context,
            "summary": {"streams": self.streams, "tags": {str(state): count for state, count in self.counts.items()}},
            "worst": self.worst.document() if self.worst else None,
            "pods": self.pods,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class UnaskedCluster:
    """A cluster that could not be asked, and why."""

    context: str
    error: str

    def document(self) -> dict[str, Any]:
        """The JSON and YAML form: no number stands for what is not known."""
        return {"context": self.context, "error": self.error}


Answer = ClusterStatus | UnaskedCluster
ERROR_LENGTH = 240
"""Of an error in the text; JSON and YAML have all of it."""


@dataclass(frozen=True, slots=True)
class FleetReport:
    """The whole answer; `namespace` is None for all."""

    namespace: str | None
    clusters: tuple[Answer, ...]

    @property
    def asked(self) -> list[ClusterStatus]:
        """Those that answered: the one with most failing tags first."""
        found = [cluster for cluster in self.clusters if isinstance(cluster, ClusterStatus)]
        return sorted(found, key=lambda cluster: (-cluster.broken, cluster.worst is None, cluster.context))

    @property
    def unasked(self) -> list[UnaskedCluster]:
        """Those that did not."""
        found = [cluster for cluster in self.clusters if isinstance(cluster, UnaskedCluster)]
        return sorted(found, key=lambda cluster: cluster.context)

    @property
    def exit_status(self) -> int:
        """FAILING if something fails in one, UNKNOWN if another could not be asked, else 0."""
        if any(cluster.broken for cluster in self.asked):
            return FAILING
        return UNKNOWN if self.unasked else 0

    def document(self) -> dict[str, Any]:
        """The JSON and YAML form."""
        return {
            "namespace": self.namespace,
            "clusters": [cluster.document() for cluster in self.asked],
            "unreachable": [cluster.document() for cluster in self.unasked],
        }


def cluster_status(context: str, report: StatusReport) -> ClusterStatus:
    """What a line tells of a cluster's whole answer. What a mirror covers is worse than what none does."""
    groups = [group for group in tag_groups(report.tags, hosted=report.hosted) if group.cause.state != State.PENDING]
    broken = [group for group in groups if group.cause.state in BROKEN]
    worst = next(iter([*broken, *groups]), None)
    pods = None if report.pods is None else len({pod.name for pod in report.pods})
    return ClusterStatus(context, report.streams, report.counts, worst, pods, report.notes)


def render_fleet(report: FleetReport) -> list[Text]:
    """How many clusters there are of each kind, a line for each cluster, and what the asking user should know."""
    lines: list[Text] = [_headline(report), blank()]
    failing = [cluster for cluster in report.asked if cluster.broken]
    others = [cluster for cluster in report.asked if not cluster.broken]
    unasked = [
        (Span(each.context, Style.TITLE), Span("cannot be asked", Style.BAD), Span(shortened(each.error, ERROR_LENGTH)))
        for each in report.unasked
    ]
    # Not as a table, which shortens what is too wide: numbers and contexts stay whole.
    lines += columns([*map(_row, failing), *unasked, *map(_row, others)], 0)
    if said := _notes(report.asked):
        lines += [blank(), *notes(said)]
    if failing:
        where = f"-n {report.namespace}" if report.namespace else "-A"
        lines += [blank(), line(f"More: `mirrorstream status {where} --context {failing[0].context}`")]
    return lines


def _headline(report: FleetReport) -> Line:
    asked, unasked = report.asked, report.unasked
    failing = sum(cluster.broken > 0 for cluster in asked)
    parts = [
        Span(f"{count} {text}", style)
        for count, text, style in (
            (failing, "with failing tags", Style.BAD),
            (len(unasked), "that cannot be asked", Style.BAD),
            (len(asked) - failing, "other" + "s" * (len(asked) - failing != 1), Style.PLAIN),
        )
        if count
    ]
    where = f"Namespace {report.namespace} of " if report.namespace else ""
    return line(Span(f"{where}{many(len(report.clusters), 'cluster')}: ", Style.TITLE), *comma_separated(parts))


def _row(cluster: ClusterStatus) -> tuple[Span, ...]:
    wrong = [state for state in TITLES if cluster.counts[state] and state is not State.HEALED]
    parts = [f"{cluster.counts[state]} {state}" for state in wrong]
    if cluster.pods:
        parts.append(f"{many(cluster.pods, 'pod')} hang" + ("s" if cluster.pods == 1 else ""))
    if not cluster.streams:
        parts.append("there is no ImageStream")
    elif not parts:
        parts.append(f"nothing fails ({many(sum(cluster.counts.values()), 'tag')}, {cluster.counts[State.HEALED]} healed)")
    style = TITLES[wrong[0]][1] if wrong else Style.WARNING if cluster.pods else Style.GOOD
    worst = f"{len(cluster.worst.subjects)} {cluster.worst.cause.state}: {cluster.worst.cause.text}" if cluster.worst else ""
    return Span(cluster.context, Style.TITLE), Span(", ".join(parts), style), Span(worst)


def _notes(clusters: Iterable[ClusterStatus]) -> list[str]:
    """What could not be seen, each once, with the clusters in which it was so."""
    found: dict[str, list[str]] = {}
    for cluster in clusters:
        for note in cluster.notes:
            found.setdefault(note, []).append(cluster.context)
    return [f"{listed(contexts, NAMED)}: {note}" for note, contexts in found.items()]
