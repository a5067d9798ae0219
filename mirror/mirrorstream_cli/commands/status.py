"""`mirrorstream status`: which tags fail and why, what was tried, what healed, and which rules are in force."""

import argparse
import dataclasses

from mirrorstream.diagnose.status import StatusReport, render_status
from mirrorstream.diagnose.tag_status import BROKEN, State, tag_states, with_origins
from mirrorstream.imagestream.model import ImageStream
from mirrorstream.kube.client import Client, ConfigurationError, load_client
from mirrorstream.kube.credentials import default_namespace
from mirrorstream.kube.errors import ClientError
from mirrorstream.text.terminal import Text

from mirrorstream_cli.groups import fits
from mirrorstream_cli.output import print_document, print_lines, terminal_width
from mirrorstream_cli.pod_reader import read_hanging
from mirrorstream_cli.polling import Clock, poll_until
from mirrorstream_cli.progress import Healing, Progress
from mirrorstream_cli.reader import DEFAULTS_NOTE, Reader
from mirrorstream_cli.single_objects import USER_AGENT
from mirrorstream_cli.status_summary import render_summary

FAILING = 3
"""The exit status while something fails."""
POLL_SECONDS = 1.0


def run(args: argparse.Namespace, clock: Clock | None = None) -> int:
    """Answer; the exit status. Raises ConfigurationError with one clear line."""
    clock = clock or Clock()
    client, namespace = connect(args)
    waiting = args.wait is not None
    healing = Healing()
    try:
        with Progress(now=clock.monotonic) as progress:
            polled = poll_until(
                lambda: read_report(client, namespace),
                lambda found: not found[0].unsettled,
                seconds=args.wait or 0.0,
                every=POLL_SECONDS,
                clock=clock,
                tell=lambda found: progress.show(healing.text(found[0].tags)),
            )
        report, reader, streams = polled.found
        if polled.note:
            reader.note(polled.note)
        report = with_details(report, reader, streams)
    except ClientError as error:
        raise ConfigurationError(str(error)) from error
    if args.output == "text":
        print_lines(text_lines(report, clock.now(), terminal_width(), everything=args.all))
    else:
        print_document(report.document(), args.output)
    return FAILING if report.broken or (waiting and report.counts[State.PENDING]) else 0


def text_lines(report: StatusReport, now: float, width: int | None, *, everything: bool = False) -> list[Text]:
    """Every tag, where that is wanted or fits a screen for one namespace; otherwise groups of them."""
    if everything or report.namespace:
        lines = render_status(report, now, everything=everything)
        if everything or fits(lines, width):
            return lines
    return render_summary(report, now, width)


def connect(args: argparse.Namespace) -> tuple[Client, str | None]:
    """The client, and the namespace that is asked about; None for all. Raises ConfigurationError."""
    client = load_client(args.kubeconfig, args.context, user_agent=USER_AGENT)
    if getattr(args, "all_namespaces", False):
        return client, None
    return client, args.namespace or default_namespace(args.kubeconfig, args.context)


def read_report(client: Client, namespace: str | None) -> tuple[StatusReport, Reader, list[ImageStream]]:
    """How everything stands now, but for what came through a mirror and for pods. Raises ClientError."""
    reader = Reader(client, namespace)
    # Before the streams: what an Event tells of has happened by then, so no tag looks failing with a success as its last attempt.
    history = reader.history()
    streams = reader.streams()
    if not streams:
        reader.check_namespace()
    controller_view, configured = reader.controller_view()
    policy, rules = reader.rules(controller_view)
    tags = tuple(state for stream in streams for state in tag_states(stream, policy, history, controller_view))
    if not configured and any(tag.state in BROKEN for tag in tags):
        reader.note(DEFAULTS_NOTE)
    return StatusReport(namespace, len(streams), tags, rules), reader, streams


def with_details(report: StatusReport, reader: Reader, streams: list[ImageStream]) -> StatusReport:
    """The answer of `read_report` with what came through a mirror, the pods that hang, and the notes so far.

    Whether it is a hosted cluster is asked only where advice depends on it. Raises ClientError.
    """
    tags = tuple(with_origins(report.tags, reader.origins(report.tags)))
    hosted = any(tag.heals_on_schedule or tag.state is State.UNMIRRORED for tag in tags) and reader.is_hosted()
    pods = read_hanging(reader, streams, tags)
    return dataclasses.replace(report, tags=tags, pods=pods, hosted=hosted, notes=tuple(reader.notes))
