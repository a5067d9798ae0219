"""What `explain` reads from files: mirror sets and streams, and nothing of what was tried."""

from dataclasses import dataclass, field

import msgspec
from mirrorstream.diagnose.tag_status import ControllerView, TagState, tag_states
from mirrorstream.imagestream.model import ImageStream, imagestream_from
from mirrorstream.imagestream.outcomes import AttemptHistory
from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.rules.policy import MirrorPolicy

from mirrorstream_cli.object_files import FileObjects, Object, read_files


@dataclass(slots=True)
class Source:
    """Where rules and streams come from."""

    policy: MirrorPolicy | None = field(init=False)
    """None where a kind of mirror set may not be seen."""
    controller_view: ControllerView = field(init=False)
    notes: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def load(self) -> None:
        """Read the rules."""
        raise NotImplementedError

    def stream(self, namespace: str, name: str) -> tuple[ImageStream, list[TagState]]:
        """A stream, and how its tags stand. Raises ConfigurationError, ClientError."""
        raise NotImplementedError


@dataclass(slots=True)
class FileSource(Source):
    """Offline: nothing is known of what was tried."""

    names: list[str] = field(default_factory=list)
    _found: FileObjects = field(default_factory=FileObjects)

    def __init__(self, names: list[str]) -> None:
        self.controller_view, self.notes, self.events, self.names = ControllerView(), [], [], names

    def load(self) -> None:
        """Read the rules."""
        self._found = read_files(self.names)
        self.notes += self._found.notes
        self.policy = MirrorPolicy.from_objects(self._found.objects)

    def stream(self, namespace: str, name: str) -> tuple[ImageStream, list[TagState]]:
        """A stream, and how its tags stand. Raises ConfigurationError."""
        self.load()
        document = _stream_in_files(self._found, namespace, name)
        try:
            stream = imagestream_from(document)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"ImageStream {namespace}/{name}: {error}") from error
        return stream, list(tag_states(stream, self.policy, AttemptHistory(), ControllerView()))


def _stream_in_files(found: FileObjects, namespace: str, name: str) -> Object:
    """The stream of that name; one without a namespace is of any."""
    streams = [item for item in found.objects if item["kind"] == "ImageStream" and item["metadata"].get("name") == name]
    for wanted in (namespace, None):
        for item in streams:
            if (item["metadata"].get("namespace") or None) == wanted:
                return {**item, "metadata": {**item["metadata"], "namespace": namespace}}
    raise ConfigurationError("; ".join([f"the files have no ImageStream {namespace}/{name}", *found.notes]))
