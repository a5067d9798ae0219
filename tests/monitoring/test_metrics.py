"""What the programs expose: named by Prometheus' conventions, said in the documents, cheap to scrape."""

import re
import time

import pytest
from mirrorstream_controller.failing_tags import FailingState

from tests.monitoring.conftest import ROOT, Promtool
from tests.monitoring.exposed import PROGRAMS, Exposed, Registries

TABLE = "docs/monitoring.md"


def test_names_and_help_texts_follow_the_conventions(exposed: dict[str, Exposed]) -> None:
    """As far as one sees them by the name: a counter's total, base units, a help text that is a sentence."""
    assert len(exposed) > 25
    for name, metric in exposed.items():
        assert re.fullmatch(r"mirrorstream_[a-z]+(_[a-z]+)*", name)
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert not re.search(r"_(milliseconds|minutes|hours|days|count|sum|bucket)$", name), name
        assert len(metric.help) > 20, name
        assert not metric.help.endswith("."), name
        if "timestamp" in name:
            assert name.endswith("_timestamp_seconds"), name
            assert "as a Unix time" in metric.help, name


def test_what_only_the_leader_knows_says_so(exposed: dict[str, Exposed], programs: Registries) -> None:
    """A replica that stands by has none of it: its zero would be no answer."""
    leaders = {name for name, metric in exposed.items() if "only the leader has it" in metric.help}
    assert leaders >= {
        "mirrorstream_failing_tags",
        "mirrorstream_longest_failing_tag_timestamp_seconds",
        "mirrorstream_queue_depth",
    }
    election = programs.webhook._pending_pods.election
    programs.controller._leading = election.leading = False
    try:
        standing_by = programs.text("controller") + programs.text("webhook")
    finally:
        programs.controller._leading = election.leading = True
    assert not [name for name in leaders if name in standing_by]


@pytest.mark.parametrize("program", PROGRAMS)
def test_promtool_finds_nothing_to_say(program: str, programs: Registries, promtool: Promtool) -> None:
    """`promtool check metrics` on what a scrape gets."""
    found = promtool("check", "metrics", text=programs.text(program))
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_document_has_every_metric(exposed: dict[str, Exposed]) -> None:
    """The table is what is exposed now, word for word."""
    text = (ROOT / TABLE).read_text(encoding="utf-8")
    found = [line for line in text.splitlines() if line.startswith("| `mirrorstream_")]
    assert found == [_line(metric) for metric in exposed.values()], "the table in docs/monitoring.md must be:\n" + "\n".join(
        _line(metric) for metric in exposed.values()
    )


def _line(metric: Exposed) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {' and '.join(metric.programs)} | {metric.help} |"


@pytest.mark.parametrize("document", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_documents_name_metrics_that_exist(document: str, exposed: dict[str, Exposed]) -> None:
    """None names one that was renamed."""
    series = {name for metric in exposed.values() for name in metric.series()} | set(exposed)
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    words = set(re.findall(r"(?<![/\w])mirrorstream_[a-z_]+", text))
    assert words - series - {"mirrorstream_cli", "mirrorstream_controller", "mirrorstream_webhook"} == set()


def test_a_scrape_walks_through_no_tags(programs: Registries) -> None:
    """50,000 failing tags in 10,000 streams: a scrape takes milliseconds of CPU; a whole second would already be a look at each."""
    failing = programs.controller._reconciler.failing
    keys = [("ns", f"app-{n}") for n in range(10_000)]
    for number, key in enumerate(keys):
        failing.put(key, [FailingState.FAILING] * 4 + [FailingState.UNMIRRORED], float(number + 2))
    try:
        began = time.thread_time()
        text = programs.text("controller")
        assert time.thread_time() - began < 1
    finally:
        for key in keys:
            failing.put(key, ())
    assert 'mirrorstream_failing_tags{state="failing"} 40001.0' in text
    assert 'mirrorstream_failing_tags{state="unmirrored"} 10000.0' in text
