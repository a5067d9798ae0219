"""How users write streams, and what each of their writes made of one."""

from collections.abc import Callable

from mirrorstream.kube.client import ApiError

from e2e.testbed.cluster import Namespace
from e2e.testbed.faults.history import History
from e2e.testbed.faults.streams import Object, identity, is_importable, spec_tags
from e2e.testbed.streams import IMAGE_API

ACROSS = "across"
"""The tag that follows another stream's, which has to be there when that is written."""
TRIES = 30
"""So often somebody writes again whose write met another one."""


class Users:
    """They write at any time, also what is gone by then, and tell the history of each write that there was."""

    def __init__(self, history: History) -> None:
        self._history = history

    def create(self, ns: Namespace, name: str, tags: list[Object]) -> None:
        """Create a stream, unless it is there."""
        body = {"metadata": {"name": name}, "spec": {"tags": tags}}
        self._answered(lambda: ns.client.request("POST", f"{IMAGE_API}/namespaces/{ns.name}/imagestreams", body=body))

    def remove(self, ns: Namespace, name: str) -> None:
        """Delete a stream."""
        _tolerant(lambda: ns.client.request("DELETE", _path(ns, name)))

    def write(self, ns: Namespace, name: str, change: Callable[[Object], None], *, status: bool = False) -> None:
        """Read a stream, change it and write it, until nobody else wrote it in between."""
        path = _path(ns, name)

        def attempt() -> Object:
            stream = ns.client.get(path)
            change(stream)
            answer: Object = ns.client.request("PUT", f"{path}/status" if status else path, body=stream)
            return answer

        self._answered(attempt)

    def import_image(self, ns: Namespace, name: str, tag_name: str, new: Object | None = None) -> None:
        """`oc import-image`: from what the spec says, or as `new` says; a stream that is not there is made by it."""

        def attempt() -> Object:
            tag = new or spec_tags(ns.get(name)).get(tag_name)
            if tag is None or not is_importable(tag):
                return {}
            image = {"from": tag["from"], "to": {"name": tag_name}}
            image |= {policy: tag[policy] for policy in ("importPolicy", "referencePolicy")}
            body = {"metadata": {"name": name}, "spec": {"import": True, "images": [image]}}
            path = f"{IMAGE_API}/namespaces/{ns.name}/imagestreamimports"
            answer: Object = ns.client.request("POST", path, body=body, timeout=90)["status"]["import"]
            return answer

        self._answered(attempt)

    def delete_tag(self, ns: Namespace, name: str, tag_name: str) -> None:
        """`oc tag -d`."""
        path = f"{IMAGE_API}/namespaces/{ns.name}/imagestreamtags/{name}:{tag_name}"
        self._history.deleted.add((ns.name, name, tag_name))
        _tolerant(lambda: ns.client.request("DELETE", path))

    def _answered(self, attempt: Callable[[], Object]) -> None:
        if answer := _tolerant(attempt):
            self._history.users.add(identity(answer))


def _path(ns: Namespace, name: str) -> str:
    return f"{IMAGE_API}/namespaces/{ns.name}/imagestreams/{name}"


def _tolerant(attempt: Callable[[], Object | None]) -> Object | None:
    """Try again after a conflict; None if what it is about is gone, or there already."""
    for _ in range(TRIES):
        try:
            return attempt()
        except ApiError as error:
            followed_is_gone = error.status == 422 and f"[{ACROSS}]" in error.message
            if error.status not in (404, 409) and not followed_is_gone:
                raise
            if error.status != 409 or error.reason == "AlreadyExists":
                return None
    raise AssertionError(f"{TRIES} conflicts in a row")
