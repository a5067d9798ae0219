"""`python -m e2e.testbed.node`: a control plane with a node to try things on with kubectl, until Ctrl-C."""

import signal
import sys
import tempfile
import threading
from pathlib import Path

from mirrorstream.kube.client import ClientError

from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.plane import ControlPlane
from e2e.testbed.node.build import missing, programs
from e2e.testbed.node.node import Node
from e2e.testbed.node.slot import NoSlotError, Slot
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.support.gobuild import BuildError
from e2e.testbed.support.processes import ProcessError


def main() -> int:
    """Run until a signal; 1 when something cannot be built or started."""
    if reason := missing():
        print(f"node: {reason}", file=sys.stderr)
        return 1
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: ended.set())
    with tempfile.TemporaryDirectory(prefix="mirrorstream-") as folder:
        try:
            slot = Slot.take()
            plane = ControlPlane(Path(folder), components(), Settings(), services=slot.services)
            with plane, Node(plane, programs(), slot) as node:
                print(f"export KUBECONFIG={plane.kubeconfig}", flush=True)
                print(f"# a registry for images: {node.registry_host}", flush=True)
                ended.wait()
        except (BuildError, ProcessError, ClientError, NoSlotError) as error:
            print(f"node: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
