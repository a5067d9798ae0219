"""`mirrorstream explain`: on a cluster, or offline on files with mirror sets."""

import argparse

from mirrorstream.diagnose.explain import ExplainReport, Explanation, explain_reference, reference_heading, render, searched
from mirrorstream.kube.errors import ClientError, ConfigurationError
from mirrorstream.rules.references import ReferenceError, has_registry_host

from mirrorstream_cli.file_source import FileSource, Source
from mirrorstream_cli.output import print_document, print_lines


def is_reference(subject: str) -> bool:
    """Whether `subject` is an image rather than a stream: its first component is a registry host, or it has a digest."""
    first = subject.partition("/")[0]
    return "@" in subject or has_registry_host(subject) or ("/" not in subject and ("." in first or ":" in first))


def run(args: argparse.Namespace) -> int:
    """Explain `args.subject`; the exit status. Raises ConfigurationError with one clear line."""
    try:
        source = FileSource(args.file) if args.file else _cluster(args)
        heading = reference_heading
        if is_reference(args.subject):
            source.load()
            explanations = _explain_image(source, args.subject)
        else:
            from mirrorstream_cli.commands import explain_tags  # noqa: PLC0415  a reference needs nothing of it

            explanations = explain_tags.explain(source, args.subject)
            heading = explain_tags.heading
    except (ReferenceError, ClientError) as error:
        raise ConfigurationError(str(error)) from error
    warnings = source.policy.warnings if source.policy else ()
    known = source.policy is not None
    answer = ExplainReport(tuple(explanations), warnings, tuple(source.notes), tuple(source.events), rules_known=known)
    if args.output == "text":
        print_lines(render(answer, heading))
    else:
        print_document(answer.document(), args.output)
    return 0


def _cluster(args: argparse.Namespace) -> Source:
    from mirrorstream_cli.cluster_source import load  # noqa: PLC0415  files need no client

    return load(args.kubeconfig, args.context)


def _explain_image(source: Source, subject: str) -> list[Explanation]:
    """Explain an image; one without a registry in each place where nodes look for it. Raises ReferenceError."""
    recorded = source.recorded_reference
    places = searched(source.policy, subject)
    if places:
        setting = "containerRuntimeSearchRegistries of the Image config"
        source.notes.append(f"a node looks for {subject} in {', then '.join(places)} ({setting})")
    if "/" not in subject and "@" not in subject:
        taken = "a name without a registry" if places else "an image of docker.io"
        source.notes.append(f"{subject} was taken for {taken}; a stream's tag is NAMESPACE/{subject}")
    return [explain_reference(source.policy, place, recorded_reference=recorded) for place in places or [subject]]
