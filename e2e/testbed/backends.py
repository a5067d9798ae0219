"""What the end-to-end suite runs on: chosen on the command line, started once for all of a run's processes."""

import contextlib
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mirrorstream.kube.client import Client, load_client

from e2e.testbed.controllers.scc import SecurityContextConstraints
from e2e.testbed.controlplane.arguments import OWN_NAMESPACE, SERVICES
from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.openshift import missing_programs
from e2e.testbed.controlplane.plane import MASTERS, ControlPlane
from e2e.testbed.controlplane.registry_program import RegistryProgram
from e2e.testbed.hosted import PLATFORM, WATCH_LIST, set_up
from e2e.testbed.installation import CONTROLLER, PENDING_PODS, WEBHOOK, Installation
from e2e.testbed.node.build import programs
from e2e.testbed.node.node import Node
from e2e.testbed.node.slot import Slot
from e2e.testbed.node.view import NodeView
from e2e.testbed.registries.internal import SERVICE_NAME, InternalRegistry
from e2e.testbed.simulator.settings import CONTRACT_PORTS, Settings, contract_settings
from e2e.testbed.support.certificates import Authority, Pair
from e2e.testbed.support.ports import free_port

SIMULATOR, CONTROLPLANE, OPENSHIFT, NODE, EXISTING = "simulator", "controlplane", "openshift", "node", "kubeconfig"
PLANES = (CONTROLPLANE, OPENSHIFT, NODE)
"""Those with a real kube-apiserver of our own."""
SCHEDULED_SECONDS = 1.5
Ports = dict[str, int]


def add_options(parser: pytest.Parser) -> None:
    """The back end's options."""
    group = parser.getgroup("mirrorstream", "where end-to-end tests run")
    group.addoption(
        "--backend",
        choices=(SIMULATOR, CONTROLPLANE, OPENSHIFT, NODE),
        help="simulator (default), controlplane: real etcd and kube-apiserver, built with Go; openshift: its own API on that; "
        "node: the control plane with a kubelet and CRI-O",
    )
    told = "where OpenShift's programs are; implies --backend openshift, and can be had with --backend node"
    group.addoption("--openshift-bin", metavar="DIR", type=Path, help=told)
    told = "a control plane that runs elsewhere (HyperShift): mirror rules are the platform's; with controlplane and node"
    group.addoption("--hosted", action="store_true", help=told)
    group.addoption("--kubeconfig", metavar="F", type=Path, help="an existing cluster with the settings of the recordings")


@dataclass(frozen=True)
class Choice:
    """What the command line asks for."""

    backend: str
    openshift_programs: Path | None = None
    kubeconfig: Path | None = None
    hosted: bool = False

    @property
    def platform(self) -> bool:
        """Whether OpenShift's own programs serve the image API, the pull secrets and the internal registry."""
        return bool(self.openshift_programs or self.kubeconfig)


def choice(config: pytest.Config) -> Choice:
    """Read the options. Raises UsageError for what cannot be."""
    backend, programs, kubeconfig = (config.getoption(name) for name in ("--backend", "--openshift-bin", "--kubeconfig"))
    hosted = bool(config.getoption("--hosted"))
    if hosted and (kubeconfig or backend not in (CONTROLPLANE, NODE)):
        raise pytest.UsageError("--hosted belongs to the back ends controlplane and node")
    if kubeconfig:
        if backend or programs:
            raise pytest.UsageError("--kubeconfig names a cluster that exists: no other back end can be chosen with it")
        if not kubeconfig.is_file():
            raise pytest.UsageError(f"--kubeconfig {kubeconfig}: no such file")
        return Choice(EXISTING, kubeconfig=kubeconfig.absolute())
    if programs and backend not in (None, OPENSHIFT, NODE):
        raise pytest.UsageError(f"--openshift-bin belongs to the back ends openshift and node, not to {backend}")
    if backend == OPENSHIFT and not programs:
        raise pytest.UsageError("--backend openshift needs --openshift-bin DIR: no package registry has OpenShift's programs")
    if programs:
        if missing := missing_programs(programs):
            raise pytest.UsageError(f"--openshift-bin {programs} has no {', '.join(missing)}")
        return Choice(backend or OPENSHIFT, openshift_programs=programs.absolute(), hosted=hosted)
    return Choice(backend or SIMULATOR, hosted=hosted)


@dataclass(frozen=True)
class Shared:
    """The cluster that a run's processes share, as one process tells the others.

    `kubeconfig` is an administrator's, `program` is what the controller runs with and `webhook` what the webhook does,
    `controls` reaches the simulator itself. `ports` are the registries' by worker: the cluster's configuration names them.
    `trusted` is the folder of the authority that the Image config trusts. `node` tells of the node, where there is one. `platform`
    is a kubeconfig of the account that writes a hosted cluster's mirror rules.
    """

    backend: str
    kubeconfig: str
    program: str
    webhook: str
    controls: str | None = None
    audit_log: str | None = None
    trusted: str | None = None
    ports: dict[str, Ports] = field(default_factory=dict)
    node: NodeView | None = None
    platform: str | None = None

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def loads(text: str) -> "Shared":
        """What `dumps` made."""
        document = json.loads(text)
        node = document.pop("node")
        return Shared(**document, node=NodeView(**node) if node else None)


def scenario_settings(all_hosts: list[dict[str, str]]) -> Settings:
    """The settings of the recordings for the registries of every worker, with quicker schedules.

    The loopback address is allowed by number, too.
    """
    base = contract_settings(*all_hosts)
    sources = base.image_config["registrySources"]
    by_number = ["127.0.0.1:" + hosts["good"].partition(":")[2] for hosts in all_hosts]
    allowed = base.image_config["allowedRegistriesForImport"]
    config = {
        "allowedRegistriesForImport": [{"domainName": "127.0.0.1:*", "insecure": True}, *allowed],
        "registrySources": {**sources, "insecureRegistries": [*sources["insecureRegistries"], *by_number]},
        "additionalTrustedCA": {"name": Trusted.NAME},
    }
    importer = dataclasses.replace(base.importer, timeout_seconds=3)
    return dataclasses.replace(base, image_config=config, scheduled_interval=SCHEDULED_SECONDS, importer=importer)


def with_own_registry(settings: Settings, name: str = "localhost") -> Settings:
    """The same with an internal registry at a port of its own: only the recordings need the one that they name."""
    return dataclasses.replace(settings, internal_registry=f"{name}:{free_port()}")


def internal_registry(plane: ControlPlane, settings: Settings) -> InternalRegistry:
    """The test bed's internal registry for a control plane, with a certificate of the cluster's authority."""
    client = load_client(str(plane.kubeconfig), in_cluster=False, user_agent="internal-registry")
    return InternalRegistry(client, settings.internal_registry, plane.folder, authority=plane.authority)


def constraints(plane: ControlPlane) -> SecurityContextConstraints:
    """The test bed's SecurityContextConstraints admission on a control plane."""
    client = load_client(str(plane.kubeconfig), in_cluster=False, user_agent="scc")
    return SecurityContextConstraints(client, plane.folder / "scc")


def hosts_at(ports: Ports) -> dict[str, str]:
    """Where registries with these ports are."""
    return {name: f"localhost:{port}" for name, port in ports.items()}


def free_ports() -> Ports:
    """A free port for each registry."""
    return {name: free_port() for name in CONTRACT_PORTS}


class Trusted:
    """The authority of registries that the cluster trusts by its Image config, and by nothing else."""

    NAME = "registries"

    def __init__(self, folder: Path) -> None:
        """`folder` takes a new authority, or has one whose certificate was issued by another process."""
        self.folder = folder
        self.authority = folder / f"{self.NAME}.crt"
        self.serving = Pair(folder / "mirror.crt", folder / "mirror.key")
        if not self.authority.exists():
            Authority(folder, self.NAME).issue("mirror", hosts=("localhost",))

    def tell(self, client: Client) -> None:
        """Create the ConfigMap that the Image config's additionalTrustedCA names."""
        body = {"metadata": {"name": self.NAME}, "data": {"localhost": self.authority.read_text(encoding="ascii")}}
        client.request("POST", "/api/v1/namespaces/openshift-config/configmaps", body=body)


class SharedPlane:
    """A control plane with mirrorstream's service account on it, and a node if it was chosen, for all workers of a run."""

    def __init__(self, folder: Path, chosen: Choice, workers: list[str]) -> None:
        """Build (if need be) and start. Raises BuildError, ProcessError, NoSlotError."""
        self._exit = contextlib.ExitStack()
        with self._exit:
            self._start(folder, chosen, workers)
            self._exit = self._exit.pop_all()

    def _start(self, folder: Path, chosen: Choice, workers: list[str]) -> None:
        ports = {worker: free_ports() for worker in workers}
        trusted = Trusted(folder / "trusted")
        hosts = [hosts_at(p) for p in ports.values()]
        self.plane, node = start_plane(self._exit, folder, chosen, hosts, trusted=trusted.authority)
        shared = installed(self.plane, chosen.backend, ports, trusted)
        platform = hosted_plane(self.plane) if chosen.hosted else None
        self.shared = dataclasses.replace(shared, node=node, platform=platform)

    def stop(self) -> None:
        """End its processes."""
        self._exit.close()


def start_plane(
    stack: contextlib.ExitStack, folder: Path, chosen: Choice, hosts: list[dict[str, str]], *, trusted: Path | None = None
) -> tuple[ControlPlane, NodeView | None]:
    """Start a control plane that knows registries by these names, with an internal registry, and with a node if it was chosen.

    `stack` ends them. Raises BuildError, ProcessError, NoSlotError.
    """
    settings = with_own_registry(scenario_settings(hosts), SERVICE_NAME if chosen.backend == NODE else "localhost")
    slot = Slot.take() if chosen.backend == NODE else None
    if slot:
        stack.callback(slot.release)
    plane = ControlPlane(
        folder,
        components(),
        settings,
        openshift_programs=chosen.openshift_programs,
        trusted=trusted,
        services=slot.services if slot else SERVICES,
        feature_gates=WATCH_LIST if chosen.hosted else {},
    )
    stack.enter_context(plane)
    if chosen.openshift_programs:
        client = load_client(str(plane.kubeconfig), in_cluster=False, user_agent="internal-registry")
        stack.enter_context(RegistryProgram(client, plane, settings.internal_registry))
    else:
        stack.enter_context(internal_registry(plane, settings))
    stack.enter_context(constraints(plane))
    if not slot:
        return plane, None
    authorities = {settings.internal_registry: plane.authority.certificate.read_text(encoding="ascii")}
    return plane, stack.enter_context(Node(plane, programs(), slot, names=[SERVICE_NAME], authorities=authorities)).view


def platform_of(plane: ControlPlane) -> Path:
    """A kubeconfig of the account that writes the mirror rules of a hosted cluster."""
    return plane.user(PLATFORM, MASTERS)


def hosted_plane(plane: ControlPlane) -> str:
    """Make it a hosted cluster's for as long as it runs; the platform's kubeconfig."""
    kubeconfig = platform_of(plane)
    clients = [load_client(str(path), in_cluster=False, user_agent="test") for path in (plane.kubeconfig, kubeconfig)]
    set_up(*clients, refusing=True)
    return str(kubeconfig)


def installed(plane: ControlPlane, backend: str, ports: dict[str, Ports] | None = None, trusted: Trusted | None = None) -> Shared:
    """Install mirrorstream's service account on a new control plane; what there is to know about it."""
    client = load_client(str(plane.kubeconfig), in_cluster=False, user_agent="test")
    client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": OWN_NAMESPACE}})
    if trusted:
        trusted.tell(client)
    accounts = {}
    for account in (CONTROLLER, WEBHOOK):
        folders = (PENDING_PODS,) if account == WEBHOOK else ()
        installation = Installation(client, OWN_NAMESPACE, account=account, folders=folders)
        installation.__enter__()  # it goes with the control plane
        accounts[account] = str(installation.kubeconfig(plane.folder / f"{account}.kubeconfig", plane.kubeconfig))
        installation.wait_effective()
    controls = plane.simulator_kubeconfig()
    return Shared(
        backend,
        str(plane.kubeconfig),
        accounts[CONTROLLER],
        accounts[WEBHOOK],
        str(controls) if controls else None,
        str(plane.audit_log),
        str(trusted.folder) if trusted else None,
        ports or {},
    )
