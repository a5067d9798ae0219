"""`python -m e2e.testbed.controlplane`: a control plane to try things on with kubectl, until Ctrl-C."""

import argparse
import signal
import sys
import tempfile
import threading
from pathlib import Path

from mirrorstream.kube.client import ClientError

from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.openshift import missing_programs
from e2e.testbed.controlplane.plane import ControlPlane
from e2e.testbed.simulator.settings import Settings, contract_settings
from e2e.testbed.support.gobuild import BuildError
from e2e.testbed.support.processes import ProcessError


def main() -> int:
    """Run until a signal; 1 when something cannot be built or started."""
    parser = argparse.ArgumentParser(prog="python -m e2e.testbed.controlplane", description=__doc__)
    parser.add_argument("--contract", action="store_true", help="the settings that the recordings were made with")
    parser.add_argument("--openshift-bin", metavar="DIR", type=Path, help="OpenShift's programs instead of the simulator")
    args = parser.parse_args()
    if args.openshift_bin and (missing := missing_programs(args.openshift_bin)):
        print(f"control plane: --openshift-bin {args.openshift_bin} has no {', '.join(missing)}", file=sys.stderr)
        return 2
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: ended.set())
    settings = contract_settings() if args.contract else Settings()
    with tempfile.TemporaryDirectory(prefix="mirrorstream-") as folder:
        try:
            with ControlPlane(Path(folder), components(), settings, openshift_programs=args.openshift_bin) as plane:
                print(f"export KUBECONFIG={plane.kubeconfig}", flush=True)
                ended.wait()
        except (BuildError, ProcessError, ClientError) as error:
            print(f"control plane: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
