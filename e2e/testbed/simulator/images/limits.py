"""LimitRanges on image streams: how many images and tags a stream may have."""

from typing import Any

from e2e.testbed.simulator.resources import Context, Resource

Object = dict[str, Any]
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange")
STREAM_LIMIT = "openshift.io/ImageStream"


def check_limits(context: Context, old: Object | None, new: Object) -> str | None:
    """Why a stream is over a limit of its namespace and grows further, None if it is not."""
    for limit_range in context.store.list(LIMIT_RANGES, context.namespace)[1]:
        for limit in (limit_range.get("spec") or {}).get("limits") or []:
            if limit.get("type") != STREAM_LIMIT:
                continue
            for resource, count in (("openshift.io/images", _images), ("openshift.io/image-tags", _tags)):
                maximum = (limit.get("max") or {}).get(resource)
                if maximum is None:
                    continue
                used = count(new)
                if used > int(maximum) and used > (count(old) if old else 0):
                    return (
                        f"exceeded the maximum usage per {STREAM_LIMIT}: requested usage of {resource} {used}, "
                        f"maximum limit of {resource} {maximum}"
                    )
    return None


def _images(stream: Object) -> int:
    tags = (stream.get("status") or {}).get("tags") or []
    return len({event.get("image") or event["dockerImageReference"] for tag in tags for event in tag.get("items") or []})


def _tags(stream: Object) -> int:
    return len((stream.get("spec") or {}).get("tags") or [])
