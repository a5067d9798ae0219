"""`mirrorstream status`: which tags fail and why, what was tried, what healed, and which rules are in force."""

import argparse

from mirrorstream.commands.output import print_document, print_lines, say_waiting
from mirrorstream.commands.reading import DEFAULTS_NOTE, USER_AGENT, Reader
from mirrorstream.commands.waiting import Clock, look_until
from mirrorstream.kube.client import Client, ConfigurationError, load_client
from mirrorstream.kube.credentials import default_namespace
from mirrorstream.kube.errors import ClientError
from mirrorstream.statusreport import StatusReport, render_status
from mirrorstream.tagstates import BROKEN, State, tag_states, with_origins

FAILING = 3
"""The exit status while something fails."""
LOOK_SECONDS = 1.0


def run(args: argparse.Namespace, clock: Clock | None = None) -> int:
    """Answer; the exit status. Raises ConfigurationError with one clear line."""
    clock = clock or Clock()
    client, namespace = connect(args)
    waiting = args.wait is not None
    say_waiting(args.wait or 0, "everything to heal")
    try:
        looked = look_until(
            lambda: look(client, namespace),
            lambda found: not found[0].unsettled,
            seconds=args.wait or 0.0,
            every=LOOK_SECONDS,
            clock=clock,
        )
        report, reader = looked.found
        if looked.note:
            reader.note(looked.note)
        tags = tuple(with_origins(report.tags, reader.origins(report.tags)))
    except ClientError as error:
        raise ConfigurationError(str(error)) from error
    report = StatusReport(report.namespace, report.streams, tags, report.rules, tuple(reader.notes))
    if args.output == "text":
        print_lines(render_status(report, clock.now()))
    else:
        print_document(report.document(), args.output)
    return FAILING if report.broken or (waiting and report.counts[State.PENDING]) else 0


def connect(args: argparse.Namespace) -> tuple[Client, str | None]:
    """The client, and the namespace that is asked about; None for all. Raises ConfigurationError."""
    client = load_client(args.kubeconfig, args.context, user_agent=USER_AGENT)
    if getattr(args, "all_namespaces", False):
        return client, None
    return client, args.namespace or default_namespace(args.kubeconfig, args.context)


def look(client: Client, namespace: str | None) -> tuple[StatusReport, Reader]:
    """How everything stands now, but for what came through a mirror. Raises ClientError."""
    reader = Reader(client, namespace)
    # Before the streams: what an Event tells of has happened by then, so no tag looks failing with a success as its last attempt.
    journal = reader.journal()
    streams = reader.streams()
    if not streams:
        reader.check_namespace()
    asking, configured = reader.asking()
    policy, rules = reader.rules(asking)
    tags = tuple(state for stream in streams for state in tag_states(stream, policy, journal, asking))
    if not configured and any(tag.state in BROKEN for tag in tags):
        reader.note(DEFAULTS_NOTE)
    return StatusReport(namespace, len(streams), tags, rules), reader
