"""A node comes up in time, and leaves the machine as it was, however it ends."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mirrorstream.kube.client import ApiError, load_client

from e2e.selftest.conftest import started
from e2e.testbed.backends import NODE, Choice
from e2e.testbed.node.build import CGROUPS
from e2e.testbed.node.configuration import SYSCTLS
from e2e.testbed.support.waiting import wait_for

KINDS = ("mnt", "pid", "net")


def _sysctls() -> dict[str, str]:
    return {name: Path("/proc/sys", name).read_text(encoding="ascii") for name in SYSCTLS}


def _namespaces() -> set[str]:
    """The mount, PID and network namespaces of all processes."""
    found = set()
    for kind in KINDS:
        for path in Path("/proc").glob(f"[0-9]*/ns/{kind}"):
            try:
                found.add(str(path.readlink()))
            except OSError:  # it has just ended
                continue
    return found


def _addresses() -> str:
    """The machine's addresses, links and local routes."""
    commands = (["ip", "-oneline", "-4", "address", "show"], ["ip", "route", "show", "table", "local"])
    return "".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands)


def _wait_ready(kubeconfig: str) -> tuple[str, Callable[[str], None]]:
    """The node's address, and a way to run a pod there."""
    client = load_client(kubeconfig, in_cluster=False, user_agent="test")
    (node,) = client.get("/api/v1/nodes")["items"]
    (address,) = (a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")

    def run_pod(image: str) -> None:
        path = "/api/v1/namespaces/default/pods"
        body = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": image}]}}
        client.request("POST", path, body=body)

        def runs() -> bool:
            try:
                return bool(client.get(f"{path}/p")["status"]["phase"] == "Running")
            except ApiError:
                return False

        wait_for("a pod runs", runs)

    return address, run_pod


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_behind(chosen: Choice, built: None, tmp_path: Path, how: signal.Signals) -> None:
    """No process, mount, namespace, cgroup, sysctl, address or link, with a pod that ran until the end."""
    if chosen.backend != NODE:
        pytest.skip("needs a node: --backend node")
    before = _sysctls()
    with started("e2e.testbed.node", tmp_path) as node:
        assert node.process.stdout
        registry = node.process.stdout.readline().split()[-1]
        address, run_pod = _wait_ready(str(node.kubeconfig))
        run_pod(f"{registry}/pause:1")
        number = address.split(".")[2]
        group, ranges = f"mirrorstream-node-{number}", tuple(f"10.{block}.{number}." for block in (250, 251, 252))
        assert all(part in _addresses() for part in ranges)
        assert list(CGROUPS.glob(f"*/{group}"))
        inside = _namespaces_of(group)
        assert len(inside) >= len(KINDS)
        assert _sysctls() == before, "the node changed the machine while it ran"
        node.end(how)
        wait_for("its cgroups are gone", lambda: not list(CGROUPS.glob(f"*/{group}")))
        wait_for("its addresses are gone", lambda: not any(part in _addresses() for part in ranges))
        assert not inside & _namespaces()
        assert str(node.folder) not in Path("/proc/self/mounts").read_text(encoding="utf-8")
        assert _sysctls() == before
        if how != signal.SIGKILL:
            assert node.process.returncode == 0, node.log.read_text()
            assert node.nothing_left()


def _namespaces_of(cgroup: str) -> set[str]:
    """The namespaces of the node's pods."""
    own = {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in KINDS}
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"/{cgroup}/" in (path / "cgroup").read_text(encoding="utf-8"):
                found |= {str((path / "ns" / kind).readlink()) for kind in KINDS}
        except OSError:  # it has just ended
            continue
    return found - own
