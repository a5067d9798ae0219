"""How OpenShift's own programs are configured, and how scenarios have the internal registry fail."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from e2e.testbed.controlplane.arguments import Ports
from e2e.testbed.controlplane.openshift import CONTROLLER_MANAGER, REGISTRY, write_configuration
from e2e.testbed.controlplane.plane import ControlPlane
from e2e.testbed.controlplane.registry_program import RegistryProgram
from e2e.testbed.registries.internal import ABSENT, HANGING, SERVICE_NAME, SERVING, set_state
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.certificates import Pair
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.waiting import wait_for


@pytest.mark.parametrize(
    ("name", "tls"),
    [
        ("localhost", None),
        (SERVICE_NAME, {"certificate": "server.crt", "key": "server.key"}),
    ],
    ids=["this-machine", "node"],
)
def test_the_internal_registry_serves_nodes_over_tls(tmp_path: Path, name: str, tls: Any) -> None:
    """By its Service's name, which leads to this machine there; it listens on this machine only."""
    serving, settings = Pair(Path("server.crt"), Path("server.key")), Settings(internal_registry=f"{name}:5000")
    files = write_configuration(tmp_path, Ports(), settings, serving, Path("ca.crt"))
    written = yaml.safe_load(files[REGISTRY].read_text(encoding="utf-8"))
    assert written["http"].get("tls") == tls
    assert written["http"]["addr"] == "localhost:5000"
    assert written["openshift"]["server"]["addr"] == f"{name}:5000"
    pull_secrets = json.loads(files[CONTROLLER_MANAGER].read_text(encoding="utf-8"))["dockerPullSecret"]
    assert pull_secrets["registryURLs"] == [f"{name}:5000"], "the registry that accounts' pull secrets are for"


def test_the_internal_registrys_program_is_absent_hangs_and_serves_again(tmp_path: Path) -> None:
    """As the test bed's own does; here any program that serves takes its place."""
    port = free_port()

    def seen() -> str:
        try:
            return str(urllib3.request("GET", f"http://127.0.0.1:{port}/", retries=False, timeout=1).status)
        except urllib3.exceptions.NewConnectionError:
            return "refused"
        except urllib3.exceptions.TimeoutError:
            return "no answer"
        except urllib3.exceptions.ProtocolError:  # its end cuts off who waits
            return "cut off"

    with Simulator(Settings()) as simulator:
        plane = ControlPlane(tmp_path, tmp_path, Settings())
        plane.run(REGISTRY, [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)])
        client = simulator.client("test")
        try:
            with RegistryProgram(client, plane, f"{SERVICE_NAME}:{port}"):
                for state, told in ((SERVING, "200"), (ABSENT, "refused"), (HANGING, "no answer"), (SERVING, "200")):
                    set_state(client, state)
                    wait_for(f"{state}: {told}", lambda told=told: seen() == told)  # type: ignore[misc]
        finally:
            plane.stop()
