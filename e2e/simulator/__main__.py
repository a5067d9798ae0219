"""`python -m e2e.simulator --port N`: a simulated cluster as a process; 0 after SIGTERM."""

import argparse
import signal
import sys
import threading
from pathlib import Path

from e2e.simulator.settings import Settings, contract_settings, read_settings
from e2e.simulator.simulator import Simulator


def main() -> int:
    """Run until a signal."""
    parser = argparse.ArgumentParser(prog="python -m e2e.simulator", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 for a free one")
    parser.add_argument("--contract", action="store_true", help="the settings that the recordings were made with")
    parser.add_argument("--settings", metavar="F", help="cluster-wide settings as JSON")
    parser.add_argument(
        "--without", action="append", default=[], metavar="NAME", help="a resource or group that is not served; repeatable"
    )
    parser.add_argument("--kubeconfig-out", metavar="F", help="write a kubeconfig")
    args = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: ended.set())
    try:
        settings = contract_settings() if args.contract else read_settings(args.settings) if args.settings else Settings()
        simulator = Simulator(settings, port=args.port, without=tuple(args.without))
    except (OSError, ValueError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 1
    with simulator:
        if args.kubeconfig_out:
            simulator.write_kubeconfig(Path(args.kubeconfig_out))
        print(f"simulator: {simulator.url}", flush=True)
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
