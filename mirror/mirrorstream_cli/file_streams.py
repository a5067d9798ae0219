"""How the tags of a stream from a file stand."""

import msgspec
from mirrorstream.diagnose.tag_status import ControllerView, TagState, tag_states
from mirrorstream.imagestream.model import ImageStream, imagestream_from
from mirrorstream.imagestream.outcomes import AttemptHistory
from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.rules.policy import MirrorPolicy

from mirrorstream_cli.object_files import Object


def tags_of(document: Object, policy: MirrorPolicy | None) -> tuple[ImageStream, list[TagState]]:
    """The stream, and its tags as far as files tell of them. Raises ConfigurationError."""
    try:
        stream = imagestream_from(document)
    except msgspec.ValidationError as error:
        metadata = document["metadata"]
        raise ConfigurationError(f"ImageStream {metadata['namespace']}/{metadata['name']}: {error}") from error
    return stream, list(tag_states(stream, policy, AttemptHistory(), ControllerView()))
