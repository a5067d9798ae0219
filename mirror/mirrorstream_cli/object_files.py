"""Objects from files, as oc, kubectl, oc-mirror and must-gather write them."""

import codecs
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.text.sanitize import listed, one_line, shortened
from mirrorstream.text.yaml_loader import YamlError, documents

Object = dict[str, Any]

READABLE = {
    "ImageContentSourcePolicy": "operator.openshift.io",
    "ImageDigestMirrorSet": "config.openshift.io",
    "ImageTagMirrorSet": "config.openshift.io",
    "Image": "config.openshift.io",
    "ClusterImagePolicy": "config.openshift.io",
    "ImagePolicy": "config.openshift.io",
    "ImageStream": "image.openshift.io",
}
"""The kinds that are read, with their API groups; others have kinds of the same names."""
SUFFIXES = (".yaml", ".yml", ".json")
"""Of the files in a folder that are read, as kubectl does."""
TEMPLATE = "Template"
NAMED_KINDS, KIND_LENGTH = 10, 63
"""How many kinds the note names, and how much of each."""


@dataclass(slots=True)
class FileObjects:
    """The objects that files have, each once, and what was left out."""

    objects: list[Object] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_files(names: Iterable[str]) -> FileObjects:
    """The objects of YAML and JSON files, of the files in folders, and of standard input (`-`).

    Lists are taken apart, and other kinds left out. Of objects with the same name the last one counts, as for `kubectl apply`.
    Raises ConfigurationError that names the file, the document and the field.
    """
    found: dict[tuple[object, ...], Object] = {}
    repeated: list[str] = []
    others: dict[str, str] = {}
    for file in (file for name in names for file in _files(name)):
        for item, where in _objects(file):
            kind, metadata = item["kind"], item.get("metadata")
            if not _has_group(item, READABLE.get(kind)):
                others[kind] = file
                continue
            if not isinstance(metadata, dict):
                raise ConfigurationError(f"{where}: metadata: expected a mapping in {kind}")
            named = tuple(str(metadata[part]) for part in ("namespace", "name") if metadata.get(part))
            key = (kind, *named) if metadata.get("name") else (id(item),)
            if found.pop(key, item) != item:
                repeated.append(f"{kind} {'/'.join(named)} is there more than once, and not the same: the last one counts")
            found[key] = item
    return FileObjects(list(found.values()), [*repeated, *_left_out(others)])


def _has_group(item: Object, group: str | None) -> bool:
    """Whether an object's API group is `group`, or none: OpenShift's kinds of old had none, and files have them still."""
    version = item.get("apiVersion")
    return group is not None and (version.rpartition("/")[0] if isinstance(version, str) else "") in ("", group)


def _left_out(others: Mapping[str, str]) -> Iterator[str]:
    """A note on the kinds that are not read; `others` has a file of each."""
    if not others:
        return
    kinds = [shortened(one_line(kind), KIND_LENGTH) for kind in sorted(others)]
    hint = f"; `oc process --local -o yaml -f {others[TEMPLATE]}` prints the objects of a Template" if TEMPLATE in others else ""
    yield f"other kinds are left out: {listed(kinds, NAMED_KINDS)}{hint}"


def _objects(file: str) -> Iterator[tuple[Object, str]]:
    """The objects of a file, each with the document that it is in."""
    try:
        found = list(documents(_text(file)))
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}") from error
    except YamlError as error:
        raise ConfigurationError(f"{file}: {error}") from error
    for number, document in enumerate(found, 1):
        where = f"{file}, document {number}"
        if document is not None:
            yield from ((item, where) for item in _items(document, where))


def _files(name: str) -> list[str]:
    if name == "-":
        return [name]
    try:
        with os.scandir(name) as entries:
            return sorted(entry.path for entry in entries if entry.name.endswith(SUFFIXES) and entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return [name]


def _text(file: str) -> str:
    if file == "-":
        content = sys.stdin.buffer.read()
    else:
        with open(file, "rb") as opened:  # noqa: PTH123  pathlib takes a tenth of a bare interpreter's start
            content = opened.read()
    # What PowerShell's `>` writes.
    return content.decode("utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8")


def _items(document: Any, where: str) -> Iterator[Object]:
    """The objects of a document: itself, or the items of a list, which may be without a kind of their own (`oc get --raw`)."""
    pending = [document]
    while pending:
        item = pending.pop()
        if not isinstance(item, dict):
            raise ConfigurationError(f"{where}: expected an object, found {type(item).__name__}")
        kind = item.get("kind")
        if not isinstance(kind, str) or not kind:
            raise ConfigurationError(f"{where}: kind: expected the kind of an object, found {shortened(repr(kind), 100)}")
        if "items" not in item or not kind.endswith("List"):
            yield item
            continue
        listed = [] if item["items"] is None else item["items"]
        if not isinstance(listed, list):
            raise ConfigurationError(f"{where}: items: expected a list")
        of_list = {"apiVersion": item.get("apiVersion"), "kind": kind.removesuffix("List")}
        pending += [_completed(each, of_list) for each in reversed(listed)]


def _completed(item: Any, of_list: Object) -> Any:
    """An item of a list, with what it does not say itself."""
    if not isinstance(item, dict):
        return item
    return {**item, **{name: value for name, value in of_list.items() if value and not item.get(name)}}
