"""What a stream says of its tags: the few fields that tests of the faults look at."""

from typing import Any

from e2e.testbed.streams import without_generations

Object = dict[str, Any]
Key = tuple[str, str]
Identity = tuple[str, str]
"""A stream's uid and one of its resourceVersions."""
CHECK = "openshift.io/image.dockerRepositoryCheck"
OPTED_OUT = "mirrorstream.github.io/import"


def key_of(stream: Object) -> Key:
    """Namespace and name."""
    return stream["metadata"]["namespace"], stream["metadata"]["name"]


def identity(stream: Object) -> Identity:
    """One state of one stream."""
    return stream["metadata"]["uid"], stream["metadata"]["resourceVersion"]


def spec_tags(stream: Object) -> dict[str, Object]:
    """The tags of the spec by name."""
    return {tag["name"]: tag for tag in stream["spec"].get("tags") or []}


def statuses(stream: Object) -> dict[str, Object]:
    """The tags of the status by name."""
    return {entry["tag"]: entry for entry in (stream.get("status") or {}).get("tags") or []}


def items_of(entry: Object) -> list[Object]:
    """A tag's history."""
    return entry.get("items") or []


def is_importable(tag: Object) -> bool:
    """Whether the platform imports it."""
    return bool((tag.get("from") or {}).get("kind") == "DockerImage")


def condition_of(entry: Object) -> Object | None:
    """ImportSuccess=False."""
    return next((c for c in entry.get("conditions") or [] if c["type"] == "ImportSuccess" and c["status"] == "False"), None)


def is_pending(tag: Object, entry: Object) -> bool:
    """Whether the platform has still to import the tag: its own test."""
    seen = [found.get("generation") or 0 for found in (*items_of(entry)[:1], *(entry.get("conditions") or []))]
    return bool(tag["generation"] > max(seen, default=0))


def opted_out(stream: Object) -> bool:
    """Whether mirrorstream is to leave it alone."""
    return (stream["metadata"].get("annotations") or {}).get(OPTED_OUT) == "disabled"


def unwell(stream: Object) -> dict[str, tuple[int, int]]:
    """The importable tags that wait for an import or have failed, each with its generation and its condition's."""
    found, entries = {}, statuses(stream)
    for name, tag in spec_tags(stream).items():
        entry = entries.get(name, {})
        condition = condition_of(entry)
        if is_importable(tag) and (condition or is_pending(tag, entry)):
            found[name] = (tag["generation"], (condition or {}).get("generation") or 0)
    return found


def users_part(stream: Object) -> Object:
    """What belongs to users: the spec but for generations, labels, annotations but for the platform's one."""
    metadata = stream["metadata"]
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != CHECK}
    return {"spec": without_generations(stream["spec"]), "labels": metadata.get("labels") or {}, "annotations": annotations}
