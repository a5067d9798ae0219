"""The Infrastructure `cluster`, which every OpenShift cluster has: it says where the control plane runs."""

from typing import Any

from mirrorstream.kube.client import Client

INFRASTRUCTURES = "/apis/config.openshift.io/v1/infrastructures"
ON_ITS_OWN_NODES, ELSEWHERE = "HighlyAvailable", "External"
"""Values of `status.controlPlaneTopology`."""


def infrastructure(topology: str = ON_ITS_OWN_NODES) -> dict[str, Any]:
    """The object."""
    status = {"controlPlaneTopology": topology, "infrastructureTopology": "HighlyAvailable"}
    return {
        "apiVersion": "config.openshift.io/v1",
        "kind": "Infrastructure",
        "metadata": {"name": "cluster"},
        "spec": {},
        "status": status,
    }


def set_topology(client: Client, topology: str) -> None:
    """Change where the control plane runs. An administrator may."""
    path = f"{INFRASTRUCTURES}/cluster"
    client.request("PUT", f"{path}/status", body={**client.get(path), "status": infrastructure(topology)["status"]})
