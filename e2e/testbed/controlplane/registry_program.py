"""OpenShift's own internal registry, told by the test bed to serve, to be absent, or to accept connections and never answer."""

import socket
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from mirrorstream.kube.client import Client

from e2e.testbed.controllers.watching import Watcher
from e2e.testbed.controlplane.openshift import REGISTRY
from e2e.testbed.controlplane.plane import ControlPlane
from e2e.testbed.registries.internal import ABSENT, CONFIG_MAPS, SERVING, told_state
from e2e.testbed.registries.registry import DeadPort


class RegistryProgram:
    """A context manager that follows the test bed's ConfigMap, as the test bed's own registry does; `host` is `name:port`.

    While the program does not run, its port stays taken: nobody else on this machine may get it.
    """

    def __init__(self, client: Client, plane: ControlPlane, host: str) -> None:
        self._plane, self._port = plane, int(host.rpartition(":")[2])
        self._state = SERVING
        self._instead = ExitStack()
        """What has the port in the program's place."""
        self._watcher = Watcher(client, CONFIG_MAPS, self._told)

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._watcher.stop()
        self._instead.close()

    def _told(self, kind: str, item: dict[str, Any]) -> None:
        state = told_state(kind, item)
        if not state or state == self._state:
            return
        self._plane.processes[REGISTRY].kill()
        self._instead.close()
        self._instead = ExitStack()
        if state == SERVING:
            self._plane.run(REGISTRY)
        elif state == ABSENT:
            self._instead.enter_context(DeadPort(self._port))
        else:  # the kernel accepts, and nobody answers
            self._instead.enter_context(socket.create_server(("127.0.0.1", self._port)))
        self._state = state
