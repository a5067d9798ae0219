"""What `explain` reads from files: mirror sets and streams, and nothing of what was tried."""

from typing import TYPE_CHECKING

from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.rules.policy import MirrorPolicy

from mirrorstream_cli.object_files import FileObjects, Object, read_files

if TYPE_CHECKING:
    from mirrorstream.diagnose.tag_status import TagState
    from mirrorstream.imagestream.model import ImageStream


class Source:
    """Where rules and streams come from."""

    policy: MirrorPolicy | None
    """None where a kind of mirror set may not be seen."""
    recorded_reference = "auto"
    """The configuration's `controller.recordedReference`."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.events: list[str] = []

    def load(self) -> None:
        """Read the rules."""
        raise NotImplementedError

    def stream(self, namespace: str, name: str) -> "tuple[ImageStream, list[TagState]]":
        """A stream, and how its tags stand. Raises ConfigurationError, ClientError."""
        raise NotImplementedError


class FileSource(Source):
    """Offline: nothing is known of what was tried."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self._names = names

    def load(self) -> None:
        """Read the rules."""
        self._read()

    def _read(self) -> FileObjects:
        found = read_files(self._names)
        self.notes += found.notes
        self.policy = MirrorPolicy.from_objects(found.objects)
        return found

    def stream(self, namespace: str, name: str) -> "tuple[ImageStream, list[TagState]]":
        """A stream, and how its tags stand. Raises ConfigurationError."""
        from mirrorstream_cli.file_streams import tags_of  # noqa: PLC0415  takes as long to import as all that a reference needs

        return tags_of(_stream_in_files(self._read(), namespace, name), self.policy)


def _stream_in_files(found: FileObjects, namespace: str, name: str) -> Object:
    """The stream of that name; one without a namespace is of any."""
    streams = [item for item in found.objects if item["kind"] == "ImageStream" and item["metadata"].get("name") == name]
    for wanted in (namespace, None):
        for item in streams:
            if (item["metadata"].get("namespace") or None) == wanted:
                return {**item, "metadata": {**item["metadata"], "namespace": namespace}}
    raise ConfigurationError("; ".join([f"the files have no ImageStream {namespace}/{name}", *found.notes]))
