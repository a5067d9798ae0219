"""`python -m e2e.testbed.simulator --port N`: a simulated cluster as a process; 0 after SIGTERM."""

import argparse
import signal
import ssl
import sys
import threading
from pathlib import Path

from mirrorstream.kube.client import ConfigurationError, load_client

from e2e.testbed.simulator.identity import FrontProxy
from e2e.testbed.simulator.settings import Settings, contract_settings, read_settings
from e2e.testbed.simulator.simulator import Aggregated, Simulator
from e2e.testbed.support.certificates import Authority

SWITCH_SECONDS = 0.0005
"""How long a request keeps the interpreter from another, a tenth of Python's default: an API server answers many at a time."""


def main() -> int:
    """Run until a signal."""
    parser = argparse.ArgumentParser(prog="python -m e2e.testbed.simulator", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 for a free one")
    parser.add_argument("--contract", action="store_true", help="the settings that the recordings were made with")
    parser.add_argument("--settings", metavar="F", help="cluster-wide settings as JSON")
    parser.add_argument(
        "--authority-out", metavar="DIR", help="serve TLS, of an authority whose certificate is put there as ca.crt"
    )
    behind = parser.add_argument_group("behind a kube-apiserver, as its aggregated API image.openshift.io/v1")
    behind.add_argument("--aggregated", metavar="KUBECONFIG", help="the kube-apiserver that mirror sets and secrets are read from")
    behind.add_argument("--tls-cert-file", metavar="F", help="what is served")
    behind.add_argument("--tls-key-file", metavar="F")
    behind.add_argument("--client-ca-file", metavar="F", help="the CA of the kube-apiserver's proxy client certificate")
    behind.add_argument("--client-name", metavar="CN", default="system:aggregator", help="and its common name")
    args = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: ended.set())
    try:
        settings = contract_settings() if args.contract else read_settings(args.settings) if args.settings else Settings()
        aggregated = _aggregated(args) if args.aggregated else None
        simulator = Simulator(
            settings,
            port=args.port,
            aggregated=aggregated,
            pull_secrets=aggregated is None,
            authority=Authority(Path(args.authority_out), "ca") if args.authority_out else None,
        ).start()
    except (OSError, ValueError, ConfigurationError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 1
    try:
        print(f"simulator: {simulator.url}", flush=True)
        ended.wait()
    finally:
        simulator.stop()
    return 0


def _aggregated(args: argparse.Namespace) -> Aggregated:
    """Raises OSError for files that cannot be read, ConfigurationError for the kubeconfig."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(args.tls_cert_file, args.tls_key_file)
    context.load_verify_locations(args.client_ca_file)
    context.verify_mode = ssl.CERT_OPTIONAL  # /readyz is open
    client = load_client(args.aggregated, in_cluster=False, user_agent="simulator")
    return Aggregated(client, context, FrontProxy(args.client_name))


if __name__ == "__main__":
    sys.exit(main())
