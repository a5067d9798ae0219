"""One fixture for all back ends: scenarios do not know which one they run on."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from e2e.contract.registries import Registries
from e2e.kubeconfig import write_kubeconfig
from e2e.scenarios.cluster import Cluster, Namespace
from e2e.scenarios.program import Controller, controller
from e2e.simulator.settings import Settings, contract_settings
from e2e.simulator.simulator import Simulator

SCHEDULED_SECONDS = 1.5
_WRITES = {
    ("create", "imagestreamimports"),
    ("create", "images"),
    ("update", "status"),
    ("create", "events"),
    ("patch", "events"),
    ("create", "leases"),
    ("update", "leases"),
}

Start = Callable[..., Controller]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--kubeconfig F`: run on a cluster that exists instead of the simulator."""
    parser.addoption("--kubeconfig", metavar="F", help="an existing cluster with the settings of the recordings")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of this run, with the registries that scenarios name."""
    existing = request.config.getoption("--kubeconfig")
    with Registries(fixed_ports=bool(existing)) as registries:
        if existing:
            yield Cluster(Path(existing), registries)
            return
        with Simulator(scenario_settings(registries.hosts)) as simulator:
            kubeconfig = simulator.write_kubeconfig(tmp_path_factory.mktemp("cluster") / "kubeconfig")
            yield Cluster(kubeconfig, registries, simulator)


def scenario_settings(hosts: dict[str, str]) -> Settings:
    """The settings of the recordings, with quicker schedules, and allowing the loopback address by number."""
    settings = contract_settings(hosts)
    allowed = [*settings.image_config["allowedRegistriesForImport"], {"domainName": "127.0.0.1:*", "insecure": True}]
    insecure = [*settings.image_config["registrySources"]["insecureRegistries"], "127.0.0.1:" + hosts["good"].partition(":")[2]]
    sources = {**settings.image_config["registrySources"], "insecureRegistries": insecure}
    config = {**settings.image_config, "allowedRegistriesForImport": allowed, "registrySources": sources}
    importer = dataclasses.replace(settings.importer, timeout_seconds=3)
    return dataclasses.replace(settings, image_config=config, scheduled_interval=SCHEDULED_SECONDS, importer=importer)


@pytest.fixture
def simulated(cluster: Cluster) -> Cluster:
    """The cluster, for what only the simulator can be asked: faults, pauses, its log of requests."""
    if cluster.simulator is None:
        pytest.skip("only the simulator can be asked to do this")
    return cluster


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Make a simulated cluster with settings of its own, which `change(settings)` makes from the usual ones."""
    with ExitStack() as stack:

        def make(change: Callable[[Settings], Settings] = lambda settings: settings, without: tuple[str, ...] = ()) -> Cluster:
            registries = stack.enter_context(Registries())
            simulator = stack.enter_context(Simulator(change(scenario_settings(registries.hosts)), without=without))
            return Cluster(write_kubeconfig(tmp_path / "own-kubeconfig", simulator.url), registries, simulator)

        yield make


@pytest.fixture
def ns(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace for one scenario, in which at the end everything must be as the user wrote it, but for the status."""
    first = cluster.control("requests", method="GET")["last"] if cluster.simulator else 0
    with cluster.namespace() as namespace:
        yield namespace
        namespace.check_untouched()
    if cluster.simulator:
        requests = cluster.client.get("/simulator/requests", {"since": str(first), "userAgent": "^mirrorstream"})["requests"]
        for entry in requests:
            if entry["verb"] not in ("get", "list", "watch"):
                last = entry["path"].rstrip("/").split("/")
                assert {(entry["verb"], part) for part in last[-2:]} & _WRITES, f"an unexpected write: {entry}"


@pytest.fixture
def start(cluster: Cluster, ns: Namespace, tmp_path: Path) -> Iterator[Start]:
    """Start a controller that looks after the scenario's namespace; further configuration by section."""
    with ExitStack() as stack:

        def run(
            *arguments: str, on: Cluster | None = None, namespaces: dict[str, Any] | None = None, **sections: Any
        ) -> Controller:
            return stack.enter_context(
                controller(
                    (on or cluster).kubeconfig,
                    tmp_path,
                    configuration(ns, namespaces, **sections),
                    *(arguments or ("--no-leader-election",)),
                )
            )

        yield run


def configuration(ns: Namespace, namespaces: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """A configuration file's content that is limited to a namespace, with quick retries."""
    chosen = {
        "retry": {"initialSeconds": 0.5, "maximumSeconds": 2},
        "namespaces": namespaces if namespaces is not None else {"include": [ns.name]},
        **sections.pop("controller", {}),
    }
    return {"controller": chosen, **sections}
