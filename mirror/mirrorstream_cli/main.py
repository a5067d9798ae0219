"""The one program: `mirrorstream` and, as a plugin of oc and kubectl, `kubectl-mirrorstream`.

A shell runs it at each completion, so each subcommand imports what it needs when it runs, and this module next to nothing.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from mirrorstream.kube.errors import ConfigurationError, UsageError
from mirrorstream.text.sanitize import one_line

from mirrorstream_cli import options
from mirrorstream_cli.completion import complete, plugin_answer, script

if TYPE_CHECKING:
    from mirrorstream.runtime.settings import SettingsFile

EXIT_SECONDS = 1.0
COMPLETER = "kubectl_complete-"
"""kubectl and oc run a program of this name and the plugin's to complete the plugin's command line."""


def build_parser(program: str = "mirrorstream", only: str = "") -> argparse.ArgumentParser:
    """The command line of all subcommands, or, as it takes a while to make, of none but `only`, if there is one of that name."""
    parser = argparse.ArgumentParser(
        prog=program, description="ImageStreams that keep working when the upstream registry cannot be reached."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add, run, text) in _COMMANDS.items():
        if only in _COMMANDS and name != only:
            continue
        description = f"{text[0].upper()}{text[1:]}."
        command = commands.add_parser(name, help=text, description=description, allow_abbrev=False)
        add(command)
        command.set_defaults(run=run)
    return parser


class _Version(argparse.Action):
    """`--version`; argparse's own wants the text beforehand, and reading it takes as long as all the rest of a completion."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        sys.stdout.write(f"{parser.prog} {_version()}\n")
        parser.exit()


def _version() -> str:
    """The version in the name of the installation's metadata: importlib.metadata takes as long as a bare interpreter's start."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208
        except OSError:
            continue
        for name in names:
            if name.startswith("mirrorstream-") and name.endswith(".dist-info"):
                return name.removeprefix("mirrorstream-").removesuffix(".dist-info")
    from importlib.metadata import version  # noqa: PLC0415

    return version("mirrorstream")


def _controller(args: argparse.Namespace) -> NoReturn:
    from mirrorstream_controller.manager import Manager  # noqa: PLC0415

    _configure_logs(args)
    _both_or_none(args, "metrics_tls_cert_file", "metrics_tls_key_file")
    manager = Manager(
        _settings_file(args.config),
        kubeconfig=args.kubeconfig,
        namespace=args.namespace,
        leader_election=not args.no_leader_election,
        metrics_port=args.metrics_port,
        metrics_certificate=args.metrics_tls_cert_file,
        metrics_key=args.metrics_tls_key_file,
    )
    _run_to_the_end(manager.run)


def _webhook(args: argparse.Namespace) -> NoReturn:
    from mirrorstream_webhook.manager import Manager  # noqa: PLC0415

    _configure_logs(args)
    _both_or_none(args, "metrics_tls_cert_file", "metrics_tls_key_file")
    _both_or_none(args, "tls_cert_file", "tls_key_file")
    if [bool(args.tls_cert_file), args.self_signed, args.insecure].count(True) != 1:
        raise UsageError("give one of: --tls-cert-file with --tls-key-file, --self-signed, --insecure")
    _both_or_none(args, "self_signed", "webhook_configuration")
    manager = Manager(
        _settings_file(args.config),
        kubeconfig=args.kubeconfig,
        port=args.port,
        certificate_file=args.tls_cert_file,
        key_file=args.tls_key_file,
        self_signed_for=args.webhook_configuration,
        metrics_port=args.metrics_port,
        metrics_certificate=args.metrics_tls_cert_file,
        metrics_key=args.metrics_tls_key_file,
    )
    _run_to_the_end(manager.run)


def _settings_file(path: str | None) -> "SettingsFile":
    from mirrorstream.runtime.settings import SettingsError, SettingsFile  # noqa: PLC0415

    try:
        return SettingsFile(path)
    except SettingsError as error:
        raise ConfigurationError(str(error)) from error


def _run_to_the_end(run: Callable[[], int]) -> NoReturn:
    """Run a program, and exit with its status as soon as it has stopped.

    The interpreter's own finalization ends threads wherever they are, with the locks of C and Rust libraries that they hold, and
    then takes these locks: a webhook that had stopped was seen to stay for 15 s. What libraries registered to be done at exit (the
    kubernetes package removes its files of a kubeconfig's keys) is done, but may not hold the process either.
    """
    import atexit  # noqa: PLC0415  only the long-running programs need these
    import threading  # noqa: PLC0415

    status = run()
    cleanup = threading.Thread(target=atexit._run_exitfuncs, daemon=True)  # noqa: SLF001  there is no other way
    cleanup.start()
    cleanup.join(EXIT_SECONDS)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _configure_logs(args: argparse.Namespace) -> None:
    """Only what talks to a cluster logs."""
    from mirrorstream.runtime import logs  # noqa: PLC0415

    logs.configure(args.log_level, args.log_format)


def _explain(args: argparse.Namespace) -> int:
    if args.as_pod:
        from mirrorstream_cli.commands import explain_as_pod  # noqa: PLC0415

        _configure_logs(args)
        return explain_as_pod.run(args)
    from mirrorstream_cli.commands import explain  # noqa: PLC0415

    if not args.file:
        _configure_logs(args)
    return explain.run(args)


def _status(args: argparse.Namespace) -> int:
    if args.contexts or args.all_contexts:
        from mirrorstream_cli.commands import status_contexts  # noqa: PLC0415

        _configure_logs(args)
        return status_contexts.run(args)
    from mirrorstream_cli.commands import status  # noqa: PLC0415

    _configure_logs(args)
    return status.run(args)


def _missing(args: argparse.Namespace) -> int:
    from mirrorstream_cli.commands import missing  # noqa: PLC0415

    _configure_logs(args)
    return missing.run(args)


def _check(args: argparse.Namespace) -> int:
    from mirrorstream_cli.commands import check  # noqa: PLC0415

    _configure_logs(args)
    return check.run(args)


def _suggest(args: argparse.Namespace) -> int:
    from mirrorstream_cli.commands import suggest  # noqa: PLC0415

    _configure_logs(args)
    return suggest.run(args)


def _retry(args: argparse.Namespace) -> int:
    from mirrorstream_cli.commands import retry  # noqa: PLC0415

    _configure_logs(args)
    return retry.run(args)


def _completion(args: argparse.Namespace) -> int:
    sys.stdout.write(script(args.shell))
    return 0


def _complete(words: Sequence[str]) -> int:
    from mirrorstream_cli.cluster_names import is_asking, names  # noqa: PLC0415

    sys.stdout.write(plugin_answer(complete(build_parser(only=words[0] if len(words) > 1 else ""), words, names)))
    sys.stdout.flush()
    if is_asking():
        os._exit(0)
    return 0


def _certs(args: argparse.Namespace) -> int:
    from mirrorstream_cli.commands import certs  # noqa: PLC0415

    return certs.run(args)


_Command = tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int], str]
_COMMANDS: dict[str, _Command] = {
    "controller": (options.add_controller, _controller, "import through the mirrors what the platform could not"),
    "webhook": (options.add_webhook, _webhook, "point pods of Local tags at the internal registry"),
    "explain": (options.add_explain, _explain, "which mirrors serve an image, and why; the state of a stream's tags"),
    "status": (options.add_status, _status, "which tags fail, what was tried, what healed"),
    "missing": (options.add_missing, _missing, "images of failing tags that no mirror has"),
    "check": (options.add_check, _check, "which tags would not survive without the upstream: ask the mirrors beforehand"),
    "suggest": (options.add_suggest, _suggest, "an ImageTagMirrorSet for scheduled tags that the platform fails to import"),
    "retry": (options.add_retry, _retry, "import a stream's tags again, and wait for the result"),
    "completion": (options.add_completion, _completion, "print a shell's completion script"),
    "certs": (options.add_certs, _certs, "make a certificate for the webhook's Service"),
}
"""Of each subcommand: what defines its arguments, what runs it, and what it is for."""


def _both_or_none(args: argparse.Namespace, first: str, second: str) -> None:
    if bool(getattr(args, first)) != bool(getattr(args, second)):
        raise UsageError(f"{_flag(first)} and {_flag(second)} go together")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit status: 0, 1 on an error and 2 on usage, with one line on stderr (argparse exits with more)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Texts of a cluster have any characters; a terminal or a pipe may know fewer.
            stream.reconfigure(errors="replace")
    program = sys.argv[0].rpartition(os.sep)[2]  # pathlib alone takes a tenth of a bare interpreter's start
    words = list(sys.argv[1:] if arguments is None else arguments)
    if program.startswith(COMPLETER) or words[:1] == ["__complete"]:
        asked = words if program.startswith(COMPLETER) else words[1:]
        return _complete(asked)
    name = "kubectl mirrorstream" if program.startswith("kubectl-") else "mirrorstream"
    args = build_parser(name, only=words[0] if words else "").parse_args(words)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader closed the pipe; the interpreter's own last flush must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except (ConfigurationError, OSError) as error:
        print(f"mirrorstream: {one_line(str(error))}", file=sys.stderr)  # noqa: T201  the one clear line
        return 2 if isinstance(error, UsageError) else 1
    return status
