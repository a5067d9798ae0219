"""`mirrorstream explain`: on a cluster, or offline on files with mirror sets."""

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

from mirrorstream.commands.output import print_document
from mirrorstream.commands.reading import cluster_objects
from mirrorstream.explain import Answer, Explanation, explain_reference, explain_stream, render
from mirrorstream.imagestreams import imagestream_from
from mirrorstream.kube.client import Client, ConfigurationError, load_client
from mirrorstream.kube.errors import ClientError
from mirrorstream.objects import KINDS
from mirrorstream.policy import MirrorPolicy
from mirrorstream.references import ReferenceError, has_registry_host
from mirrorstream.sources import PATHS

READABLE = (*KINDS, "Image", "ImageStream", "ClusterImagePolicy", "ImagePolicy")
"""The kinds that files may have."""


def is_reference(subject: str) -> bool:
    """Whether `subject` is an image rather than a stream: its first component is a registry host, or it has a digest."""
    first = subject.partition("/")[0]
    return "@" in subject or has_registry_host(subject) or ("/" not in subject and ("." in first or ":" in first))


def run(args: argparse.Namespace) -> int:
    """Explain `args.subject`; the exit status. Raises ConfigurationError with one clear line."""
    notes: list[str] = []
    try:
        if args.file:
            objects = [item for name in args.file for item in read_file(name)]
            client = None
        else:
            client = load_client(args.kubeconfig, args.context)
            objects = list(cluster_objects(client, PATHS, notes))
        policy = MirrorPolicy.from_objects(objects)
        if is_reference(args.subject):
            explanations: list[Explanation] = [explain_reference(policy, args.subject)]
        else:
            explanations = _explain_stream(policy, args.subject, objects, client)
    except (ReferenceError, ClientError) as error:
        raise ConfigurationError(str(error)) from error
    answer = Answer(tuple(explanations), policy.warnings, tuple(notes))
    if args.output == "text":
        sys.stdout.write(render(answer))
    else:
        print_document(answer.document(), args.output)
    return 0


def _explain_stream(policy: MirrorPolicy, subject: str, objects: list[dict[str, Any]], client: Client | None) -> list[Explanation]:
    namespace, slash, rest = subject.partition("/")
    name, _, tag = rest.partition(":")
    if not slash or not namespace or not name or "/" in name:
        raise ConfigurationError(f"{subject!r} is neither an image (with its registry's host) nor NAMESPACE/STREAM[:TAG]")
    document = _stream_in_files(objects, namespace, name) if client is None else _stream_in_cluster(client, namespace, name)
    try:
        stream = imagestream_from(document)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"ImageStream {namespace}/{name}: {error}") from error
    found = explain_stream(policy, stream, tag or None)
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


def _stream_in_cluster(client: Client, namespace: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/apis/image.openshift.io/v1/namespaces/{namespace}/imagestreams/{name}")
    return found


def read_file(name: str) -> list[dict[str, Any]]:
    """The objects of a YAML file with one or more documents; Lists are taken apart.

    Raises ConfigurationError that names the file, the document and the field.
    """
    try:
        documents = list(yaml.safe_load_all(sys.stdin if name == "-" else Path(name).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{name}: not valid YAML: {error}") from error
    found = []
    for number, document in enumerate(documents, 1):
        where = f"{name}, document {number}"
        if document is None:
            continue
        if not isinstance(document, dict):
            raise ConfigurationError(f"{where}: expected an object, found {type(document).__name__}")
        items = document.get("items") if str(document.get("kind")).endswith("List") else [document]
        if not isinstance(items, list):
            raise ConfigurationError(f"{where}: items: expected a list")
        found += [_known(item, where) for item in items]
    return found


def _known(item: Any, where: str) -> dict[str, Any]:
    kind = item.get("kind") if isinstance(item, dict) else None
    if kind not in READABLE:
        raise ConfigurationError(f"{where}: kind: {kind!r} is none of {', '.join(READABLE)}")
    if not isinstance(item.get("metadata"), dict):
        raise ConfigurationError(f"{where}: metadata: expected a mapping in {kind}")
    found: dict[str, Any] = item
    return found
