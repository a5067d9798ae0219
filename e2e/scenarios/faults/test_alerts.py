"""A real Prometheus scrapes installations with faults and one that is well: alerts fire where they should, and panels show data.

An hour of the alerts takes a minute here (`e2e/testbed/prometheus/pace.py`); otherwise they are what users install.
"""

import contextlib
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.testbed.backends import PLANES
from e2e.testbed.cluster import Cluster
from e2e.testbed.programs.hooks import registered, wait_asked
from e2e.testbed.programs.program import Webhook
from e2e.testbed.prometheus.board import Query, queries
from e2e.testbed.prometheus.pace import rules
from e2e.testbed.prometheus.package import NoPrometheusError, program
from e2e.testbed.prometheus.server import Prometheus
from e2e.testbed.prometheus.sites import FAULTY, BrokenWebhook, Site, api_server, healthy, kube_state, review
from e2e.testbed.simulator import server as simulated
from e2e.testbed.support.kustomize import CONFIG
from e2e.testbed.support.waiting import wait_for

RULE = CONFIG / "components" / "monitoring" / "prometheus_rule.yaml"
WELL = "healthy"
FAILING_OPEN = "MirrorstreamWebhookFailingOpen"
API_SERVERS = "apiserver_"
"""How the metrics begin that only a real API server has."""
LATER = {("MirrorstreamTagsFailing", "stuck")}
"""On a slow machine it fires before the last of the others, and rightly: nothing heals there."""
Fired = set[tuple[str, str]]
Object = dict[str, Any]


@dataclass(frozen=True)
class Scraped:
    """What was scraped until every alert had fired that should: the installations' namespaces and alerts."""

    fired: Fired
    expected: Fired
    told: list[Object]
    """The alerts that fire in the end."""
    shown: dict[Query, list[Object]]
    """The series of the dashboard's queries in the end."""
    has_api_server: bool


def _failing_open(stack: ExitStack, cluster: Cluster, folder: Path) -> Callable[[], object]:
    """A webhook that the API server asks, and that is gone; call the result to create a pod."""
    user = stack.enter_context(cluster.namespace())
    webhook = Webhook(cluster.webhook, folder, {"webhook": {"pendingPods": "report"}})
    stack.callback(webhook.process.kill)
    webhook.wait_ready()
    stack.enter_context(registered(webhook, user.client, [user.name]))
    wait_asked(webhook, user)
    webhook.process.kill()
    return lambda: user.pod("app", "example.com/app", dry_run=True)


@pytest.fixture(scope="module")
def scraped(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Scraped:
    """Everything is scraped from the start of the programs until the last alert has fired."""
    try:
        found = program()
    except NoPrometheusError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("scraped")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated, "BOOKMARK_SECONDS", 1.0)
        sites = {label: Site(label, folder / label, stack) for label in (WELL, *FAULTY)}
        live = healthy(sites[WELL])
        faults = [start(sites[label]) for label, (start, _) in FAULTY.items()]
        targets = [target for site in sites.values() for target in site.targets]
        targets.append(stack.enter_context(kube_state(sites.values())))
        expected = {(alert, label) for label, (_, alerts) in FAULTY.items() for alert in alerts}
        goes_on: list[Callable[[], object]] = []
        if has_api_server := cluster.backend in PLANES:
            goes_on.append(_failing_open(stack, cluster, folder))
            targets.append(api_server(cluster.kubeconfig))
            expected.add((FAILING_OPEN, ""))
        for site in sites.values():
            site.wait_ready()
        spec = yaml.safe_load(RULE.read_text(encoding="utf-8"))["spec"]
        prometheus = stack.enter_context(Prometheus(found, folder / "prometheus", targets, rules(spec)))
        for begin in faults:
            begin()
        broken = next(one for site in sites.values() for one in site.programs if isinstance(one, BrokenWebhook))
        goes_on += [live().go_on, lambda: review(broken)]

        def all_fire() -> bool:
            for go_on in goes_on:
                go_on()
            return {_named(alert["labels"]) for alert in prometheus.alerts()} >= expected

        with contextlib.suppress(AssertionError):  # which one does not, the first test says
            wait_for("every alert fires that should", all_fire, step=0.3)
        ever = prometheus.query('max_over_time(ALERTS{alertstate="firing"}[1h])')
        fired = {_named(series["metric"]) for series in ever}
        shown = {query: prometheus.query(query.expression) for query in queries()}
        told = prometheus.alerts()
    return Scraped(fired, expected, told, shown, has_api_server)


def _named(labels: dict[str, str]) -> tuple[str, str]:
    return labels["alertname"], labels.get("namespace", "")


@pytest.mark.fault(
    "Monitoring", "Each fault that an alert is for, beside an installation that is well", "Only its alert fires, only there"
)
def test_each_alert_fires_where_its_fault_is_and_nowhere_else(scraped: Scraped) -> None:
    """And none has at any time of the installation that is well: it healed streams and rewrote pods all the while."""
    assert scraped.fired - LATER == scraped.expected
    alerts = {
        rule["alert"] for group in yaml.safe_load(RULE.read_text(encoding="utf-8"))["spec"]["groups"] for rule in group["rules"]
    }
    assert {name for name, _ in scraped.expected} == alerts - (set() if scraped.has_api_server else {FAILING_OPEN})


def test_texts_of_alerts_are_filled(scraped: Scraped) -> None:
    """With the labels and values of what fired."""
    assert scraped.told
    for alert in scraped.told:
        told = alert["annotations"]
        assert "<no value>" not in f"{told}", alert
        assert "  " not in f"{told}", alert
        assert alert["labels"].get("namespace", "pods.mirrorstream.github.io") in told["description"], alert


@pytest.mark.parametrize("query", queries(), ids=lambda query: f"{query.panel}-{query.title}")
def test_each_panel_of_the_dashboard_shows_data(query: Query, scraped: Scraped) -> None:
    """Every query of it answers with numbers, and a legend of which each label has a value."""
    if query.expression.partition(API_SERVERS)[1] and not scraped.has_api_server:
        pytest.skip("only a real API server has this metric")
    found = scraped.shown[query]
    assert any(not math.isnan(float(series["value"][1])) for series in found), found
    for label in query.labels():
        assert all(series["metric"].get(label) for series in found), (label, found)
