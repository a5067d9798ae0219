"""ImageStreams on their way into the store: generations, tracking tags, validation, as the API server's strategies have it."""

import copy
import re
from collections.abc import Callable
from typing import Any

from mirrorstream.rules.references import ReferenceError, parse_reference

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.errors import Cause
from e2e.testbed.simulator.images.allowed import AllowedRegistries
from e2e.testbed.simulator.images.limits import check_limits
from e2e.testbed.simulator.resources import Context, Resource, Strategy
from e2e.testbed.simulator.store import timestamp

Object = dict[str, Any]
GROUP = "image.openshift.io"
STREAMS = Resource(GROUP, "v1", "imagestreams", "ImageStream", has_status=True, short_names=("is",))
"""What streams are stored under; it equals the resource that is served, which has this module's strategy."""
INSECURE_ANNOTATION = "openshift.io/image.insecureRepository"
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")


def spec_tags(stream: Object) -> dict[str, Object]:
    """The tags of the spec by name."""
    return {tag["name"]: tag for tag in (stream.get("spec") or {}).get("tags") or []}


def status_tags(stream: Object) -> dict[str, Object]:
    """The tags of the status by name."""
    return {tag["tag"]: tag for tag in (stream.get("status") or {}).get("tags") or []}


def importable(tag: Object) -> bool:
    """Whether the import controller imports the tag."""
    return (tag.get("from") or {}).get("kind") == "DockerImage" and not tag.get("reference")


def canonical(stream: Object) -> None:
    """Give a stream the form that the API server answers: tags sorted by name, defaults set, nothing empty."""
    spec = stream.setdefault("spec", {}) or {}
    stream["spec"] = spec
    spec.setdefault("lookupPolicy", {"local": False})
    tags = []
    for tag in sorted(spec.get("tags") or [], key=lambda t: str(t.get("name"))):
        policy = {key: value for key, value in (tag.get("importPolicy") or {}).items() if value}
        policy.setdefault("importMode", "Legacy")
        made = {
            "name": tag.get("name"),
            "annotations": tag.get("annotations") or None,
            "from": tag.get("from"),
            "reference": tag.get("reference") or None,
            "generation": tag.get("generation"),
            "importPolicy": policy,
            "referencePolicy": {"type": (tag.get("referencePolicy") or {}).get("type") or "Source"},
        }
        tags.append({k: v for k, v in made.items() if v is not None or k in ("annotations", "generation")})
    spec["tags"] = tags
    if not tags:
        del spec["tags"]
    status = stream.setdefault("status", {}) or {}
    stream["status"] = status
    listed = []
    for entry in sorted(status.get("tags") or [], key=lambda t: str(t.get("tag"))):
        if entry.get("items") or entry.get("conditions"):
            kept = {"tag": entry["tag"], "items": entry.get("items") or None}
            if entry.get("conditions"):
                kept["conditions"] = entry["conditions"]
            listed.append(kept)
    status.pop("dockerImageRepository", None)
    status["tags"] = listed
    if not listed:
        del status["tags"]


def set_spec_tag(stream: Object, tag: Object) -> None:
    """Put a tag into the spec, in the place of one of its name."""
    others = [t for t in stream["spec"].get("tags") or [] if t["name"] != tag["name"]]
    stream["spec"]["tags"] = [*others, tag]


def status_tag(stream: Object, name: str) -> Object:
    """The status of a tag, made if there is none."""
    tags = stream.setdefault("status", {}).setdefault("tags", [])
    entry: Object | None = next((entry for entry in tags if entry["tag"] == name), None)
    if entry is None:
        entry = {"tag": name, "items": None}
        tags.append(entry)
    return entry


def add_event(stream: Object, name: str, event: Object) -> bool:
    """Add a tag event as the platform does: the same image or reference as the newest collapses into it."""
    entry = status_tag(stream, name)
    items = entry.get("items") or []
    if not items:
        entry["items"] = [dict(event)]
        return True
    newest = dict(items[0])
    same_reference = newest["dockerImageReference"] == event["dockerImageReference"]
    same_image = newest.get("image", "") == event.get("image", "")
    if same_reference and same_image and newest.get("generation") == event.get("generation"):
        return False
    entry.pop("conditions", None)
    if same_reference or same_image:
        newest.update(
            image=event.get("image", ""), dockerImageReference=event["dockerImageReference"], generation=event.get("generation")
        )
        entry["items"] = [newest, *items[1:]]
    else:
        entry["items"] = [dict(event), *items]
    return True


def followed(stream: Object, tag: Object) -> str | None:
    """The tag of the same stream that a tracking tag follows."""
    source = tag.get("from") or {}
    metadata = stream["metadata"]
    if source.get("kind") != "ImageStreamTag" or source.get("namespace") not in (None, "", metadata.get("namespace")):
        return None
    name, colon, followed_tag = str(source.get("name", "")).rpartition(":")
    return None if colon and name != metadata["name"] else followed_tag


def update_tracking_tags(stream: Object, old: Object | None) -> None:
    """Move the tags that follow tags whose newest item has changed."""
    before = status_tags(old) if old else {}
    for name, entry in list(status_tags(stream).items()):
        items = entry.get("items") or []
        if not items or (before.get(name, {}).get("items") or [None])[0] == items[0]:
            continue
        for tag in stream["spec"].get("tags") or []:
            if followed(stream, tag) == name:
                add_event(stream, tag["name"], items[0])


def _changed(old: Object, new: Object, namespace: str) -> bool:
    source, before = new.get("from") or {}, old.get("from") or {}
    if not source.get("kind") and not source.get("name"):
        return False
    if (before.get("namespace") or namespace) != (source.get("namespace") or namespace):
        return True
    if before.get("name") != source.get("name") or bool(old.get("reference")) != bool(new.get("reference")):
        return True
    mode = (old.get("importPolicy") or {}).get("importMode") or "Legacy"
    if mode != ((new.get("importPolicy") or {}).get("importMode") or "Legacy"):
        return True
    generations = old.get("generation"), new.get("generation")
    return None not in generations and generations[0] != generations[1] and generations[1] == 0


class StreamStrategy(Strategy):
    """The rules of ImageStreams."""

    unconditional_update = False

    def __init__(self, registry_host: Callable[[], str], allowed: AllowedRegistries) -> None:
        """`registry_host` is where the internal registry is at this moment; empty without one."""
        self._registry_host = registry_host
        self._allowed = allowed

    def decorate(self, item: Object) -> Object:
        """Show where the internal registry has the stream now; without a registry what the spec names.

        Nothing of it is stored, so no resourceVersion changes when the registry comes or goes.
        """
        metadata = item["metadata"]
        repository = (item.get("spec") or {}).get("dockerImageRepository", "")
        if host := self._registry_host():
            repository = f"{host}/{metadata.get('namespace', '')}/{metadata['name']}"
        return {**item, "status": {**(item.get("status") or {}), "dockerImageRepository": repository}}

    def prepare_create(self, item: Object, context: Context) -> None:
        """A new stream by a user: its status is not theirs."""
        item.pop("status", None)
        self._created(item, context)

    def prepare_internal_create(self, item: Object, context: Context) -> None:
        """A new stream by an import, with its status."""
        self._created(item, context)

    def _created(self, item: Object, context: Context) -> None:
        canonical(item)
        item["metadata"]["generation"] = 1
        for tag in item["spec"].get("tags") or []:
            tag["generation"] = 1
        self._validate(item, None, context)
        canonical(item)

    def prepare_update(self, new: Object, old: Object, context: Context) -> None:
        """A spec write by a user."""
        new["status"] = copy.deepcopy(old.get("status") or {})
        self._updated(new, old, context, follow=False)

    def prepare_internal_update(self, new: Object, old: Object, context: Context) -> None:
        """A write of spec and status together, as imports make it."""
        self._updated(new, old, context, follow=True)

    def _updated(self, new: Object, old: Object, context: Context, *, follow: bool) -> None:
        """Complete and check a write of the spec.

        `follow`: tags that follow a changed one move. They do not on a user's write: there the platform compares the status with
        itself.
        """
        canonical(new)
        generation = old["metadata"]["generation"]
        new["metadata"]["generation"] = generation
        before = spec_tags(old)
        for tag in new["spec"].get("tags") or []:
            # Users cannot change a tag's generation, except to 0, which asks for a new import.
            if tag.get("generation") != 0 and tag["name"] in before:
                tag["generation"] = before[tag["name"]]["generation"]
        if new["spec"] != old["spec"]:
            new["metadata"]["generation"] = generation + 1
        for tag in new["spec"].get("tags") or []:
            known = before.get(tag["name"])
            if known is None or _changed(known, tag, context.namespace) or not tag.get("generation"):
                tag["generation"] = new["metadata"]["generation"]
        self._validate(new, old, context, follow=follow)
        canonical(new)

    def prepare_status_update(self, new: Object, old: Object, context: Context) -> None:
        """A write to the status; annotations, labels and the lookup policy leak through, as on the platform."""
        spec = {**old["spec"], "lookupPolicy": (new.get("spec") or {}).get("lookupPolicy") or old["spec"]["lookupPolicy"]}
        new["spec"] = spec
        new["metadata"]["generation"] = old["metadata"]["generation"]
        status = new.get("status") or {}
        for entry in status.get("tags") or []:
            self._fill_generation(entry, new, old)
        new["status"] = status
        causes = self._references(new)
        if limit := check_limits(context, old, new):
            causes.insert(0, errors.forbidden_value("imageStream", limit))
        if causes:
            raise errors.invalid(GROUP, "ImageStream", new["metadata"]["name"], causes)
        canonical(new)

    def _fill_generation(self, entry: Object, new: Object, old: Object) -> None:
        items = entry.get("items") or []
        if not items or items[0].get("generation"):
            return
        known = (status_tags(old).get(entry["tag"], {}).get("items") or [None])[0]
        tag = spec_tags(new).get(entry["tag"])
        moved = known is not None and (known.get("image"), known["dockerImageReference"]) != (
            items[0].get("image"),
            items[0]["dockerImageReference"],
        )
        generation = tag["generation"] if moved and tag and tag.get("generation") else new["metadata"]["generation"]
        items[0]["generation"] = generation

    # Validation.

    def _validate(self, item: Object, old: Object | None, context: Context, *, follow: bool = True) -> None:
        name = item["metadata"]["name"]
        causes: list[Cause] = []
        changed = self._tags_changed(item, old, context, follow=follow)
        if changed:
            inner = errors.invalid("", "imagestreams", name, changed).message
            causes.append(Cause("InternalError", "[]", f"Internal error: {inner}"))
        elif limit := check_limits(context, old, item):
            causes.append(Cause("InternalError", "[]", f"Internal error: {limit}"))
        if not _NAME.fullmatch(name):
            causes.append(errors.invalid_value("metadata.name", f'"{name}"', f'must match "{_NAME.pattern}"'))
        repository = item["spec"].get("dockerImageRepository")
        insecure = self._insecure(item)
        if repository:
            causes += self._reference(repository, "spec.dockerImageRepository", insecure)
        for tag in item["spec"].get("tags") or []:
            causes += self._tag(tag, insecure)
        causes += self._references(item)
        if causes:
            raise errors.invalid(GROUP, "ImageStream", name, causes)

    @staticmethod
    def _insecure(item: Object) -> bool:
        return (item["metadata"].get("annotations") or {}).get(INSECURE_ANNOTATION) == "true"

    def _tag(self, tag: Object, insecure: bool) -> list[Cause]:
        path = f"spec.tags[{tag['name']}]"
        causes: list[Cause] = []
        source = tag.get("from")
        policy = tag.get("importPolicy") or {}
        if source is not None:
            if not source.get("name"):
                causes.append(errors.required(f"{path}.from.name", ""))
            kind = source.get("kind")
            if kind == "DockerImage" and source.get("name"):
                causes += self._reference(source["name"], f"{path}.from.name", insecure or bool(policy.get("insecure")))
            elif kind in ("ImageStreamTag", "ImageStreamImage") and policy.get("scheduled"):
                why = "only tags pointing to Docker repositories may be scheduled for background import"
                causes.append(errors.invalid_value(f"{path}.importPolicy.scheduled", "true", why))
            elif kind not in ("DockerImage", "ImageStreamTag", "ImageStreamImage"):
                why = "valid values are 'DockerImage', 'ImageStreamImage', 'ImageStreamTag'"
                causes.append(errors.required(f"{path}.from.kind", why))
        reference_type = tag["referencePolicy"]["type"]
        if reference_type not in ("Source", "Local"):
            field = f"{path}.referencePolicy.type"
            causes.append(errors.invalid_value(field, f'"{reference_type}"', 'valid values are "Source", "Local"'))
        return causes

    def _reference(self, reference: str, field: str, insecure: bool) -> list[Cause]:
        try:
            parse_reference(reference)
        except ReferenceError as error:
            return [errors.invalid_value(field, f'"{reference}"', str(error).rpartition(": ")[2])]
        refused = self._allowed.refusal(reference, insecure)
        return [errors.forbidden_value(field, refused)] if refused else []

    def _references(self, item: Object) -> list[Cause]:
        """Every reference of the histories, checked."""
        causes: list[Cause] = []
        tags = spec_tags(item)
        for entry in (item.get("status") or {}).get("tags") or []:
            policy = tags.get(entry["tag"], {}).get("importPolicy") or {}
            insecure = self._insecure(item) or bool(policy.get("insecure"))
            for index, event in enumerate(entry.get("items") or []):
                field = f"status.tags[{entry['tag']}].items[{index}].dockerImageReference"
                causes += self._reference(event.get("dockerImageReference") or "", field, insecure)
        return causes

    # What a changed spec does to the status.

    def _tags_changed(self, item: Object, old: Object | None, context: Context, *, follow: bool) -> list[Cause]:
        causes: list[Cause] = []
        before = spec_tags(old) if old else {}
        for tag in item["spec"].get("tags") or []:
            known = before.get(tag["name"])
            if tag.get("from") is None or (known and not _changed(known, tag, context.namespace)):
                continue
            causes += self._resolve(item, tag, context)
        if follow:
            update_tracking_tags(item, old)
        return causes

    def _resolve(self, item: Object, tag: Object, context: Context) -> list[Cause]:
        source = tag["from"]
        field = f"spec.tags[{tag['name']}].from.name"
        name = str(source.get("name", ""))
        if source.get("kind") == "DockerImage" and name:
            if tag.get("reference"):
                event = {"created": timestamp(), "dockerImageReference": name, "image": "", "generation": tag["generation"]}
                add_event(item, tag["name"], event)
            return []
        if source.get("kind") not in ("ImageStreamTag", "ImageStreamImage"):
            why = "must be of the form <tag>, <repo>:<tag>, <id>, or <repo>@<id>"
            return [errors.invalid_value(field, f'"{name}"', why)]
        separator = ":" if source["kind"] == "ImageStreamTag" else "@"
        stream_name, found, wanted = name.partition(separator)
        if not found:
            stream_name, wanted = item["metadata"]["name"], name
        namespace = source.get("namespace") or context.namespace
        stream = item
        if (namespace, stream_name) != (context.namespace, item["metadata"]["name"]):
            try:
                stream = context.store.get(STREAMS, namespace, stream_name)
            except errors.StatusError:
                return [Cause("FieldValueNotFound", field, f'Not found: "{name}"')]
        newest = _find_event(stream, source["kind"], wanted)
        if newest is not None:
            event = {**newest, "generation": tag["generation"]}
            if stream is item:
                # The platform changes the followed tag's own item, too: it copies a pointer. Recorded, so simulated.
                newest["generation"] = tag["generation"]
            add_event(item, tag["name"], event)
        return []


def _find_event(stream: Object, kind: str, wanted: str) -> Object | None:
    tags = status_tags(stream)
    if kind == "ImageStreamTag":
        items = tags.get(wanted, {}).get("items") or []
        return items[0] if items else None
    for entry in tags.values():
        for event in entry.get("items") or []:
            if str(event.get("image", "")).startswith((wanted, f"sha256:{wanted}")):
                found: Object = event
                return found
    return None
