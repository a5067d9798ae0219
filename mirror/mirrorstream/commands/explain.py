"""`mirrorstream explain`: on a cluster, or offline on files with mirror sets."""

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from mirrorstream.attempts import Journal
from mirrorstream.commands.output import print_document, print_lines
from mirrorstream.commands.reading import DEFAULTS_NOTE, USER_AGENT, Reader
from mirrorstream.explain import Answer, Explanation, explain_reference, explain_stream, render
from mirrorstream.imagestreams import ImageStream, imagestream_from, importing_tag
from mirrorstream.kube.client import Client, ConfigurationError, load_client
from mirrorstream.kube.errors import ClientError
from mirrorstream.objects import KINDS
from mirrorstream.policy import MirrorPolicy
from mirrorstream.references import ReferenceError, has_registry_host
from mirrorstream.safetext import shortened
from mirrorstream.tagstates import Asking, TagState, tag_states, with_origins
from mirrorstream.yamltext import YamlError, documents

READABLE = (*KINDS, "Image", "ImageStream", "ClusterImagePolicy", "ImagePolicy")
"""The kinds that files may have."""


def is_reference(subject: str) -> bool:
    """Whether `subject` is an image rather than a stream: its first component is a registry host, or it has a digest."""
    first = subject.partition("/")[0]
    return "@" in subject or has_registry_host(subject) or ("/" not in subject and ("." in first or ":" in first))


def run(args: argparse.Namespace) -> int:
    """Explain `args.subject`; the exit status. Raises ConfigurationError with one clear line."""
    try:
        source = _Files(args.file) if args.file else _Cluster(load_client(args.kubeconfig, args.context, user_agent=USER_AGENT))
        if is_reference(args.subject):
            source.load()
            explanations: list[Explanation] = [
                explain_reference(source.policy, args.subject, recorded_reference=source.asking.recorded_reference)
            ]
            if "/" not in args.subject and "@" not in args.subject:
                hint = f"a stream's tag is NAMESPACE/{args.subject}"
                source.notes.append(f"{args.subject} was taken for an image of docker.io; {hint}")
        else:
            explanations = _explain_stream(source, args.subject)
    except (ReferenceError, ClientError) as error:
        raise ConfigurationError(str(error)) from error
    warnings = source.policy.warnings if source.policy else ()
    known = source.policy is not None
    answer = Answer(tuple(explanations), warnings, tuple(source.notes), tuple(source.events), rules_known=known)
    if args.output == "text":
        print_lines(render(answer, time.time()))
    else:
        print_document(answer.document(), args.output)
    return 0


@dataclass(slots=True)
class _Source:
    """Where rules and streams come from."""

    policy: MirrorPolicy | None = field(init=False)
    """None where a kind of mirror set may not be seen."""
    asking: Asking = field(init=False)
    notes: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def load(self) -> None:
        """Read the rules."""
        raise NotImplementedError

    def stream(self, namespace: str, name: str) -> tuple[ImageStream, list[TagState]]:
        """A stream, and how its tags stand. Raises ConfigurationError, ClientError."""
        raise NotImplementedError


@dataclass(slots=True)
class _Files(_Source):
    """Offline: nothing is known of what was tried."""

    names: list[str] = field(default_factory=list)
    _objects: list[dict[str, Any]] = field(default_factory=list)

    def __init__(self, names: list[str]) -> None:
        self.asking, self.notes, self.events, self.names = Asking(), [], [], names

    def load(self) -> None:
        self._objects = [item for name in self.names for item in read_file(name)]
        self.policy = MirrorPolicy.from_objects(self._objects)

    def stream(self, namespace: str, name: str) -> tuple[ImageStream, list[TagState]]:
        self.load()
        document = _stream_in_files(self._objects, namespace, name)
        try:
            stream = imagestream_from(document)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"ImageStream {namespace}/{name}: {error}") from error
        return stream, list(tag_states(stream, self.policy, Journal(), Asking()))


@dataclass(slots=True)
class _Cluster(_Source):
    """On a cluster, with what its Events and Images say."""

    client: Client = field(init=False)

    def __init__(self, client: Client) -> None:
        self.notes, self.events, self.client = [], [], client

    def load(self) -> None:
        self._configure(Reader(self.client, None, self.notes))

    def _configure(self, reader: Reader) -> None:
        """Read the configuration and the rules, on which every answer depends."""
        self.asking, configured = reader.asking()
        self.policy, _ = reader.rules(self.asking)
        if not configured:
            reader.note(DEFAULTS_NOTE)

    def stream(self, namespace: str, name: str) -> tuple[ImageStream, list[TagState]]:
        reader = Reader(self.client, namespace, self.notes)
        journal = reader.journal(name)  # before the stream: see commands/status.py
        stream = reader.stream(name)
        self._configure(reader)
        self.events = journal.sentences((namespace, name), stream.metadata.uid)
        states = list(tag_states(stream, self.policy, journal, self.asking))
        return stream, with_origins(states, reader.origins(states))


def _explain_stream(source: _Source, subject: str) -> list[Explanation]:
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
    recorded = source.asking.recorded_reference
    found = explain_stream(source.policy, stream, by_name, tag or None, recorded_reference=recorded)
    if tag and not found:
        raise ConfigurationError(f"ImageStream {namespace}/{name} has no tag {tag!r} that imports an image")
    if not found:
        raise ConfigurationError(f"ImageStream {namespace}/{name} has no tag that imports an image")
    return found


def _stream_in_files(objects: list[dict[str, Any]], namespace: str, name: str) -> dict[str, Any]:
    for item in objects:
        metadata = item.get("metadata") or {}
        if item.get("kind") == "ImageStream" and metadata.get("name") == name and metadata.get("namespace", namespace) == namespace:
            return {**item, "metadata": {"namespace": namespace, **metadata}}
    raise ConfigurationError(f"the files have no ImageStream {namespace}/{name}")


def read_file(name: str) -> list[dict[str, Any]]:
    """The objects of a YAML file with one or more documents; Lists are taken apart.

    Raises ConfigurationError that names the file, the document and the field.
    """
    try:
        found = list(documents(sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name}: cannot be read: {error}") from error
    except YamlError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    objects = []
    for number, document in enumerate(found, 1):
        where = f"{name}, document {number}"
        if document is None:
            continue
        if not isinstance(document, dict):
            raise ConfigurationError(f"{where}: expected an object, found {type(document).__name__}")
        kind = document.get("kind")
        items = document.get("items") if isinstance(kind, str) and kind.endswith("List") else [document]
        if not isinstance(items, list):
            raise ConfigurationError(f"{where}: items: expected a list")
        objects += [_known(item, where) for item in items]
    return objects


def _known(item: Any, where: str) -> dict[str, Any]:
    kind = item.get("kind") if isinstance(item, dict) else None
    if kind not in READABLE:
        raise ConfigurationError(f"{where}: kind: {shortened(repr(kind), 100)} is none of {', '.join(READABLE)}")
    if not isinstance(item.get("metadata"), dict):
        raise ConfigurationError(f"{where}: metadata: expected a mapping in {kind}")
    found: dict[str, Any] = item
    return found
