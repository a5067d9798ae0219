"""`mirrorstream check`: before the upstream goes, which tags would not survive without it."""

import argparse
import dataclasses
import shlex
from collections import Counter
from collections.abc import Sequence

import msgspec
from mirrorstream.diagnose.check import CheckReport, Fate, Skipped, TagCheck, checks_of, missing_of, skipped_tags
from mirrorstream.imagestream.model import ImageStream, imagestream_from
from mirrorstream.kube.client import ConfigurationError
from mirrorstream.kube.errors import ClientError, UsageError
from mirrorstream.kube.ratelimit import RateLimiter

from mirrorstream_cli.asking import SHARE, Asking, nobody_could_ask
from mirrorstream_cli.check_text import render_check
from mirrorstream_cli.commands.missing import print_imageset
from mirrorstream_cli.commands.status import FAILING, connect
from mirrorstream_cli.object_files import read_files
from mirrorstream_cli.output import print_document, print_lines, terminal_width
from mirrorstream_cli.progress import Progress
from mirrorstream_cli.reader import DEFAULTS_NOTE, Reader

INTERRUPTED = 130
"""The exit status after Ctrl-C, as of every command."""


def run(args: argparse.Namespace) -> int:
    """Answer; the exit status. Raises ConfigurationError with one clear line."""
    _refuse_useless(args)
    client, namespace = connect(args)
    reader = Reader(client, None if args.file else namespace)
    try:
        streams = (
            _streams_of_files(reader, args.file, args.namespace or namespace or "")
            if args.file
            else _streams(reader, args.from_namespace or "")
        )
        view, configured = reader.controller_view()
        policy, _ = reader.rules(view)
        if policy is None:
            raise ConfigurationError("; ".join(reader.notes))
        if not configured:
            reader.note(DEFAULTS_NOTE)
        checks = [check for stream in streams for check in checks_of(stream, policy, view)]
        if args.file:
            # A stream of a file is judged by its own namespace, and asked for in that of -n.
            checks = [dataclasses.replace(check, namespace=args.namespace or check.namespace) for check in checks]
            for name in sorted({args.namespace or stream.metadata.namespace for stream in streams}):
                Reader(client, name, reader.notes).check_namespace()
        checks.sort(key=lambda check: check.namespace)
        with Progress() as progress:
            limiter = RateLimiter(reader.settings.controller.apiRequestsPerSecond * SHARE)
            asking = Asking(client, lambda count: progress.count(count, len(checks), "tags"), limiter)
            answered = asking.ask(checks)
        hosted = args.output == "text" and any(check.lacks_rule for check in answered) and reader.is_hosted()
    except ClientError as error:
        raise ConfigurationError(str(error)) from error
    stopped = len(answered) < len(checks)
    if stopped:
        reader.note(stopped_note(checks, answered, args))
        # The totals are of what was checked. A stream of a file is asked for in the namespace of -n.
        known = {(check.namespace, check.stream) for check in answered}
        instead = args.namespace if args.file else None
        streams = [each for each in streams if (instead or each.metadata.namespace, each.metadata.name) in known]
    if why := nobody_could_ask(answered, asking.refused):
        raise ConfigurationError(why)
    skipped: Counter[Skipped] = sum((skipped_tags(stream) for stream in streams), Counter())
    report = CheckReport(reader.namespace, len(streams), tuple(answered), skipped, tuple(reader.notes), hosted)
    if args.output == "text":
        print_lines(
            render_check(report, _where(args, namespace), width=terminal_width(), each=not args.all_namespaces, everything=args.all)
        )
    elif args.output == "imageset":
        print_imageset(missing_of(report.tags), reader.notes, unmirrored=args.unmirrored)
    else:
        print_document(report.document(), args.output)
    if stopped:
        return INTERRUPTED
    return 0 if report.counts[Fate.SURVIVES] == len(report.tags) else FAILING


def _refuse_useless(args: argparse.Namespace) -> None:
    if args.file and args.all_namespaces:
        raise UsageError("--file names the streams, so -A means nothing; -n is the namespace of the dry runs")
    if args.from_namespace and not args.all_namespaces:
        raise UsageError("--from names the first of several namespaces: it goes with -A")


def stopped_note(checks: Sequence[TagCheck], answered: Sequence[TagCheck], args: argparse.Namespace) -> str:
    """How far it got before Ctrl-C, and how to go on: with the first namespace of which a tag is missing."""
    said = f"stopped: {len(answered)} of {len(checks)} tags were checked"
    if not args.all_namespaces:
        return said
    # `answered` has the order of `checks`. Names do not tell them apart: files may have two streams of one name.
    pairs = zip(checks, answered, strict=False)
    position = next((index for index, (check, known) in enumerate(pairs) if check.name != known.name), len(answered))
    command = ["mirrorstream", "check", "-A", "--from", checks[position].namespace]
    for option, value in (("--context", args.context), ("--kubeconfig", args.kubeconfig)):
        command += [option, value] if value else []
    return f"{said}; `{shlex.join(command)}` goes on"


def _where(args: argparse.Namespace, namespace: str | None) -> str:
    if args.file:
        return "The files"
    return f"Namespace {namespace}" if namespace else "All namespaces"


def _streams(reader: Reader, first: str) -> list[ImageStream]:
    """The streams of the cluster, those of the namespace `first` and of all that come after it by name."""
    streams = reader.streams()
    if not streams:
        reader.check_namespace()
    found = [stream for stream in streams if stream.metadata.namespace >= first]
    if streams and not found:
        raise ConfigurationError(f"--from {first}: no namespace from there on has an ImageStream")
    return found


def _streams_of_files(reader: Reader, files: Sequence[str], default: str) -> list[ImageStream]:
    """The streams of files, each in its own namespace, else in `default`."""
    found = read_files(files)
    for note in found.notes:
        reader.note(note)
    if unused := sorted({item["kind"] for item in found.objects} - {"ImageStream"}):
        reader.note(
            f"the files' objects of other kinds are not used, since the mirror rules are the cluster's: {', '.join(unused)}"
        )
    streams = []
    for metadata, item in ((item["metadata"], item) for item in found.objects if item["kind"] == "ImageStream"):
        namespace = metadata.get("namespace") or default
        try:
            streams.append(imagestream_from({**item, "metadata": {**metadata, "namespace": namespace}}))
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"ImageStream {metadata.get('name')}: {error}") from error
    return streams
