"""Which items of tags mirrorstream recorded, as the annotation of their Image has it.

An Image belongs to every tag that has its digest: mirrorstream may have recorded the item of one tag, and the platform that of
another. So the annotation has the `created` of each item that mirrorstream recorded, with the host of the mirror that served it,
as a JSON object. It names no namespace: everyone who has the digest in a stream may read the Image.
"""

import json
from collections.abc import Collection, Mapping

from mirrorstream.text.sanitize import one_line, shortened

RECORDED_ANNOTATION = "mirrorstream.github.io/recorded"
RECORDED_ITEMS = 1024
"""How many items an annotation has, the newest: about 48 KiB, of the 256 KiB that the API takes.

Tags that are healed in the same second share one. A management cluster has the same catalogs in the namespace of each hosted one.
"""
RECORDED_LENGTH = 128 * 1024
"""How long its text may be: hosts of 255 letters would fill what the API takes of all annotations together."""
HOST_LENGTH = 255


def recorded_items(annotation: str) -> Mapping[str, str]:
    """The mirror's host by the `created` of each item; empty if the text is no such annotation. Never raises."""
    try:
        found = json.loads(annotation)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    items = {created: host for created, host in found.items() if isinstance(host, str)}
    hosts = {host: shortened(one_line(host), HOST_LENGTH) for host in set(items.values())}
    return {created: hosts[host] for created, host in items.items()}


def is_ours(created: str | None, recorded: Collection[str] | None) -> bool:
    """Whether an item of a tag, made at `created`, counts as one that mirrorstream recorded: it may be replaced at once.

    `recorded` has the `created` of the items with its image that mirrorstream recorded; None if there is no such Image any more, so
    that there is nothing to keep.
    """
    return recorded is None or created in recorded


def with_item(items: Mapping[str, str], created: str, host: str) -> str:
    """The annotation's text once it has one more item; the oldest are left out where they are too many, or too long."""
    newest = sorted({**items, created: host}.items())[-RECORDED_ITEMS:]
    while len(text := json.dumps(dict(newest), separators=(",", ":"))) > RECORDED_LENGTH:
        del newest[: len(newest) // 10]
    return text
