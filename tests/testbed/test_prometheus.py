"""The pace at which a real Prometheus is tried: an hour in a minute, and nothing else changed."""

from pathlib import Path

import pytest
import yaml

from e2e.testbed.prometheus.board import queries
from e2e.testbed.prometheus.pace import duration, expression, rules
from e2e.testbed.prometheus.package import NoPrometheusError, program
from e2e.testbed.support.kustomize import CONFIG

SPEC = yaml.safe_load((CONFIG / "components" / "monitoring" / "prometheus_rule.yaml").read_text(encoding="utf-8"))["spec"]


@pytest.mark.parametrize(
    ("text", "shorter"),
    [
        ("max by (pod) (stale_seconds) > 300", "max by (pod) (stale_seconds) > 5"),
        (
            "time() - min(min_over_time(failing_timestamp[5m])) > 2700",
            "time() - min(min_over_time(failing_timestamp[5000ms])) > 45",
        ),
        ("sum(leader) > 1", "sum(leader) > 1"),
        (
            "(expiry - time() < 7 * 86400) and expiry - time() < 0.2 * life",
            "(expiry - time() < 7 * 1440) and expiry - time() < 0.2 * life",
        ),
        ('rate(requests_total{code!~"2..|404|409"}[5m])', 'rate(requests_total{code!~"2..|404|409"}[5000ms])'),
        ("increase(answers_total[1d])", "increase(answers_total[1440000ms])"),
    ],
)
def test_times_are_sixty_times_as_short(text: str, shorter: str) -> None:
    """Ranges and waiting times; not numbers of leaders, shares, or what is quoted."""
    assert expression(text) == shorter


def test_rules_keep_all_but_their_times() -> None:
    """Names, labels, texts, and which rules there are."""
    quick = rules(SPEC)
    assert duration("30m") == "30000ms"
    for before, after in zip(SPEC["groups"], quick["groups"], strict=True):
        for rule, quicker in zip(before["rules"], after["rules"], strict=True):
            assert {key: rule[key] for key in rule if key not in ("expr", "for")} == {
                key: quicker[key] for key in quicker if key not in ("expr", "for")
            }
            assert quicker["for"] == duration(rule["for"])


def test_every_query_of_the_dashboard_is_read() -> None:
    """With its panel's title, and a legend where it draws lines."""
    assert len({query.panel for query in queries()}) == 32
    assert all(query.legend for query in queries() if query.kind == "graph")


def test_without_a_prometheus_it_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No program, and nothing to get one with."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoPrometheusError, match="no prometheus on the PATH, and no apt-get"):
        program()
