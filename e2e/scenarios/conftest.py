"""One fixture for all back ends: scenarios do not know which one they run on."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from e2e.testbed.backends import (
    CONTROLPLANE,
    EXISTING,
    PLANES,
    SIMULATOR,
    Choice,
    Shared,
    scenario_settings,
    with_own_registry,
)
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.controllers.scc import SecurityContextConstraints
from e2e.testbed.controlplane.arguments import OWN_NAMESPACE
from e2e.testbed.controlplane.build import components
from e2e.testbed.installation import CONTROLLER, WEBHOOK, Installation
from e2e.testbed.kubelet.pulls import Pulls
from e2e.testbed.node.images import base
from e2e.testbed.owncluster import new_cluster, simulated_registry
from e2e.testbed.programs.hooks import registered, wait_asked
from e2e.testbed.programs.installed import Bed, new_bed
from e2e.testbed.programs.program import Controller, Webhook, running
from e2e.testbed.registries.recorded import Registries
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.simulator import Simulator

_WRITES = {
    ("create", "imagestreamimports"),
    ("create", "images"),
    ("patch", "images"),
    ("update", "status"),
    ("create", "events"),
    ("patch", "events"),
    ("create", "leases"),
    ("update", "leases"),
    ("create", "subjectaccessreviews"),
    ("patch", "pods"),
}

Start = Callable[..., Controller]
Kubelet = Callable[..., None]
Hook = Callable[..., Webhook]
Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cluster(shared: Shared | None, worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of this run, with the registries that scenarios name."""
    runnable = base() if shared and shared.node else None
    with Registries(shared.ports[worker_id] if shared else None, base=runnable) as registries:
        if shared:
            yield Cluster.of(shared, registries)
            return
        settings = with_own_registry(scenario_settings([registries.hosts]))
        folder = tmp_path_factory.mktemp("cluster")
        with ExitStack() as stack:
            simulator = stack.enter_context(Simulator(settings, pull_secrets=True))
            stack.enter_context(simulated_registry(simulator, folder))
            stack.enter_context(SecurityContextConstraints(simulator.client("scc"), folder / "scc"))
            yield Cluster.simulated(simulator, folder / "kubeconfig", registries)


@pytest.fixture
def simulated(cluster: Cluster) -> Cluster:
    """The cluster, for what only the simulator's image API can be asked: faults, pauses."""
    if cluster.controls is None:
        pytest.skip("only the simulator can be asked to do this")
    return cluster


@pytest.fixture
def observed(cluster: Cluster) -> Cluster:
    """The cluster, for what needs to see mirrorstream's requests."""
    if cluster.log is None:
        pytest.skip("nobody shows us this cluster's log of requests")
    return cluster


@pytest.fixture
def authorized(cluster: Cluster) -> Cluster:
    """A cluster with RBAC, workloads and CEL: a kube-apiserver and its controllers, on which we may make users and roles."""
    if cluster.backend not in PLANES:
        pytest.skip("needs a real kube-apiserver, and roles of our own on it")
    return cluster


@pytest.fixture
def own_cluster(chosen: Choice, built: None, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Make a cluster with settings of its own, which `change(settings)` makes from the usual ones."""
    if chosen.backend not in (SIMULATOR, CONTROLPLANE):
        pytest.skip("only a simulated image API can be made like this")
    with ExitStack() as stack:

        def make(change: Callable[[Settings], Settings] = lambda settings: settings, without: tuple[str, ...] = ()) -> Cluster:
            return new_cluster(stack, chosen, tmp_path, change, without=without)

        yield make


@pytest.fixture
def ns(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace for one scenario, in which at the end everything must be as the user wrote it, but for the status.

    mirrorstream may have written nothing else, and nothing that it asked for may have been forbidden.
    """
    mark = cluster.log.mark() if cluster.log else 0
    with cluster.namespace() as namespace:
        yield namespace
        namespace.check_untouched()
    for request in cluster.requests(mark) if cluster.log else []:
        if request.user in (f"system:serviceaccount:{OWN_NAMESPACE}:{account}" for account in (CONTROLLER, WEBHOOK)):
            assert not request.forbidden, f"the roles are not enough: {request}"
        if request.verb not in ("get", "list", "watch"):
            last = request.path.rstrip("/").split("/")
            assert {(request.verb, part) for part in last[-2:]} & _WRITES, f"an unexpected write: {request}"


@pytest.fixture
def start(cluster: Cluster, ns: Namespace, tmp_path: Path) -> Iterator[Start]:
    """Start a controller that looks after the scenario's namespace; further configuration by section."""
    with ExitStack() as stack:

        def run(
            *arguments: str,
            on: Cluster | None = None,
            program: Path | None = None,
            namespaces: dict[str, Any] | None = None,
            environment: Mapping[str, str] | None = None,
            **sections: Any,
        ) -> Controller:
            settings = configuration(ns, namespaces, **sections)
            kubeconfig = program or (on or cluster).program
            chosen = arguments or ("--no-leader-election",)
            return stack.enter_context(running(Controller(kubeconfig, tmp_path, settings, *chosen, environment=environment)))

        yield run


@pytest.fixture
def hook(cluster: Cluster, ns: Namespace, tmp_path: Path) -> Iterator[Hook]:
    """Start a webhook that the cluster asks about the scenario's pods, and those of `more` namespaces; configuration by section."""
    if cluster.backend == EXISTING:
        pytest.skip("an existing cluster's API server does not reach a webhook of this machine")
    with ExitStack() as stack:

        def run(*more: Namespace, **sections: Any) -> Webhook:
            # One that mends pods would mend those of every test on this cluster.
            sections["webhook"] = {"pendingPods": "report", **sections.get("webhook", {})}
            program = stack.enter_context(running(Webhook(cluster.webhook, tmp_path, sections)))
            stack.enter_context(registered(program, ns.client, [ns.name, *(other.name for other in more)]))
            wait_asked(program, ns)
            return program

        yield run


@pytest.fixture
def kubelet(cluster: Cluster) -> Iterator[Kubelet]:
    """Have images of some namespaces' pods pulled, and pods' statuses say what came of it; a real node does that by itself.

    `back_off` is the first wait after a failed pull, in seconds, where no node has its own.
    """
    if cluster.backend == EXISTING:
        pytest.skip("its pods have a kubelet of their own, or none")
    with ExitStack() as stack:

        def run(*namespaces: Namespace, back_off: float = 1.0) -> None:
            if cluster.node is None:
                stack.enter_context(Pulls(cluster.client, [ns.name for ns in namespaces], back_off=back_off))

        yield run


@pytest.fixture
def kubectl(ns: Namespace, cluster: Cluster, chosen: Choice, tmp_path: Path) -> Kubectl:
    """Run kubectl in the scenario's namespace."""
    if chosen.backend == SIMULATOR:
        pytest.skip("kubectl comes with the real control plane")
    program = shutil.which("kubectl") if chosen.backend == EXISTING else str(components() / "kubectl")
    if not program:
        pytest.skip("there is no kubectl")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [program, "--kubeconfig", str(cluster.kubeconfig), "--cache-dir", str(tmp_path / "cache"), "-n", ns.name]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=300)

    return run


@pytest.fixture
def own_account(cluster: Cluster, ns: Namespace, tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig of a service account in the scenario's namespace: mirrorstream as if it were installed there."""
    if cluster.backend not in PLANES:
        yield cluster.program
        return
    with Installation(cluster.client, ns.name) as installation:
        installation.wait_effective()
        yield installation.kubeconfig(tmp_path / "own-account.kubeconfig", cluster.kubeconfig)


def configuration(ns: Namespace, namespaces: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """A configuration file's content that is limited to a namespace, with quick retries."""
    chosen = {
        "retry": {"initialSeconds": 0.5, "maximumSeconds": 2},
        "namespaces": namespaces if namespaces is not None else {"include": [ns.name]},
        **sections.pop("controller", {}),
    }
    return {"controller": chosen, **sections}


@pytest.fixture(scope="module")
def bed(chosen: Choice, built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A control plane of the module's own, to install mirrorstream on."""
    if chosen.backend not in PLANES:
        pytest.skip("installs on a control plane of its own")
    with new_bed(chosen, tmp_path_factory.mktemp("bed")) as found:
        yield found


@pytest.fixture
def user(bed: Bed) -> Iterator[Namespace]:
    """A user's namespace there, in which at the end everything is as the user wrote it."""
    with bed.cluster.namespace() as namespace:
        yield namespace
        namespace.check_untouched()
