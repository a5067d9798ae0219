"""The one program: `mirrorstream` and, as a plugin of oc and kubectl, `kubectl-mirrorstream`."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from mirrorstream import logs
from mirrorstream.commands import arguments, certs
from mirrorstream.completion import complete, plugin_answer, script
from mirrorstream.kube.client import ConfigurationError
from mirrorstream.safetext import one_line
from mirrorstream.settings import SettingsError, SettingsFile

COMPLETER = "kubectl_complete-"
"""kubectl and oc run a program of this name and the plugin's to complete the plugin's command line."""


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
    daemon = argparse.ArgumentParser(add_help=False)
    daemon.add_argument("--kubeconfig", metavar="F", help="credentials (default: the pod's, else as kubectl finds them)")
    daemon.add_argument("--config", metavar="F", help="configuration file, reloaded when it changes (default: all defaults)")
    daemon.add_argument(
        "--metrics-port", type=_port, default=8080, metavar="PORT", help="/metrics, /healthz and /readyz (default: 8080)"
    )
    daemon.add_argument("--metrics-tls-cert-file", metavar="F", help="serve them over TLS, with --metrics-tls-key-file")
    daemon.add_argument("--metrics-tls-key-file", metavar="F", help="the certificate's key")
    controller = commands.add_parser(
        "controller", parents=[common, daemon], help="import through the mirrors what the platform could not", allow_abbrev=False
    )
    controller.add_argument("--namespace", metavar="NS", help="where the Lease lives (default: the pod's own namespace)")
    controller.add_argument("--no-leader-election", action="store_true", help="act at once, as the only replica")
    controller.set_defaults(run=_controller)
    webhook = commands.add_parser(
        "webhook", parents=[common, daemon], help="point pods of Local tags at the internal registry", allow_abbrev=False
    )
    webhook.add_argument("--port", type=_port, default=8443, metavar="PORT", help="where the API server asks (default: 8443)")
    webhook.add_argument("--tls-cert-file", metavar="F", help="certificate and chain, read again when they change")
    webhook.add_argument("--tls-key-file", metavar="F", help="the certificate's key")
    webhook.add_argument(
        "--self-signed", action="store_true", help="certificates of its own, made known to API servers by --webhook-configuration"
    )
    webhook.add_argument(
        "--webhook-configuration",
        metavar="NAME",
        help="with --self-signed: whose caBundle it looks after",
    )
    webhook.add_argument("--insecure", action="store_true", help="plain HTTP, for tests only: API servers ask over TLS")
    webhook.set_defaults(run=_webhook)
    for name, add, run, text in (
        ("explain", arguments.add_explain, _explain, "which mirrors stand for an image, and why; what became of a stream's tag"),
        ("status", arguments.add_status, _status, "which tags fail, what was tried, what healed"),
        ("missing", arguments.add_missing, _missing, "images of failing tags that no mirror has"),
        ("retry", arguments.add_retry, _retry, "have a stream's tags imported again, and wait for the outcome"),
    ):
        command = commands.add_parser(
            name, parents=[common], help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
        )
        add(command)
        command.set_defaults(run=run)
    completion = commands.add_parser("completion", help="print a shell's completion script", allow_abbrev=False)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    completion.set_defaults(run=_completion, log_level="info", log_format=None)
    certs_parser = commands.add_parser(
        "certs", parents=[common], help="make a certificate for the webhook's Service", allow_abbrev=False
    )
    certs.add_arguments(certs_parser)
    certs_parser.set_defaults(run=certs.run)
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _controller(args: argparse.Namespace) -> int:
    # Asked for by name only: what explains a reference does not load, or need, the controller.
    from mirrorstream_controller.manager import Manager  # noqa: PLC0415

    _both_or_none(args, "metrics_tls_cert_file", "metrics_tls_key_file")
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


def _webhook(args: argparse.Namespace) -> int:
    from mirrorstream_webhook.manager import Manager  # noqa: PLC0415

    _both_or_none(args, "metrics_tls_cert_file", "metrics_tls_key_file")
    _both_or_none(args, "tls_cert_file", "tls_key_file")
    if [bool(args.tls_cert_file), args.self_signed, args.insecure].count(True) != 1:
        raise ConfigurationError("give one of: --tls-cert-file with --tls-key-file, --self-signed, --insecure")
    _both_or_none(args, "self_signed", "webhook_configuration")
    manager = Manager(
        SettingsFile(args.config),
        kubeconfig=args.kubeconfig,
        port=args.port,
        certificate_file=args.tls_cert_file,
        key_file=args.tls_key_file,
        self_signed_for=args.webhook_configuration,
        metrics_port=args.metrics_port,
        metrics_certificate=args.metrics_tls_cert_file,
        metrics_key=args.metrics_tls_key_file,
    )
    return manager.run()


def _explain(args: argparse.Namespace) -> int:
    if not args.as_pod:
        from mirrorstream.commands import explain  # noqa: PLC0415

        return explain.run(args)
    from mirrorstream_webhook.explain import run  # noqa: PLC0415

    return run(args)


def _status(args: argparse.Namespace) -> int:
    from mirrorstream.commands import status  # noqa: PLC0415

    return status.run(args)


def _missing(args: argparse.Namespace) -> int:
    from mirrorstream.commands import missing  # noqa: PLC0415

    return missing.run(args)


def _retry(args: argparse.Namespace) -> int:
    from mirrorstream.commands import retry  # noqa: PLC0415

    return retry.run(args)


def _completion(args: argparse.Namespace) -> int:
    sys.stdout.write(script(args.shell))
    return 0


def _both_or_none(args: argparse.Namespace, first: str, second: str) -> None:
    if bool(getattr(args, first)) != bool(getattr(args, second)):
        raise ConfigurationError(f"{_flag(first)} and {_flag(second)} go together")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit status: 0, 1 on an error with one line on stderr, 2 on usage (raised by argparse)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Texts of a cluster have any characters; a terminal or a pipe may know fewer.
            stream.reconfigure(errors="replace")
    program = Path(sys.argv[0]).name
    words = list(sys.argv[1:] if arguments is None else arguments)
    if program.startswith(COMPLETER) or words[:1] == ["__complete"]:
        asked = words if program.startswith(COMPLETER) else words[1:]
        sys.stdout.write(plugin_answer(complete(build_parser(), asked)))
        return 0
    args = build_parser("kubectl mirrorstream" if program.startswith("kubectl-") else "mirrorstream").parse_args(words)
    logs.configure(args.log_level, args.log_format)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our answer has had enough of it; the interpreter's own last flush must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except (ConfigurationError, SettingsError, OSError) as error:
        print(f"mirrorstream: {one_line(str(error))}", file=sys.stderr)  # noqa: T201  the one clear line
        return 1
    return status
