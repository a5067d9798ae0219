"""The commands on a simulated cluster, in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mirrorstream.kube.client import Client, load_client
from mirrorstream_cli.main import main

from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.waiting import wait_for
from tests.cli.simulated import DEAD, STREAMS, Run


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    """A cluster with a namespace whose only stream fails."""
    with Simulator() as found:
        found.write_kubeconfig(tmp_path / "kubeconfig")
        client = load_client(str(tmp_path / "kubeconfig"), in_cluster=False)
        client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": "ns"}})
        tag = {"name": "v1", "from": {"kind": "DockerImage", "name": DEAD}}
        client.request("POST", STREAMS, body={"metadata": {"name": "app"}, "spec": {"tags": [tag]}})
        wait_for("the import fails", lambda: (client.get(f"{STREAMS}/app")["status"].get("tags") or [{}])[0].get("conditions"))
        yield found


@pytest.fixture
def client(simulator: Simulator, tmp_path: Path) -> Client:
    """A user's client."""
    return load_client(str(tmp_path / "kubeconfig"), in_cluster=False)


@pytest.fixture
def run(simulator: Simulator, tmp_path: Path) -> Run:
    """Run a command against the cluster."""
    return lambda *arguments: main([*arguments, "--kubeconfig", str(tmp_path / "kubeconfig")])
