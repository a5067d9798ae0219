"""LimitRanges on image streams: how many images and sources of tags a stream may have."""

from collections.abc import Iterator
from typing import Any

from mirrorstream.rules.references import parse_or_none

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.resources import Context, Resource

Object = dict[str, Any]
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange")
STREAM_LIMIT = "openshift.io/ImageStream"
EXCEEDED = "exceeds the maximum limit"
"""In each refusal; by it the import knows that a limit is the reason."""


def check_limits(context: Context, old: Object | None, new: Object) -> str | None:
    """Why a stream is over a limit of its namespace, None if it is not.

    A stream that is over a limit may be changed as long as it gets no image and no source that it had not before. One that gets
    either is checked against all limits, also those that the change has nothing to do with.
    """
    if old is not None and not (_images(new) - _images(old) or _sources(new) - _sources(old)):
        return None
    refused = []
    for resource, maximum in _limits(context).items():
        used = len(_images(new) if resource == "openshift.io/images" else _sources(new))
        if used > maximum:
            refused.append(f"requested usage of {resource} {EXCEEDED} per {STREAM_LIMIT} ({used} > {maximum})")
    if not refused:
        return None
    why = refused[0] if len(refused) == 1 else f"[{', '.join(refused)}]"
    return errors.forbidden("image.openshift.io", "ImageStream", new["metadata"]["name"], why).message


def _limits(context: Context) -> dict[str, int]:
    """The smallest limit on each of the two."""
    found: dict[str, int] = {}
    for limit_range in context.store.list(LIMIT_RANGES, context.namespace)[1]:
        for limit in (limit_range.get("spec") or {}).get("limits") or []:
            if limit.get("type") != STREAM_LIMIT:
                continue
            for resource in ("openshift.io/images", "openshift.io/image-tags"):
                if (maximum := (limit.get("max") or {}).get(resource)) is not None:
                    found[resource] = min(int(maximum), found.get(resource, int(maximum)))
    return found


def _images(stream: Object) -> set[str]:
    """The images of the histories; an item without one does not count."""
    tags = (stream.get("status") or {}).get("tags") or []
    return {event["image"] for tag in tags for event in tag.get("items") or [] if event.get("image")}


def _sources(stream: Object) -> set[str]:
    """Where the spec's tags come from: what `openshift.io/image-tags` counts, the same source of several tags once."""
    return set(_each_source(stream))


def _each_source(stream: Object) -> Iterator[str]:
    for tag in (stream.get("spec") or {}).get("tags") or []:
        source = tag.get("from") or {}
        kind, name = source.get("kind"), str(source.get("name") or "")
        if kind == "DockerImage":
            if reference := parse_or_none(name):
                yield str(reference)
        elif {"ImageStreamTag": ":", "ImageStreamImage": "@"}.get(kind or "", " ") in name:
            yield f"{source.get('namespace') or stream['metadata'].get('namespace')}/{name}"
