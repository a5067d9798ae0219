"""`mirrorstream explain NAMESPACE/STREAM[:TAG]`: the tags of a stream, of a cluster or of files."""

import time
from collections.abc import Iterable

from mirrorstream.diagnose.explain import Explanation
from mirrorstream.diagnose.explain_stream import explain_stream, tag_heading
from mirrorstream.imagestream.model import importing_tag
from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.text.terminal import Line

from mirrorstream_cli.file_source import Source


def heading(explanation: Explanation) -> Iterable[Line]:
    """What stands above the answer to a tag."""
    return tag_heading(explanation, time.time())


def explain(source: Source, subject: str) -> list[Explanation]:
    """Explain the tags of `subject`. Raises ConfigurationError, ClientError."""
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
    found, wrong = explain_stream(source.policy, stream, by_name, tag or None, recorded_reference=source.recorded_reference)
    if wrong and not found:
        raise ConfigurationError("; ".join(wrong))
    source.notes += wrong
    if tag and not found:
        raise ConfigurationError(f"ImageStream {namespace}/{name} has no tag {tag!r} that imports an image")
    if not found:
        raise ConfigurationError(f"ImageStream {namespace}/{name} has no tag that imports an image")
    return found
