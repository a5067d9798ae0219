"""`mirrorstream missing`: the images of failing tags that no mirror has, also for oc-mirror to fetch."""

import argparse
import sys
from collections.abc import Iterable

from mirrorstream.diagnose.missing import MissingImage, imageset, missing_images, render_missing
from mirrorstream.kube.client import ConfigurationError
from mirrorstream.kube.errors import ClientError
from mirrorstream.text.sanitize import one_line
from mirrorstream.text.terminal import notes

from mirrorstream_cli.commands.status import FAILING, connect, read_report
from mirrorstream_cli.output import print_document, print_lines


def run(args: argparse.Namespace) -> int:
    """Answer; the exit status. Raises ConfigurationError with one clear line."""
    client, namespace = connect(args)
    try:
        report, reader, _ = read_report(client, namespace)
    except ClientError as error:
        raise ConfigurationError(str(error)) from error
    images = missing_images(report.tags)
    if args.output == "text":
        where = f"Namespace {namespace}" if namespace else "All namespaces"
        print_lines([*render_missing(images, where), *notes(reader.notes)])
    elif args.output == "imageset":
        print_imageset(images, reader.notes, unmirrored=args.unmirrored)
    else:
        print_document(
            {"namespace": namespace, "images": [image.document() for image in images], "notes": reader.notes}, args.output
        )
    return FAILING if images else 0


def print_imageset(images: Iterable[MissingImage], notes_: Iterable[str], *, unmirrored: bool) -> None:
    """Print the ImageSetConfiguration; what is left out, and the notes, go to stderr, so that stdout is what oc-mirror reads."""
    document, left_out = imageset(images, unmirrored=unmirrored)
    for text in (*([f"left out: {left_out}; -o yaml names them"] if left_out else []), *notes_):
        print(f"mirrorstream: {one_line(text)}", file=sys.stderr)  # noqa: T201
    print_document(document, "yaml")
