"""What the end-to-end suite runs on: chosen on the command line, started once for all of a run's processes."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mirrorstream.kube.client import Client, load_client

from e2e.certificates import Authority, Pair
from e2e.controlplane.arguments import OWN_NAMESPACE
from e2e.controlplane.build import components
from e2e.controlplane.openshift import missing_programs
from e2e.controlplane.plane import ControlPlane
from e2e.ports import free_port
from e2e.scenarios.installation import CONTROLLER, WEBHOOK, Installation
from e2e.simulator.settings import CONTRACT_PORTS, Settings, contract_settings

SIMULATOR, CONTROLPLANE, OPENSHIFT, EXISTING = "simulator", "controlplane", "openshift", "kubeconfig"
PLANES = (CONTROLPLANE, OPENSHIFT)
"""Those with a real kube-apiserver of our own."""
SCHEDULED_SECONDS = 1.5
Ports = dict[str, int]


def add_options(parser: pytest.Parser) -> None:
    """The back end's options."""
    group = parser.getgroup("mirrorstream", "where end-to-end tests run")
    group.addoption(
        "--backend",
        choices=(SIMULATOR, CONTROLPLANE, OPENSHIFT),
        help="simulator (default), controlplane: real etcd and kube-apiserver, built with Go; openshift: its own API on that",
    )
    group.addoption("--openshift-bin", metavar="DIR", type=Path, help="where OpenShift's programs are; implies --backend openshift")
    group.addoption("--kubeconfig", metavar="F", type=Path, help="an existing cluster with the settings of the recordings")


@dataclass(frozen=True)
class Choice:
    """What the command line asks for."""

    backend: str
    openshift_programs: Path | None = None
    kubeconfig: Path | None = None


def choice(config: pytest.Config) -> Choice:
    """Read the options. Raises UsageError for what cannot be."""
    backend, programs, kubeconfig = (config.getoption(name) for name in ("--backend", "--openshift-bin", "--kubeconfig"))
    if kubeconfig:
        if backend or programs:
            raise pytest.UsageError("--kubeconfig names a cluster that exists: no other back end can be chosen with it")
        if not kubeconfig.is_file():
            raise pytest.UsageError(f"--kubeconfig {kubeconfig}: no such file")
        return Choice(EXISTING, kubeconfig=kubeconfig.absolute())
    if programs and backend not in (None, OPENSHIFT):
        raise pytest.UsageError(f"--openshift-bin belongs to the back end openshift, not to {backend}")
    if backend == OPENSHIFT and not programs:
        raise pytest.UsageError("--backend openshift needs --openshift-bin DIR: no package registry has OpenShift's programs")
    if programs:
        if missing := missing_programs(programs):
            raise pytest.UsageError(f"--openshift-bin {programs} has no {', '.join(missing)}")
        return Choice(OPENSHIFT, openshift_programs=programs.absolute())
    return Choice(backend or SIMULATOR)


@dataclass(frozen=True)
class Shared:
    """The cluster that a run's processes share, as one process tells the others.

    `kubeconfig` is an administrator's, `program` is what the controller runs with and `webhook` what the webhook does,
    `controls` reaches the simulator itself. `ports` are the registries' by worker: the cluster's configuration names them.
    `trusted` is the folder of the authority that the Image config trusts.
    """

    backend: str
    kubeconfig: str
    program: str
    webhook: str
    controls: str | None = None
    audit_log: str | None = None
    trusted: str | None = None
    ports: dict[str, Ports] = field(default_factory=dict)

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def loads(text: str) -> "Shared":
        """What `dumps` made."""
        return Shared(**json.loads(text))


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


def with_own_registry(settings: Settings) -> Settings:
    """The same with an internal registry at a port of its own: only the recordings need the one that they name."""
    return dataclasses.replace(settings, internal_registry=f"localhost:{free_port()}")


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
    """A control plane with mirrorstream's service account on it, for all workers of a run."""

    def __init__(self, folder: Path, chosen: Choice, workers: list[str]) -> None:
        """Build (if need be) and start. Raises BuildError, ProcessError."""
        ports = {worker: free_ports() for worker in workers}
        settings = with_own_registry(scenario_settings([hosts_at(p) for p in ports.values()]))
        trusted = Trusted(folder / "trusted")
        programs = chosen.openshift_programs
        self.plane = ControlPlane(folder, components(), settings, openshift_programs=programs, trusted=trusted.authority).start()
        self.shared = installed(self.plane, chosen.backend, ports, trusted)

    def stop(self) -> None:
        """End its processes."""
        self.plane.stop()


def installed(plane: ControlPlane, backend: str, ports: dict[str, Ports] | None = None, trusted: Trusted | None = None) -> Shared:
    """Install mirrorstream's service account on a new control plane; what there is to know about it."""
    client = load_client(str(plane.kubeconfig), in_cluster=False, user_agent="test")
    client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": OWN_NAMESPACE}})
    if trusted:
        trusted.tell(client)
    accounts = {}
    for account in (CONTROLLER, WEBHOOK):
        installation = Installation(client, OWN_NAMESPACE, account=account)
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
