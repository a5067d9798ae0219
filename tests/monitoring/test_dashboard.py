"""The console's dashboard: panels that the console can draw, with queries for metrics that exist."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.conftest import COMPONENT, Promtool
from tests.monitoring.exposed import Exposed
from tests.monitoring.naming import check
from tests.monitoring.promql import named

BOARD: dict[str, Any] = json.loads((COMPONENT / "dashboard.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [panel for row in BOARD["rows"] for panel in row["panels"]]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_the_console_can_draw_every_panel(panel: dict[str, Any]) -> None:
    """It knows few types and few of their fields; what it does not know it leaves out without a word."""
    assert panel["type"] in {"graph", "singlestat", "table"}
    assert panel["title"]
    assert 1 <= panel["span"] <= 12
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == [chr(ord("A") + number) for number in range(len(letters))]
    if panel["type"] == "singlestat":
        assert len(letters) == 1, "only the first is shown"
        assert [m["text"] for m in panel["valueMaps"] if m["value"] == "null"], "what is said where there is no series"
    if panel["type"] == "table":
        shown = [style for style in panel["styles"] if style["type"] != "hidden"]
        assert [style["pattern"] for style in shown][-1] == "Value #A"
        assert all(style["alias"] for style in shown)
    if panel["type"] == "graph":
        assert all(target["legendFormat"] for target in panel["targets"])


def test_panels_have_numbers_of_their_own_and_no_variables() -> None:
    """The console would draw two panels of one number as one; nothing has to be chosen before something is shown."""
    numbers = [panel["id"] for panel in PANELS]
    assert len(numbers) == len(set(numbers))
    assert [variable["name"] for variable in BOARD["templating"]["list"]] == ["datasource"]
    assert all("$" not in query for query in QUERIES)


@pytest.mark.parametrize("query", QUERIES)
def test_queries_name_what_exists(query: str, exposed: dict[str, Exposed]) -> None:
    """Metrics and labels."""
    assert check(query, exposed) == []


@pytest.mark.parametrize(
    ("code", "shown"), [("200", False), ("404", False), ("409", False), ("403", True), ("429", True), ("503", True), ("none", True)]
)
def test_refused_requests_are_those_that_nobody_expects(code: str, shown: bool) -> None:
    """An Image that is there already is a 409, one that is gone a 404: both are part of the work."""
    (query,) = [query for query in QUERIES if "mirrorstream_api_requests_total{" in query]
    (pattern,) = re.findall(r'code!~"([^"]*)"', query)
    assert (not re.fullmatch(pattern, code)) is shown


def test_every_metric_of_ours_is_shown_or_left_out_on_purpose(exposed: dict[str, Exposed]) -> None:
    """A metric that nobody looks at is one that nobody needs."""
    shown = frozenset[str]().union(*(named(query).metrics for query in QUERIES))
    missing = {name for name, metric in exposed.items() if not shown & {name, *metric.series()}}
    assert missing == {
        "mirrorstream_configuration_last_reload_timestamp_seconds",
        "mirrorstream_configuration_reloads_total",
        "mirrorstream_events_dropped_total",
        "mirrorstream_informer_malformed_objects_total",
        "mirrorstream_informer_objects",
        "mirrorstream_metrics_certificate_start_timestamp_seconds",
        "mirrorstream_webhook_certificate_start_timestamp_seconds",
        "mirrorstream_webhook_legacy_tags",
    }


def test_promtool_can_read_every_query(tmp_path: Path, promtool: Promtool) -> None:
    """As the expression of a rule."""
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    found = promtool("check", "rules", "--lint=none", str(path))
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("expression", "problems"),
    [
        ("sum(mirrorstream_leader)", []),
        ("sum(mirrorstream_leaders)", ["metric mirrorstream_leaders"]),
        ('mirrorstream_leader{replica="a"}', ["label replica of mirrorstream_leader"]),
        ("rate(mirrorstream_imports[5m])", ["metric mirrorstream_imports"]),
        ("sum by (outcome) (rate(mirrorstream_imports_total[5m]))", ["grouping by outcome"]),
        ("sum by (le) (rate(mirrorstream_heal_seconds_bucket[5m]))", []),
        ("mirrorstream_leader unless on (pod) gone == 1", ["metric gone"]),
    ],
)
def test_the_check_itself(expression: str, problems: list[str], exposed: dict[str, Exposed]) -> None:
    """It finds what it is for."""
    assert check(expression, exposed) == problems
