"""What every test of a fault has: something between the program and its API server, and a place for what it saw."""

import dataclasses
import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.scenarios.conftest import Start, configuration
from e2e.testbed.backends import EXISTING
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.faults.pods import Served
from e2e.testbed.faults.reliability import PROPERTY, Case
from e2e.testbed.faults.team import Replica, Team
from e2e.testbed.interceptor import Interceptor, intercepted
from e2e.testbed.programs.installed import mirrored
from e2e.testbed.programs.program import Controller, running
from e2e.testbed.programs.replicas import Replicas

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
    if marker and (report.when == "call" or not report.passed):
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


@pytest.fixture(scope="module")
def served(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all of these tests, and nobody heals any more."""
    if cluster.backend == EXISTING:
        pytest.skip("an existing cluster's API server does not reach a webhook of this machine")
    with cluster.namespace() as ns:
        controller = Controller(cluster.program, tmp_path_factory.mktemp("healed"), configuration(ns), "--no-leader-election")
        with running(controller):
            source, target = mirrored(ns)
        yield Served(ns, source, target)
        ns.check_untouched()


@pytest.fixture
def replicas(cluster: Cluster, served: Served, tmp_path: Path) -> Iterator[Replicas]:
    """None to begin with."""
    with ExitStack() as stack:
        yield Replicas(cluster, served.ns, tmp_path, stack)


def allow(cluster: Cluster, registry: str) -> None:
    """Make a registry of a test's own (`host:port`) known to the cluster as insecure."""
    if not cluster.is_ours:
        pytest.skip("the cluster's settings are not ours to change")
    cluster.change_image_config(lambda spec: spec["registrySources"]["insecureRegistries"].append(registry))
