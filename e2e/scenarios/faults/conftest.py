"""What every test of a fault has: something between the program and its API server, and a place for what it saw."""

import dataclasses
import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.interceptor import Interceptor, intercepted
from e2e.reliability import PROPERTY, Case
from e2e.scenarios.cluster import Cluster, Namespace
from e2e.scenarios.conftest import Start
from e2e.scenarios.faults.team import Replica, Team

Saw = dict[str, str]
_SAW = pytest.StashKey[Saw]()


@pytest.fixture
def saw(request: pytest.FixtureRequest) -> Saw:
    """Figures of this test for the table, each a name and a text: `saw["handover"] = "0.4 s"`."""
    found: Saw = request.node.stash.setdefault(_SAW, {})
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hand a case of the table to the process that collects them."""
    report = yield
    marker = item.get_closest_marker(PROPERTY)
    if marker and (report.when == "call" or report.skipped):
        subject, fault, promise = marker.args
        seen = item.stash.get(_SAW, {})
        case = Case(subject, fault, promise, item.nodeid, report.outcome, round(report.duration, 1), seen)
        report.user_properties.append((PROPERTY, json.dumps(dataclasses.asdict(case))))
    return report


@pytest.fixture
def between(cluster: Cluster, tmp_path: Path) -> Iterator[Interceptor]:
    """What the controller's requests pass; start it with `program=between.kubeconfig`."""
    with intercepted(cluster.program, tmp_path) as found:
        yield found


@pytest.fixture
def team(ns: Namespace, observed: Cluster, start: Start, own_account: Path, tmp_path: Path) -> Iterator[Team]:
    """Replicas whose lease is in the scenario's namespace, each behind something of its own."""
    with ExitStack() as stack:

        def make(mark: str, environment: Mapping[str, str]) -> Replica:
            folder = tmp_path / mark.replace("/", "-")
            folder.mkdir()
            between = stack.enter_context(intercepted(own_account, folder, mark))
            program = start("--namespace", ns.name, program=between.kubeconfig, environment=environment)
            return Replica(mark, program, between)

        yield Team(ns, observed, make)
