"""A cluster for one scenario, or for those of one module, with settings of its own."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from e2e.testbed.backends import (
    SIMULATOR,
    Choice,
    free_ports,
    hosted_plane,
    hosts_at,
    installed,
    internal_registry,
    scenario_settings,
    with_own_registry,
)
from e2e.testbed.cluster import Cluster
from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.plane import ControlPlane
from e2e.testbed.hosted import WATCH_LIST, set_up
from e2e.testbed.registries.internal import InternalRegistry
from e2e.testbed.registries.recorded import Registries
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.simulator import Simulator


def simulated_registry(simulator: Simulator, folder: Path) -> InternalRegistry:
    """The internal registry of a simulated cluster."""
    return InternalRegistry(simulator.client("internal-registry"), simulator.settings.internal_registry, folder)


def new_cluster(
    stack: ExitStack,
    chosen: Choice,
    folder: Path,
    change: Callable[[Settings], Settings] = lambda settings: settings,
    *,
    without: tuple[str, ...] = (),
    hosted: bool = False,
) -> Cluster:
    """A simulator, or a control plane, whose settings `change(settings)` makes from the usual ones; `stack` ends it.

    `without` names resources that it does not serve. `hosted`: its control plane runs elsewhere, see `hosted.py`.
    """
    ports = free_ports()
    registries = stack.enter_context(Registries(ports))
    settings = change(with_own_registry(scenario_settings([hosts_at(ports)])))
    if chosen.backend == SIMULATOR:
        simulator = stack.enter_context(Simulator(settings, without=without, pull_secrets=True))
        stack.enter_context(simulated_registry(simulator, folder))
        cluster = Cluster.simulated(simulator, folder / "own-kubeconfig", registries)
        if hosted:
            cluster.platform = simulator.client("platform")
            set_up(cluster.client, cluster.platform, refusing=False)
        return cluster
    gates = WATCH_LIST if hosted else {}
    plane = stack.enter_context(ControlPlane(folder / "own", components(), settings, without=without, feature_gates=gates))
    stack.enter_context(internal_registry(plane, settings))
    shared = installed(plane, chosen.backend)
    cluster = Cluster.of(replace(shared, platform=hosted_plane(plane)) if hosted else shared, registries)
    cluster.plane = plane
    return cluster
