"""One node on a control plane: its registry, its processes, and what tests may see of it."""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mirrorstream.kube.client import ApiError, Client, load_client

from e2e.testbed.controlplane.plane import ControlPlane
from e2e.testbed.node import configuration
from e2e.testbed.node.build import CNI_PLUGINS
from e2e.testbed.node.images import base
from e2e.testbed.node.keeper import PROJECT, Place
from e2e.testbed.node.registriesconf import policy, render
from e2e.testbed.node.slot import Slot
from e2e.testbed.node.view import CONFIGURED, NodeView
from e2e.testbed.registries.registry import Registry
from e2e.testbed.support.certificates import Authority, serving_context
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.processes import ProcessError
from e2e.testbed.support.waiting import wait_for

NAME = "node-1"
REGISTRY = "registry.mirrorstream.test"
"""The name of the test bed's own registry on the node."""


class NodeError(ProcessError):
    """The node did not start; the text has the end of its log."""


class Node:
    """A context manager that starts it and takes everything away again. `slot` is taken over.

    `names` are further names of this machine on the node, `authorities` CAs of registries by `host:port` (PEM).
    """

    def __init__(
        self,
        plane: ControlPlane,
        programs: Path,
        slot: Slot,
        *,
        names: Sequence[str] = (),
        authorities: dict[str, str] | None = None,
    ) -> None:
        self._plane, self._programs, self.slot = plane, programs, slot
        self._names, self._authorities = names, authorities or {}
        self.folder = plane.folder / "node"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.logs = plane.folder / "logs"
        authority = Authority(self.folder / "registry", "registry")
        serving = authority.issue(REGISTRY, hosts=(REGISTRY, "localhost"))
        self.registry = Registry(context=serving_context(serving), base=base(), writable=True)
        self.registry_host = f"{REGISTRY}:{self.registry.host.partition(':')[2]}"
        self.registry_authority = authority.certificate
        self._keeper: subprocess.Popen[str] | None = None
        self.first = 0
        """The process ID of the node's first process."""
        self._client = load_client(str(plane.kubeconfig), in_cluster=False, user_agent="node")

    # Life.

    def start(self) -> Self:
        """Start it on a control plane that serves, and wait until it is ready. Raises ProcessError."""
        started = time.monotonic()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        print(f"node: up in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
        return self

    def _start(self) -> None:
        plane, kubeconfig = self._plane, self._plane.kubeconfig
        self.registry.__enter__()
        self.registry.put("pause", "1")
        arguments = configuration.scheduler_arguments(kubeconfig, free_port(), self.folder / "scheduler")
        plane.run("kube-scheduler", [self._programs / "kube-scheduler", *arguments])
        command = [sys.executable, "-m", "e2e.testbed.node.keeper", str(self._plan())]
        with (self.logs / "node.log").open("ab") as log:
            self._keeper = subprocess.Popen(
                command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True, pass_fds=(self.slot.lock.fileno(),),
            )  # fmt: skip
        assert self._keeper.stdout
        self.first = int(self._keeper.stdout.readline() or 0)
        crio = self._wait("CRI-O runs", self._crio)
        self._wait("it is registered", self._registered)
        operators = [
            "env", f"PYTHONPATH={PROJECT}", sys.executable, "-m", "e2e.testbed.node.operators", f"--kubeconfig={kubeconfig}",
            f"--node={NAME}", f"--etc={self.view.etc}", f"--crio={crio}", f"--crio-log={self.logs / 'crio.log'}",
            f"--own={self.registry_host}", f"--kubernetes={plane.ports.kube_apiserver}",
        ]  # fmt: skip
        plane.run("node-operators", operators)
        self._wait("it is ready and configured", self._ready)

    def stop(self) -> None:
        """End it, and wait until nothing is left. Raises NodeError for what could not be taken away."""
        for name in ("node-operators", "kube-scheduler"):
            if process := self._plane.processes.pop(name, None):
                process.kill()
        status = 0
        if self._keeper:
            with self._keeper:  # closes its standard input, which ends it, and waits
                pass
            status = self._keeper.returncode
            self._keeper = None
            self.registry.__exit__(None, None, None)
        self.slot.release()
        if status:
            raise NodeError(f"the node has left something behind; {self.tail('node')}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # What tests may see.

    @property
    def view(self) -> NodeView:
        """What other processes are told."""
        return NodeView(NAME, self.first, str(self.logs), self.registry_host, str(self.registry_authority))

    def tail(self, name: str) -> str:
        """The end of a log of the node's."""
        path = self.logs / f"{name}.log"
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return f"the end of {path}:\n" + "\n".join(text.splitlines()[-20:])

    # Parts.

    def _plan(self) -> Path:
        """Write all files; the one that the node's processes start from."""
        folder, slot = self.folder, self.slot
        crio = configuration.crio(folder, self._programs, f"{self.registry_host}/pause:1", CNI_PLUGINS)
        authorities = {self.registry_host: self.registry_authority.read_text(encoding="ascii"), **self._authorities}
        etc = configuration.etc([REGISTRY, *self._names], authorities, render([], {}), policy({}, ()))
        files = {
            "crio.conf": crio,
            "runtime": configuration.RUNTIME,
            "networks/pods.conflist": configuration.network(slot),
            "kubelet.json": json.dumps(configuration.kubelet(slot)),
            **{f"etc/{path}": text for path, text in etc.items()},
        }
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        (folder / "runtime").chmod(0o755)
        kubelet = configuration.kubelet_arguments(folder / "kubelet.json", self._plane.kubeconfig, slot, NAME)
        place = Place(slot.cgroup, slot.address, slot.gateway, slot.services)
        plan = {
            "place": dataclasses.asdict(place),
            "logs": str(self.logs),
            "etc": str(folder / "etc"),
            "socket": configuration.SOCKET,
            "sysctls": configuration.SYSCTLS,
            "crio": [str(self._programs / "crio"), "--config", str(folder / "crio.conf"), "--config-dir", ""],
            "kubelet": [str(self._programs / "kubelet"), *kubelet],
        }
        (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        return folder / "plan.json"

    def _wait(self, what: str, condition: Any) -> Any:
        """Wait for as long as the node runs. Raises NodeError with the ends of its logs."""

        def met() -> Any:
            if not self.first or (self._keeper and self._keeper.poll() is not None):
                raise AssertionError("the node has ended")
            return condition()

        try:
            return wait_for(what, met, step=0.05)
        except AssertionError as error:
            logs = "\n".join(self.tail(name) for name in ("node", "crio", "kubelet"))
            raise NodeError(f"node: {what}: {error}; {logs}") from None

    def _crio(self) -> int:
        """The process ID of CRI-O, 0 before it runs."""
        return _child(self.first, "crio") if Path(f"/proc/{self.first}/root{configuration.SOCKET}").exists() else 0

    def _registered(self) -> bool:
        return _node(self._client) is not None

    def _ready(self) -> bool:
        node = _node(self._client) or {"metadata": {}}
        conditions = (node.get("status") or {}).get("conditions") or []
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        account = self._client.get("/api/v1/namespaces/default/serviceaccounts").get("items")
        return bool(ready and account and CONFIGURED in (node["metadata"].get("annotations") or {}))


def _node(client: Client) -> Any:
    try:
        return client.get(f"/api/v1/nodes/{NAME}")
    except ApiError as error:
        if error.status != 404:
            raise
        return None


def _child(pid: int, name: str) -> int:
    """The process ID of a process's child by its name; 0 without."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
        if Path(f"/proc/{child}/comm").read_text(encoding="utf-8").strip() == name:
            return int(child)
    return 0
