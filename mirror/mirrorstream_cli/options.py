"""The subcommands' arguments, defined where neither a cluster's client nor anything else that is slow to import is needed."""

import argparse
import re

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
LABEL_LENGTH = 63
LOG_LEVELS = ("debug", "info", "warning", "error")
_SECONDS = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


def duration(text: str) -> float:
    """Seconds from `90s`, `5m`, `1h30m`, or a bare number of seconds. Raises ArgumentTypeError."""
    if _SECONDS.fullmatch(text):
        return float(text)
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 5m or 1h30m")
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0)


def is_label(text: str) -> bool:
    """Whether `text` is a DNS label (RFC 1123), as Kubernetes wants the names of Services and namespaces."""
    return len(text) <= LABEL_LENGTH and _LABEL.fullmatch(text) is not None


def namespace(text: str) -> str:
    """A name that a namespace may have. Raises ArgumentTypeError."""
    if not is_label(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a namespace")
    return text


def context_names(text: str) -> list[str]:
    """The names of contexts in `A,B`. Raises ArgumentTypeError."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of contexts such as paris,berlin")
    return names


def _add_logs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info", help="least severe messages to log (default: info)")
    parser.add_argument(
        "--log-format", choices=("json", "console"), help="how to log (default: console when stderr is a terminal, else json)"
    )


def _add_program(parser: argparse.ArgumentParser) -> None:
    _add_logs(parser)
    parser.add_argument("--kubeconfig", metavar="F", help="credentials (default: the pod's, else as kubectl finds them)")
    parser.add_argument("--config", metavar="F", help="configuration file, reloaded when it changes (default: all defaults)")
    parser.add_argument(
        "--metrics-port", type=_port, default=8080, metavar="PORT", help="/metrics, /healthz and /readyz (default: 8080)"
    )
    parser.add_argument(
        "--metrics-tls-cert-file", metavar="F", help="the certificate of the metrics port, with --metrics-tls-key-file"
    )
    parser.add_argument("--metrics-tls-key-file", metavar="F", help="the certificate's key")


def add_controller(parser: argparse.ArgumentParser) -> None:
    """`mirrorstream controller`."""
    _add_program(parser)
    parser.add_argument("--namespace", metavar="NS", help="where the Lease lives (default: the pod's own namespace)")
    parser.add_argument("--no-leader-election", action="store_true", help="act at once, as the only replica")


def add_webhook(parser: argparse.ArgumentParser) -> None:
    """`mirrorstream webhook`."""
    _add_program(parser)
    parser.add_argument("--port", type=_port, default=8443, metavar="PORT", help="the port for admission reviews (default: 8443)")
    parser.add_argument("--tls-cert-file", metavar="F", help="certificate and chain, read again when they change")
    parser.add_argument("--tls-key-file", metavar="F", help="the certificate's key")
    parser.add_argument(
        "--self-signed", action="store_true", help="certificates of its own, made known to API servers by --webhook-configuration"
    )
    parser.add_argument(
        "--webhook-configuration",
        metavar="NAME",
        help="with --self-signed: the configuration whose caBundle is kept up to date",
    )
    parser.add_argument("--insecure", action="store_true", help="plain HTTP, for tests only: API servers ask over TLS")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """`mirrorstream completion`."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")


def add_cluster(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Which cluster, or with `several` which clusters, and as whom."""
    parser.add_argument("--kubeconfig", metavar="F", help="credentials (default: as kubectl finds them)")
    contexts = parser.add_mutually_exclusive_group()
    contexts.add_argument("--context", metavar="NAME", help="the kubeconfig's context")
    if several:
        contexts.add_argument(
            "--contexts", type=context_names, metavar="A,B,…", help="ask the clusters of these contexts, and print a line for each"
        )
        contexts.add_argument("--all-contexts", action="store_true", help="the same for every cluster of the kubeconfig")


def add_output(parser: argparse.ArgumentParser, *more: str) -> None:
    """How to answer."""
    parser.add_argument(
        "-o", "--output", choices=("text", "json", "yaml", *more), default="text", help="how to answer (default: text)"
    )


def _add_scope(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-n", "--namespace", type=namespace, metavar="NS", help="the namespace (default: the context's, as for kubectl)"
    )
    where.add_argument("-A", "--all-namespaces", action="store_true", help="all namespaces")


def add_status(parser: argparse.ArgumentParser) -> None:
    """`mirrorstream status`."""
    _add_logs(parser)
    _add_scope(parser)
    _add_all(parser)
    parser.add_argument(
        "--wait", type=duration, metavar="DURATION", help="wait until nothing fails, at most this long: 90s, 5m, 1h30m"
    )
    add_output(parser)
    add_cluster(parser, several=True)


def _add_all(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="list every tag, even if that takes more than one screen")


def add_missing(parser: argparse.ArgumentParser) -> None:
    """`mirrorstream missing`."""
    _add_logs(parser)
    _add_scope(parser)
    _add_imageset(parser)
    add_cluster(parser)


def add_check(parser: argparse.ArgumentParser) -> None:
    """`mirrorstream check`."""
    _add_logs(parser)
    _add_scope(parser)
    _add_all(parser)
    parser.add_argument(
        "--from", dest="from_namespace", type=namespace, metavar="NS", help="with -A: begin with this namespace, in order of names"
    )
    parser.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="STREAMS.yaml",
        help="check the ImageStreams of files, such as a newer release's samples, instead of the cluster's; repeatable",
    )
    _add_imageset(parser)
    add_cluster(parser)


def add_suggest(parser: argparse.ArgumentParser) -> None:
    """`mirrorstream suggest`."""
    _add_logs(parser)
    _add_scope(parser)
    add_output(parser)
    add_cluster(parser)


def _add_imageset(parser: argparse.ArgumentParser) -> None:
    add_output(parser, "imageset")
    parser.add_argument(
        "--unmirrored",
        action="store_true",
        help="with -o imageset: also images that no mirror rule covers, which any tenant may name",
    )


def add_retry(parser: argparse.ArgumentParser) -> None:
    """`mirrorstream retry`."""
    _add_logs(parser)
    parser.add_argument("subject", metavar="STREAM[:TAG]", help="the stream, all of whose failing tags are tried again, or one tag")
    parser.add_argument(
        "-n", "--namespace", type=namespace, metavar="NS", help="the namespace (default: the context's, as for kubectl)"
    )
    parser.add_argument(
        "--wait",
        type=duration,
        metavar="DURATION",
        help="how long to wait for the heal (default: until mirrorstream has tried again, for at most a minute)",
    )
    add_output(parser)
    add_cluster(parser)


def add_explain(parser: argparse.ArgumentParser) -> None:
    """`mirrorstream explain`."""
    _add_logs(parser)
    parser.add_argument("subject", metavar="REFERENCE | NAMESPACE/STREAM[:TAG]", help="an image, or a stream and perhaps its tag")
    parser.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="OBJECTS.yaml",
        help="read objects from files or folders instead of a cluster (-: standard input); repeatable",
    )
    parser.add_argument("--as-pod", action="store_true", help="what the webhook would do with the image in a pod of -n")
    parser.add_argument("-n", "--namespace", type=namespace, metavar="NS", help="the pod's namespace, with --as-pod")
    parser.add_argument(
        "--service-account", metavar="SA", default="default", help="the pod's service account, with --as-pod (default: default)"
    )
    parser.add_argument(
        "--config", metavar="F", help="the webhook's configuration file, with --as-pod (default: the cluster's ConfigMap)"
    )
    add_cluster(parser)
    add_output(parser)


def add_certs(parser: argparse.ArgumentParser) -> None:
    """`mirrorstream certs`."""
    _add_logs(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for tls.crt, tls.key and ca.crt")
    parser.add_argument("--service", required=True, metavar="NAME", type=_label, help="the webhook's Service")
    parser.add_argument("--namespace", required=True, metavar="NS", type=_label, help="the Service's namespace")
    parser.add_argument("--days", default=365, metavar="N", type=_days, help="how long they are valid (default: 365)")


def _label(text: str) -> str:
    if not is_label(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a Kubernetes object: lower-case letters, digits and '-'")
    return text


def _days(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 3650:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days between 1 and 3650")
    return int(text)


def _port(text: str) -> int:
    if not text.isdigit() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)
