"""The one program: `mirrorstream` and, as a plugin of oc and kubectl, `kubectl-mirrorstream`."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from mirrorstream import logs
from mirrorstream.commands import explain
from mirrorstream.kube.client import ConfigurationError
from mirrorstream.settings import SettingsError, SettingsFile


def build_parser(program: str = "mirrorstream") -> argparse.ArgumentParser:
    """The command line of all subcommands."""
    parser = argparse.ArgumentParser(
        prog=program, description="ImageStreams that keep working when the upstream registry cannot be reached."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('mirrorstream')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--log-level", choices=logs.LEVELS, default="info", help="least severe messages to log (default: info)")
    common.add_argument(
        "--log-format", choices=("json", "console"), help="how to log (default: console when stderr is a terminal, else json)"
    )
    controller = commands.add_parser(
        "controller", parents=[common], help="import through the mirrors what the platform could not", allow_abbrev=False
    )
    controller.add_argument("--kubeconfig", metavar="F", help="credentials (default: the pod's, else as kubectl finds them)")
    controller.add_argument("--config", metavar="F", help="configuration file, reloaded when it changes (default: all defaults)")
    controller.add_argument(
        "--metrics-port", type=_port, default=8080, metavar="PORT", help="/metrics, /healthz and /readyz (default: 8080)"
    )
    controller.add_argument("--metrics-tls-cert-file", metavar="F", help="serve them over TLS, with --metrics-tls-key-file")
    controller.add_argument("--metrics-tls-key-file", metavar="F", help="the certificate's key")
    controller.add_argument("--namespace", metavar="NS", help="where the Lease lives (default: the pod's own namespace)")
    controller.add_argument("--no-leader-election", action="store_true", help="act at once, as the only replica")
    controller.set_defaults(run=_controller)
    explain_parser = commands.add_parser(
        "explain", parents=[common], help="which mirrors stand for an image, and why", allow_abbrev=False
    )
    explain.add_arguments(explain_parser)
    explain_parser.set_defaults(run=explain.run)
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _controller(args: argparse.Namespace) -> int:
    # Asked for by name only: what explains a reference does not load, or need, the controller.
    from mirrorstream_controller.manager import Manager  # noqa: PLC0415

    if bool(args.metrics_tls_cert_file) != bool(args.metrics_tls_key_file):
        raise ConfigurationError("--metrics-tls-cert-file and --metrics-tls-key-file go together")
    manager = Manager(
        SettingsFile(args.config),
        kubeconfig=args.kubeconfig,
        namespace=args.namespace,
        leader_election=not args.no_leader_election,
        metrics_port=args.metrics_port,
        metrics_certificate=args.metrics_tls_cert_file,
        metrics_key=args.metrics_tls_key_file,
    )
    return manager.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit status: 0, 1 on an error with one line on stderr, 2 on usage (raised by argparse)."""
    program = Path(sys.argv[0]).name
    args = build_parser("kubectl mirrorstream" if program.startswith("kubectl-") else "mirrorstream").parse_args(arguments)
    logs.configure(args.log_level, args.log_format)
    try:
        status: int = args.run(args)
    except (ConfigurationError, SettingsError, OSError) as error:
        print(f"mirrorstream: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201  the one clear line
        return 1
    return status
