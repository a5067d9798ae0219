"""`python -m e2e.testbed.node.operators`: what configures a node and serves its Services, for as long as the node runs."""

import argparse
import asyncio
import threading
from pathlib import Path

from mirrorstream.kube.client import load_client
from mirrorstream.runtime import logs

from e2e.testbed.node.machineconfig import MachineConfig
from e2e.testbed.node.serviceproxy import ServiceProxy


def main() -> None:
    """Run until it is killed."""
    parser = argparse.ArgumentParser(prog="python -m e2e.testbed.node.operators", description=__doc__)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--node", required=True, help="its name")
    parser.add_argument("--etc", type=Path, required=True, help="its /etc")
    parser.add_argument("--crio", type=int, required=True, help="the process ID of its CRI-O")
    parser.add_argument("--crio-log", type=Path, required=True)
    parser.add_argument("--own", action="append", default=[], metavar="HOST", help="a registry that is always accepted; repeatable")
    parser.add_argument("--kubernetes", type=int, required=True, metavar="PORT", help="kube-apiserver's on 127.0.0.1")
    args = parser.parse_args()
    logs.configure()
    client = load_client(args.kubeconfig, in_cluster=False, user_agent="node-operators")
    config = MachineConfig(client, args.node, args.etc, args.crio, args.crio_log, tuple(args.own))
    threading.Thread(target=config.run, daemon=True).start()
    asyncio.run(ServiceProxy(client, ("127.0.0.1", args.kubernetes)).run())


if __name__ == "__main__":
    main()
