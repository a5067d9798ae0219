"""What the platform does to one tag, as DESIGN and FACTS describe it: on a whole ImageStream, in place."""

from typing import Any

Object = dict[str, Any]
TAG = "v1"
MESSAGES = {
    "down": ("InternalError", "Internal error occurred: {}: dial tcp 10.0.0.1:443: connect: connection refused"),
    "missing": ("NotFound", 'dockerimage.image.openshift.io "{}" not found'),
    "corrupt": ("InternalError", "Internal error occurred: {}: content integrity error: the manifest does not match"),
}
"""How a source fails, by what it answers; any other answer is a digest."""
FORBIDDING = ("missing", "corrupt")


def new_stream(source: str) -> Object:
    """A stream as it has just been created."""
    tag = {"name": TAG, "from": {"kind": "DockerImage", "name": source}, "generation": 1}
    metadata = {"name": "app", "namespace": "ns", "uid": "u", "generation": 1}
    return {"metadata": metadata, "spec": {"tags": [tag]}, "status": {"tags": []}}


def spec_tag(stream: Object) -> Object:
    """The tag's spec."""
    tag: Object = stream["spec"]["tags"][0]
    return tag


def entry(stream: Object) -> Object:
    """The tag's status, made if there is none."""
    tags = stream["status"].setdefault("tags", [])
    if not tags:
        tags.append({"tag": TAG, "items": None})
    found: Object = tags[0]
    return found


def newest(stream: Object) -> Object | None:
    """The item that the tag points to."""
    tags = stream["status"].get("tags") or [{}]
    return (tags[0].get("items") or [None])[0]


def condition(stream: Object) -> Object | None:
    """The tag's ImportSuccess condition."""
    tags = stream["status"].get("tags") or [{}]
    return (tags[0].get("conditions") or [None])[0]


def pending(stream: Object) -> bool:
    """Whether the importer has something to do: the generation of the spec is above all that the status tells of."""
    seen = [found["generation"] for found in (newest(stream), condition(stream)) if found]
    return bool(spec_tag(stream)["generation"] > max(seen, default=0))


def change_spec(stream: Object, source: str) -> None:
    """A user's edit that makes the platform import again: of the source, or, with the same one, of its import mode."""
    stream["metadata"]["generation"] += 1
    tag = spec_tag(stream)
    tag["from"] = {"kind": "DockerImage", "name": source}
    tag["generation"] = stream["metadata"]["generation"]


def run_import(stream: Object, answer: str, stamp: str, *, nonce: str = "") -> bool:
    """Import the tag and write what came of it; whether anything was written. `nonce` makes the message another one."""
    found, tag = entry(stream), spec_tag(stream)
    source = tag["from"]["name"]
    generation = stream["metadata"]["generation"] + 1
    if answer in MESSAGES:
        reason, message = MESSAGES[answer]
        message = message.format(source) + nonce
        known = condition(stream)
        if known and (known["reason"], known["message"]) == (reason, message):
            return False  # the same failure is not written twice
        failed = {"type": "ImportSuccess", "status": "False", "reason": reason, "message": message, "generation": generation}
        found["conditions"] = [{**failed, "lastTransitionTime": stamp}]
        stream["metadata"]["generation"] = tag["generation"] = generation
        return True
    event = {"image": answer, "dockerImageReference": f"{source.rpartition(':')[0]}@{answer}", "generation": generation}
    known = newest(stream)
    same = known is not None and all(known[key] == event[key] for key in ("image", "dockerImageReference"))
    wrote = bool(found.pop("conditions", None))
    if known is None or not same or tag["generation"] > known["generation"]:
        stream["metadata"]["generation"] = tag["generation"] = generation
        shared = known is not None and event["image"] == known["image"]
        if known and shared and "created" in known:
            event["created"] = known["created"]
        found["items"] = [event, *(found["items"] or [])[1 if shared else 0 :]]
        wrote = True
    return wrote
