"""Writing what was imported into a stream's status, and nothing else.

A status PUT also stores annotations and `spec.lookupPolicy` from its body, so the body is always a stream that was read just
before, changed only where a tag's history and its failure are. Everything that the plan took for granted is checked again on it.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mirrorstream.imagestream.model import IMPORT_SUCCESS, ImageStream, followers, imagestream_from, is_pending, listed_tags
from mirrorstream.imagestream.recorded import is_ours
from mirrorstream.kube.client import ApiError, ApiUnreachable, Client

from mirrorstream_controller.importer import API
from mirrorstream_controller.results import TagResult

CONFLICT_RETRIES = 5


class WriteOutcome(StrEnum):
    """What became of a status write."""

    WRITTEN = "written"
    NOTHING_LEFT = "nothing-left"
    CONFLICT = "conflict"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Applied:
    """The results that are in the changed stream, and why others are not."""

    recorded: tuple[TagResult, ...]
    skipped: tuple[tuple[TagResult, str], ...]


def apply_results(stream: dict[str, Any], results: Sequence[TagResult]) -> Applied:
    """Change `stream`, a whole ImageStream as just read, in place so that it says `results`.

    Only `status.tags` changes: an item in front (or, for the image that is there already, only a higher generation and, if
    mirrorstream recorded it, the new reference), no ImportSuccess=False, and tags that follow a recorded one follow it.
    """
    projection = imagestream_from(stream)
    recorded: list[TagResult] = []
    skipped: list[tuple[TagResult, str]] = []
    for result in results:
        if changed := _changed_meanwhile(projection, result):
            skipped.append((result, changed))
            continue
        entry = _entry(stream, result.tag)
        event = {
            "created": result.created,
            "dockerImageReference": result.reference,
            "image": result.digest,
            "generation": result.plan.generation,
        }
        moved = _add_event(entry, event, result)
        _drop_failure(entry)
        if moved:
            # Those that follow it, and those that follow them: a status write does not move them on the platform.
            for follower in followers(projection, result.tag):
                _add_event(_entry(stream, follower), dict(event), result)
        recorded.append(result)
    return Applied(tuple(recorded), tuple(skipped))


def _changed_meanwhile(stream: ImageStream, result: TagResult) -> str:
    """Why `result` no longer belongs into `stream`; empty if it does."""
    plan = result.plan
    if stream.opted_out:
        return "the stream opted out during the import"
    if plan.tag != result.tag:
        if stream.spec.docker_image_repository != plan.source or stream.metadata.generation != plan.generation:
            return "the repository was changed during the import"
        if any(tag.name == result.tag for tag in stream.spec_tags):
            return "the spec has a tag of its own of that name"
        return "the platform imported the repository in the meantime" if listed_tags(stream) else ""
    tag = next((tag for tag in stream.spec_tags if tag.name == result.tag), None)
    if tag is None or not tag.importable or tag.from_ is None or tag.from_.name != plan.source:
        return "the tag was changed during the import"
    if (tag.generation if tag.generation is not None else stream.metadata.generation) != plan.generation:
        return "the tag's generation rose during the import"
    status = stream.status_tag(result.tag)
    newest = status.newest if status else None
    if (newest.image if newest else "") != plan.newest_image:
        return "another image was imported in the meantime"
    if not is_pending(tag, status) and not (status and status.failure):
        return "the platform imported the tag in the meantime"
    return ""


def _entry(stream: dict[str, Any], tag: str) -> dict[str, Any]:
    """The tag's entry in the status, made if there is none."""
    status = stream.setdefault("status", {})
    tags = status.get("tags")
    if tags is None:
        tags = status["tags"] = []
    for entry in tags:
        if entry.get("tag") == tag:
            found: dict[str, Any] = entry
            return found
    made: dict[str, Any] = {"tag": tag, "items": None}
    tags.append(made)
    return made


def _add_event(entry: dict[str, Any], event: dict[str, Any], result: TagResult) -> bool:
    """Put `event` in front of the tag's history; whether the tag points elsewhere now.

    The reference of an item that the platform imported never changes. Where that item is of the tag's present source, it stays in
    front, as if the platform had imported it again.
    """
    items = entry.get("items") or []
    newest = items[0] if items else {}
    if newest.get("image") == event["image"]:
        ours, same = (
            is_ours(newest.get("created"), result.ours),
            newest.get("dockerImageReference") == event["dockerImageReference"],
        )
        if ours or same or result.plan.settled:
            newest["generation"] = max(int(newest.get("generation") or 0), event["generation"])
            if same or not ours:
                return False
            # As the platform does: were it put in front, the platform's next import would make two equal items of the two.
            newest["dockerImageReference"] = event["dockerImageReference"]
            return True
    entry["items"] = [event, *items]
    return True


def _drop_failure(entry: dict[str, Any]) -> None:
    conditions = entry.get("conditions") or []
    kept = [c for c in conditions if not (c.get("type") == IMPORT_SUCCESS and c.get("status") == "False")]
    if kept:
        entry["conditions"] = kept
    else:
        entry.pop("conditions", None)


class StatusWriter:
    """Reads, changes and writes one stream's status."""

    def __init__(
        self,
        client: Client,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._sleep = sleep

    def record(self, namespace: str, name: str, uid: str, results: Sequence[TagResult]) -> tuple[WriteOutcome, Applied]:
        """Record `results` in the stream `namespace`/`name`, if it still has that `uid`: one GET and one status PUT.

        A conflict starts over from a fresh GET, where everything is checked again; so does a lost answer, after which the GET tells
        whether the write took effect. Raises ClientError, ApiError above all when the write is refused.
        """
        path = f"{API}/namespaces/{namespace}/imagestreams/{name}"
        applied = Applied((), ())
        for attempt in range(CONFLICT_RETRIES):
            try:
                stream = self._client.get(path)
            except ApiError as error:
                if error.status == 404:
                    return WriteOutcome.GONE, Applied((), ())
                raise
            if stream["metadata"].get("uid") != uid:
                return WriteOutcome.GONE, Applied((), ())
            before = applied
            applied = apply_results(stream, results)
            if not applied.recorded:
                # After a lost answer: what we wanted is there, because it was us who wrote it.
                return (WriteOutcome.WRITTEN, before) if before.recorded and attempt else (WriteOutcome.NOTHING_LEFT, applied)
            try:
                self._client.request("PUT", f"{path}/status", body=stream)
            except ApiError as error:
                if error.status != 409:
                    raise
                applied = Applied((), ())
            except ApiUnreachable:
                if attempt == CONFLICT_RETRIES - 1:
                    raise
            else:
                return WriteOutcome.WRITTEN, applied
            self._sleep(random.uniform(0, 0.05) * (attempt + 1))  # noqa: S311  spreads requests, guards nothing
        return WriteOutcome.CONFLICT, Applied((), ())
