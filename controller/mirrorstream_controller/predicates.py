"""What a change of a stream means: whether there is something to do, and whether somebody waits for it; pure."""

from mirrorstream.imagestream.model import ImageStream, failing_tags, is_pending, listed_tags


def is_user_request(old: ImageStream, new: ImageStream) -> bool:
    """Whether a change of a stream is, or comes of, a user's asking for something just now.

    That is a `retry`, or an import of a tag that was well: `oc import-image`, say, which failed. What fails for the first time, or
    by the platform's schedule, comes in masses when a registry is lost, and nobody waits for it.
    """
    if old.annotations.retry != new.annotations.retry:
        return True
    before, after = old.status_by_tag(), new.status_by_tag()
    for tag in new.spec_tags:
        status, earlier = after.get(tag.name), before.get(tag.name)
        if not tag.importable or tag.import_policy.scheduled or status is None or not status.items or status.failure is None:
            continue
        if earlier is not None and earlier.items and earlier.failure is None and not is_pending(tag, status):
            return True
    return False


def count_failing(stream: ImageStream | None) -> int:
    """How many tags of a stream fail."""
    return sum(1 for _ in failing_tags(stream)) if stream else 0


def needs_reconcile(stream: ImageStream | None) -> bool:
    """Whether there may be something to do, or to tell, about a stream."""
    if stream is None:
        return False
    statuses = stream.status_by_tag()
    for tag in stream.spec_tags:
        if tag.importable:
            status = statuses.get(tag.name)
            if is_pending(tag, status) or (status and status.failure):
                return True
    return bool(stream.spec.docker_image_repository and not listed_tags(stream))
