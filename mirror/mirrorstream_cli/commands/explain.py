"""`mirrorstream explain`: on a cluster, or offline on files with mirror sets."""

import argparse
import time

from mirrorstream.diagnose.explain import ExplainReport, Explanation, explain_reference, explain_stream, render, searched
from mirrorstream.imagestream.model import importing_tag
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
        if is_reference(args.subject):
            source.load()
            explanations = _explain_image(source, args.subject)
        else:
            explanations = _explain_stream(source, args.subject)
    except (ReferenceError, ClientError) as error:
        raise ConfigurationError(str(error)) from error
    warnings = source.policy.warnings if source.policy else ()
    known = source.policy is not None
    answer = ExplainReport(tuple(explanations), warnings, tuple(source.notes), tuple(source.events), rules_known=known)
    if args.output == "text":
        print_lines(render(answer, time.time()))
    else:
        print_document(answer.document(), args.output)
    return 0


def _cluster(args: argparse.Namespace) -> Source:
    from mirrorstream_cli.cluster_source import load  # noqa: PLC0415  files need no client

    return load(args.kubeconfig, args.context)


def _explain_image(source: Source, subject: str) -> list[Explanation]:
    """Explain an image; one without a registry in each place where nodes look for it. Raises ReferenceError."""
    recorded = source.controller_view.recorded_reference
    places = searched(source.policy, subject)
    if places:
        setting = "containerRuntimeSearchRegistries of the Image config"
        source.notes.append(f"a node looks for {subject} in {', then '.join(places)} ({setting})")
    if "/" not in subject and "@" not in subject:
        taken = "a name without a registry" if places else "an image of docker.io"
        source.notes.append(f"{subject} was taken for {taken}; a stream's tag is NAMESPACE/{subject}")
    return [explain_reference(source.policy, place, recorded_reference=recorded) for place in places or [subject]]


def _explain_stream(source: Source, subject: str) -> list[Explanation]:
    namespace, slash, rest = subject.partition("/")
    name, colon, tag = rest.partition(":")
    if not slash or not namespace or not name or "/" in name or (colon and not tag):
        raise ConfigurationError(f"{subject!r} is neither an image (with its registry's host) nor NAMESPACE/STREAM[:TAG]")
    stream, states = source.stream(namespace, name)
    if tag and tag in {t.name for t in stream.spec_tags}:
        importing = importing_tag(stream, tag)
        if importing and importing.name != tag:
            source.notes.append(f"{tag} follows {importing.name}, which is explained here")
            tag = importing.name
    by_name = {state.tag: state for state in states}
    recorded = source.controller_view.recorded_reference
    found, wrong = explain_stream(source.policy, stream, by_name, tag or None, recorded_reference=recorded)
    if wrong and not found:
        raise ConfigurationError("; ".join(wrong))
    source.notes += wrong
    if tag and not found:
        raise ConfigurationError(f"ImageStream {namespace}/{name} has no tag {tag!r} that imports an image")
    if not found:
        raise ConfigurationError(f"ImageStream {namespace}/{name} has no tag that imports an image")
    return found
