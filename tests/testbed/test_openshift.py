"""How OpenShift's own programs are configured."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.testbed.controlplane.arguments import Ports
from e2e.testbed.controlplane.openshift import CONTROLLER_MANAGER, REGISTRY, write_configuration
from e2e.testbed.registries.internal import SERVICE_NAME
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.support.certificates import Pair


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
