"""`mirrorstream suggest`: mirror sets under which the platform itself imports scheduled tags that only mirrorstream heals now."""

import argparse
import sys
import textwrap

from mirrorstream.diagnose.suggest import TAG_KIND, explanation, nothing_suggested, suggestion
from mirrorstream.diagnose.tag_status import with_origins
from mirrorstream.kube.client import ConfigurationError
from mirrorstream.kube.errors import ClientError
from mirrorstream.text.sanitize import clean

from mirrorstream_cli.commands.status import connect, read_report
from mirrorstream_cli.output import print_document

COMMENT_WIDTH = 79


def run(args: argparse.Namespace) -> int:
    """Answer; the exit status. Raises ConfigurationError with one clear line."""
    client, namespace = connect(args)
    try:
        report, reader, _ = read_report(client, namespace)
        if reader.policy is None:
            raise ConfigurationError("; ".join(reader.notes))
        states = with_origins(report.tags, reader.origins(report.tags))
        hosted = any(state.fails_on_schedule for state in states) and reader.is_hosted()
        found = suggestion(states, reader.policy, reader.rule_objects, hosted=hosted)
        if found.objects and not reader.may_create("config.openshift.io", "imagetagmirrorsets"):
            reader.note(f"you may not create {TAG_KIND}s: an administrator of the cluster has to apply this")
    except ClientError as error:
        raise ConfigurationError(str(error)) from error
    comments, others = explanation(found), [*nothing_suggested(found), *(f"Note: {note}" for note in reader.notes)]
    if args.output == "text":
        for text in (*comments, *others):
            sys.stdout.write(f"{_comment(text)}\n")
        for document in found.objects:
            sys.stdout.write("---\n")
            print_document(document, "yaml")
    else:
        # On stderr, so that stdout is what `oc apply` reads.
        for text in others:
            print(f"mirrorstream: {clean(text)}", file=sys.stderr)  # noqa: T201
        print_document({"apiVersion": "v1", "kind": "List", "items": found.objects}, args.output)
    return 0


def _comment(text: str) -> str:
    """A YAML comment: a reader's terminal must not break it, since what it breaks off is no comment any more when it is copied."""
    indent = "# " + 2 * " " * (len(text) - len(text.lstrip()))
    lines = textwrap.wrap(
        clean(text), COMMENT_WIDTH, initial_indent="# ", subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)
