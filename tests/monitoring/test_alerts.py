"""The alerts: each fires when it should and not in a rollout, names what exists, and leads to a runbook that says what to do."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.conftest import COMPONENT, ROOT, Promtool
from tests.monitoring.exposed import Exposed
from tests.monitoring.naming import check

RULES_TEST = Path(__file__).with_name("rules_test.yaml")
NORMAL = ("a rollout", "only the webhook is installed", "scaled to nothing")
RUNBOOKS = "https://mirrorstream.github.io/mirrorstream/monitoring/#"
Alert = dict[str, Any]


def test_every_alert_says_what_happened_and_where_to_read_on(alerts: list[Alert]) -> None:
    """A severity that OpenShift knows, a summary of one sentence, a description with the labels' values, a runbook."""
    for alert in alerts:
        name, annotations = alert["alert"], alert["annotations"]
        assert name.startswith("Mirrorstream")
        assert alert["labels"] in ({"severity": "warning"}, {"severity": "info"}), name
        assert alert["for"], name
        assert set(annotations) == {"summary", "description", "runbook_url"}, name
        assert annotations["summary"].endswith("."), name
        assert "{{ $labels." in annotations["description"], name
        assert annotations["runbook_url"] == RUNBOOKS + name.lower()


def test_every_alert_has_a_runbook_and_every_runbook_an_alert(alerts: list[Alert]) -> None:
    """Under a heading that is the alert's name, so that the link's anchor is there."""
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (\w+)$", text, re.MULTILINE) == [alert["alert"] for alert in alerts]
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        for part in ("**Meaning.**", "**Impact.**", "**Diagnosis.**", "**Fix.**"):
            assert part in section, (section.split("\n", 1)[0], part)


def test_the_guide_lists_every_alert(alerts: list[Alert]) -> None:
    """With its severity, and a link to the runbook."""
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \|", text, re.MULTILINE)
    assert found == [(alert["alert"], alert["alert"].lower(), alert["labels"]["severity"]) for alert in alerts]


def test_alerts_name_what_exists(alerts: list[Alert], exposed: dict[str, Exposed]) -> None:
    """Metrics and labels: a renamed one would be an alert that never fires."""
    for alert in alerts:
        assert check(alert["expr"], exposed) == [], alert["alert"]


def test_labels_of_the_texts_are_those_of_the_alert(alerts: list[Alert]) -> None:
    """A label that the expression does not keep would be an empty place in the text."""
    for alert in alerts:
        used = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
        grouped = re.findall(r"\bby \(([^)]*)\)", alert["expr"])
        # Without a grouping the series' own labels stay: those of a target.
        kept = {label.strip() for labels in grouped for label in labels.split(",")} or {"namespace", "service", "pod"}
        assert used <= kept, alert["alert"]


def test_every_alert_is_shown_to_fire_and_to_be_quiet(alerts: list[Alert]) -> None:
    """In the tests that promtool runs."""
    groups = {group["name"]: group["alert_rule_test"] for group in yaml.safe_load(RULES_TEST.read_text(encoding="utf-8"))["tests"]}
    names = {alert["alert"] for alert in alerts}
    assert {case["alertname"] for cases in groups.values() for case in cases if case["exp_alerts"]} == names
    for normal in NORMAL:
        assert {case["alertname"] for case in groups[normal] if not case["exp_alerts"]} == names, normal


@pytest.fixture
def rules(tmp_path: Path, spec: dict[str, Any]) -> Path:
    """The rules in Prometheus' own format, beside their tests."""
    (tmp_path / "rules_test.yaml").write_bytes(RULES_TEST.read_bytes())
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def test_promtool_runs_the_tests_of_the_rules(rules: Path, promtool: Promtool) -> None:
    """Each alert fires, with its texts, and none does in a rollout."""
    checked = promtool("check", "rules", str(rules))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool("test", "rules", str(rules.with_name("rules_test.yaml")))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_service_monitors_name_no_file() -> None:
    """The monitoring of user-defined projects would refuse them."""
    for program in ("controller", "webhook"):
        text = (COMPONENT / f"{program}_service_monitor.yaml").read_text(encoding="utf-8")
        (endpoint,) = yaml.safe_load(text)["spec"]["endpoints"]
        assert (endpoint["port"], endpoint["scheme"]) == ("metrics", "https")
        assert not re.search(r"File\b", text)
        assert endpoint["tlsConfig"]["serverName"] == f"mirrorstream-{program}.mirrorstream.svc"
