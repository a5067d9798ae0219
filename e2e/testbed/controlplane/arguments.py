"""What each process is started with. Nothing here reads or starts anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.testbed.support.certificates import Pair
from e2e.testbed.support.ports import free_port

OWN_NAMESPACE = "mirrorstream"
"""Where mirrorstream's service accounts live."""
SERVICES = "10.0.0.0/24"
"""Addresses of Services, which lead nowhere where there is no node."""


@dataclass(frozen=True)
class Ports:
    """Free ports of 127.0.0.1."""

    etcd: int = field(default_factory=free_port)
    peer: int = field(default_factory=free_port)
    kube_apiserver: int = field(default_factory=free_port)
    kube_controller_manager: int = field(default_factory=free_port)
    image_api: int = field(default_factory=free_port)
    openshift_controller_manager: int = field(default_factory=free_port)


def etcd(ports: Ports, data: Path) -> list[str]:
    """One member that does not sync its files: nothing here outlives a run."""
    client, peer = f"http://127.0.0.1:{ports.etcd}", f"http://127.0.0.1:{ports.peer}"
    return [
        f"--data-dir={data}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def kube_apiserver(
    ports: Ports,
    *,
    serving: Pair,
    client_authority: Path,
    front_authority: Path,
    front_client: Pair,
    service_account_key: Path,
    audit: tuple[Path, Path],
    services: str = SERVICES,
    feature_gates: Mapping[str, bool] | None = None,
) -> list[str]:
    """RBAC, an aggregated API that is trusted by its CA, and an audit log; `feature_gates` that are not as they are by default."""
    return [
        f"--etcd-servers=http://127.0.0.1:{ports.etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports.kube_apiserver}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={client_authority}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={service_account_key}",
        f"--service-account-signing-key-file={service_account_key}",
        f"--service-cluster-ip-range={services}",
        f"--requestheader-client-ca-file={front_authority}",
        "--requestheader-allowed-names=system:aggregator",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={front_client.certificate}",
        f"--proxy-client-key-file={front_client.key}",
        "--endpoint-reconciler-type=none",
        # A node may have any name.
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
        # OpenShift's exempts imagestreamimports from its limit of a minute; upstream's has no such list, only this.
        "--request-timeout=3600s",
        f"--audit-policy-file={audit[0]}",
        f"--audit-log-path={audit[1]}",
        "--v=2",
        *(f"--feature-gates={name}={str(value).lower()}" for name, value in (feature_gates or {}).items()),
    ]


def audit_policy() -> dict[str, Any]:
    """Every request of service accounts, but for those of the control plane itself."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
            {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
            {"level": "None"},
        ],
    }


def kube_controller_manager(ports: Ports, kubeconfig: Path, key: Path, authority: Path, folder: Path) -> list[str]:
    """All controllers, each under an account of its own."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports.kube_controller_manager}",
        f"--cert-dir={folder / 'pki' / 'kube-controller-manager'}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        f"--flex-volume-plugin-dir={folder / 'flex'}",
        f"--service-account-private-key-file={key}",
        f"--root-ca-file={authority}",
    ]


def simulator(ports: Ports, settings: Path, kubeconfig: Path, serving: Pair, client_authority: Path, client: str) -> list[str]:
    """The simulator as the aggregated API."""
    return [
        "-m",
        "e2e.testbed.simulator",
        f"--port={ports.image_api}",
        f"--settings={settings}",
        f"--aggregated={kubeconfig}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-key-file={serving.key}",
        f"--client-ca-file={client_authority}",
        f"--client-name={client}",
    ]
