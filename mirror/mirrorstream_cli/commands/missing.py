"""`mirrorstream missing`: the images of failing tags that no mirror has, also for oc-mirror to fetch."""

import argparse
import sys

from mirrorstream.commands.output import print_document, print_lines
from mirrorstream.commands.status import FAILING, connect, look
from mirrorstream.kube.client import ConfigurationError
from mirrorstream.kube.errors import ClientError
from mirrorstream.missingimages import imageset, missing_images, render_missing
from mirrorstream.safetext import one_line
from mirrorstream.statusreport import notes


def run(args: argparse.Namespace) -> int:
    """Answer; the exit status. Raises ConfigurationError with one clear line."""
    client, namespace = connect(args)
    try:
        report, reader = look(client, namespace)
    except ClientError as error:
        raise ConfigurationError(str(error)) from error
    images = missing_images(report.tags)
    if args.output == "text":
        where = f"Namespace {namespace}" if namespace else "All namespaces"
        print_lines([*render_missing(images, where), *notes(reader.notes)])
    elif args.output == "imageset":
        document, left_out = imageset(images, uncovered=args.uncovered)
        # On stderr, so that stdout is what oc-mirror reads.
        for text in (*left_out, *reader.notes):
            print(f"mirrorstream: {one_line(text)}", file=sys.stderr)  # noqa: T201
        print_document(document, "yaml")
    else:
        print_document(
            {"namespace": namespace, "images": [image.document() for image in images], "notes": reader.notes}, args.output
        )
    return FAILING if images else 0
