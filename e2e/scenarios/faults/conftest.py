"""What every test of a fault has: something between the program and its API server, and a place for what it saw."""

import dataclasses
import json
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from e2e.interceptor import Interceptor, intercepted
from e2e.reliability import PROPERTY, Case
from e2e.scenarios.cluster import Cluster

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
