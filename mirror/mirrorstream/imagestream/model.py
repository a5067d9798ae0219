"""Projections of the few ImageStream fields that mirrorstream decides by.

A cluster can hold 100,000 streams, each with a managedFields and a last-applied annotation larger than itself. Decoding straight
into slotted structs keeps none of that.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from mirrorstream.rules.references import parse_or_none, written_name
from mirrorstream.text.projection import decoder, project

RETRY_ANNOTATION = "mirrorstream.github.io/retry"
IMPORT_ANNOTATION = "mirrorstream.github.io/import"
IMPORTED_THROUGH_ANNOTATION = "mirrorstream.github.io/imported-through"
REPOSITORY_CHECK_ANNOTATION = "openshift.io/image.dockerRepositoryCheck"
INSECURE_REPOSITORY_ANNOTATION = "openshift.io/image.insecureRepository"
PREFER_ARCHITECTURE_ANNOTATION = "importer.image.openshift.io/prefer-arch"
MANAGED_SAMPLE_LABEL = "samples.operator.openshift.io/managed"
WHOLE_REPOSITORY = ""
"""The name under which `spec.dockerImageRepository` goes where tags do: no tag has an empty name."""
_SHARED_NAMES = 4096
"""Names of tags that are kept once. `sys.intern` would keep all: Python 3.12 never gives back an interned text."""
_SHARED = 64
"""How many different policies of tags are shared; a cluster has a handful."""
T = TypeVar("T")
IMPORT_SUCCESS = "ImportSuccess"
"""The only condition type that the platform sets on a tag."""
LOCAL = "Local"
"""The reference policy of tags whose images pods pull from the internal registry."""


class _Projection(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """A slotted, immutable part of an object; what it does not name is never kept, and what is unset not written as JSON."""


@lru_cache(maxsize=_SHARED_NAMES)
def _shared_name(name: str) -> str:
    """The name of a tag that came first of those that are equal."""
    return name


@lru_cache(maxsize=_SHARED)
def _shared(policy: T) -> T:
    """The policy that came first of those that are equal."""
    return policy


class Annotations(
    _Projection,
    frozen=True,
    gc=False,
    rename={
        "retry": RETRY_ANNOTATION,
        "importing": IMPORT_ANNOTATION,
        "repository_check": REPOSITORY_CHECK_ANNOTATION,
        "insecure_repository": INSECURE_REPOSITORY_ANNOTATION,
    },
):
    """The annotations of a stream that mean something here; empty when they are not set."""

    retry: str = ""
    importing: str = ""
    repository_check: str = ""
    insecure_repository: str = ""


class Labels(_Projection, frozen=True, gc=False, rename={"managed_sample": MANAGED_SAMPLE_LABEL}):
    """The labels of a stream that mean something here."""

    managed_sample: str = ""


class Metadata(_Projection, frozen=True, gc=False, rename="camel"):
    """A stream's identity and versions."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    annotations: Annotations | None = None
    labels: Labels | None = None


class ObjectReference(_Projection, frozen=True, gc=False, rename="camel"):
    """Where a spec tag's image comes from."""

    kind: str = ""
    name: str = ""
    namespace: str = ""


def is_legacy(import_mode: str) -> bool:
    """Whether of a manifest list an import in this mode takes the image of one architecture, by default the API server's."""
    return import_mode in ("", "Legacy")


class ImportPolicy(_Projection, frozen=True, gc=False, rename="camel"):
    """How the platform imports a tag."""

    insecure: bool = False
    scheduled: bool = False
    import_mode: str = ""

    @property
    def is_legacy(self) -> bool:
        """Whether of a manifest list the image of one architecture is imported."""
        return is_legacy(self.import_mode)

    @property
    def is_pulled_insecurely(self) -> bool:
        """Whether the internal registry fetches what the tag has without TLS, whatever the stream's annotation says.

        The parts of a manifest list belong to no tag, so for them it asks the annotation alone (image-registry, `TagIsInsecure`).
        """
        return self.insecure and self.is_legacy


class ReferencePolicy(_Projection, frozen=True, gc=False, rename="camel"):
    """Whether pods get the source's reference or the internal registry's."""

    type: str = ""


class TagAnnotations(_Projection, frozen=True, gc=False, rename={"prefer_architecture": PREFER_ARCHITECTURE_ANNOTATION}):
    """The annotation of a tag that means something here; empty when it is not set."""

    prefer_architecture: str = ""


class SpecTag(_Projection, frozen=True, gc=False):
    """A tag as the user asked for it."""

    name: str
    from_: ObjectReference | None = msgspec.field(name="from", default=None)
    generation: int | None = None
    reference: bool = False
    annotations: TagAnnotations | None = None
    import_policy: ImportPolicy = msgspec.field(name="importPolicy", default=ImportPolicy())
    reference_policy: ReferencePolicy = msgspec.field(name="referencePolicy", default=ReferencePolicy())

    def __post_init__(self) -> None:
        """Keep once what most tags of a cluster have alike: a fifth of all that is kept."""
        msgspec.structs.force_setattr(self, "name", _shared_name(self.name))
        msgspec.structs.force_setattr(self, "annotations", _shared(self.annotations))
        msgspec.structs.force_setattr(self, "import_policy", _shared(self.import_policy))
        msgspec.structs.force_setattr(self, "reference_policy", _shared(self.reference_policy))

    @property
    def importable(self) -> bool:
        """Whether the platform's import controller imports this tag (its own test)."""
        return self.from_ is not None and self.from_.kind == "DockerImage" and not self.reference


class Spec(_Projection, frozen=True, gc=False, rename="camel"):
    """What the user asked for."""

    docker_image_repository: str = ""
    tags: list[SpecTag] | None = None


class TagEvent(_Projection, frozen=True, gc=False, rename="camel"):
    """One entry of a tag's history."""

    docker_image_reference: str = ""
    image: str = ""
    generation: int = 0
    created: str | None = None
    """RFC 3339 text as the API server wrote it."""


class Condition(_Projection, frozen=True, gc=False, rename="camel"):
    """A tag event condition; `last_transition_time` is RFC 3339 text as the API server wrote it."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    generation: int = 0
    last_transition_time: str | None = None


class StatusTag(_Projection, frozen=True, gc=False, rename="camel"):
    """A tag's history, newest first, and what the platform says of its last import."""

    tag: str
    items: list[TagEvent] | None = None
    conditions: list[Condition] | None = None

    def __post_init__(self) -> None:
        """Keep a name once, here and in the spec."""
        msgspec.structs.force_setattr(self, "tag", _shared_name(self.tag))

    @property
    def newest(self) -> TagEvent | None:
        """The item that the tag points to."""
        return self.items[0] if self.items else None

    @property
    def import_condition(self) -> Condition | None:
        """The ImportSuccess condition, whatever its status."""
        return next((c for c in self.conditions or () if c.type == IMPORT_SUCCESS), None)

    @property
    def failure(self) -> Condition | None:
        """The ImportSuccess condition if it says that the import failed."""
        condition = self.import_condition
        return condition if condition is not None and condition.status == "False" else None


class Status(_Projection, frozen=True, gc=False, rename="camel"):
    """What the platform says of the stream."""

    docker_image_repository: str = ""
    tags: list[StatusTag] | None = None


class ImageStream(_Projection, frozen=True, gc=False, rename="camel"):
    """An ImageStream, reduced to what decisions need."""

    metadata: Metadata
    spec: Spec = Spec()
    status: Status = Status()

    @property
    def annotations(self) -> Annotations:
        """The annotations that mean something here."""
        return self.metadata.annotations or Annotations()

    @property
    def is_managed_sample(self) -> bool:
        """Whether the samples operator manages it, and reports its failures."""
        return self.metadata.labels is not None and self.metadata.labels.managed_sample == "true"

    @property
    def is_insecure(self) -> bool:
        """Whether its annotation has the platform take its sources for insecure: a whole repository's, and all that is pulled."""
        return self.annotations.insecure_repository == "true"

    @property
    def opted_out(self) -> bool:
        """Whether its annotation keeps mirrorstream from importing anything for it."""
        return self.annotations.importing == "disabled"

    @property
    def spec_tags(self) -> list[SpecTag]:
        """The tags of the spec, in the API's order; never null."""
        return self.spec.tags or []

    def status_tag(self, name: str) -> StatusTag | None:
        """The status of the tag `name`, if the platform has written any."""
        return next((tag for tag in self.status.tags or () if tag.tag == name), None)

    def status_by_tag(self) -> dict[str, StatusTag]:
        """As `status_tag`, for many tags at once."""
        return {tag.tag: tag for tag in reversed(self.status.tags or [])}


decode_imagestream = decoder(ImageStream)
"""An ImageStream from its JSON. Raises msgspec.MsgspecError."""


def imagestream_from(document: dict[str, Any]) -> ImageStream:
    """Project a whole ImageStream, as a GET answers it. Raises msgspec.ValidationError on a malformed one."""
    return project(document, ImageStream)


def is_pending(tag: SpecTag, status: StatusTag | None) -> bool:
    """Whether the platform still has to import the tag at its present generation (its own test)."""
    return (tag.generation or 0) > _observed_generation(status)


def _observed_generation(status: StatusTag | None) -> int:
    if status is None:
        return 0
    newest, condition = status.newest, status.import_condition
    return max(newest.generation if newest else 0, condition.generation if condition else 0)


def followed_tag(stream_name: str, namespace: str, tag: SpecTag) -> str | None:
    """The tag of the same stream that a tracking tag follows, or None if it is none.

    `from.name` is `TAG` or `STREAM:TAG`; the platform takes both for an ImageStreamTag in the stream's own namespace.
    """
    source = tag.from_
    if source is None or source.kind != "ImageStreamTag" or tag.reference:
        return None
    if source.namespace and source.namespace != namespace:
        return None
    stream, colon, followed = source.name.rpartition(":")
    if colon and stream != stream_name:
        return None
    return followed


def failing_tags(stream: ImageStream) -> Iterable[str]:
    """The importable tags whose last import failed."""
    statuses = stream.status_by_tag()
    for tag in stream.spec_tags:
        status = statuses.get(tag.name) if tag.importable else None
        if status and status.failure and not is_pending(tag, status):
            yield tag.name


def listed_tags(stream: ImageStream) -> list[str]:
    """The tags of the status that a whole-repository import brought.

    No tag of the spec asked for them, or one does from that very repository: the platform's own import adds what it found to the
    spec, and without these a repository that it imported would always look failed.
    """
    repository = stream.spec.docker_image_repository
    others = {tag.name for tag in stream.spec_tags if not (tag.from_ and _name(tag.from_.name) == _name(repository))}
    return [tag.tag for tag in stream.status.tags or () if tag.items and tag.tag not in others]


def _name(source: str) -> str:
    """The repository that a pull spec is of."""
    reference = parse_or_none(source)
    return reference.name if reference else written_name(source)


def followers(stream: ImageStream, tag: str) -> list[str]:
    """The tags of the same stream that follow `tag`, directly or through others, by name."""
    return followers_of(follows(stream), tag)


def follows(stream: ImageStream) -> dict[str, list[str]]:
    """For each tag that others of the same stream follow directly, their names; computed once for many tags of a stream."""
    metadata = stream.metadata
    found: dict[str, list[str]] = {}
    for tag in stream.spec_tags:
        target = followed_tag(metadata.name, metadata.namespace, tag)
        if target is not None:
            found.setdefault(target, []).append(tag.name)
    return found


def followers_of(direct: Mapping[str, list[str]], tag: str) -> list[str]:
    """As `followers`, by what `follows` found."""
    found: set[str] = set()
    reached = [tag]
    while reached:
        reached = [name for target in reached for name in direct.get(target, ()) if name not in found and name != tag]
        found.update(reached)
    return sorted(found)


def importing_tag(stream: ImageStream, name: str) -> SpecTag | None:
    """The tag of the spec that brings the image of the tag `name`: itself, or the one of the same stream that it follows at last.

    None if there is none, as for a pushed tag, one of another stream, or tags that follow each other. Raises KeyError if the spec
    has no tag `name`.
    """
    tags = {tag.name: tag for tag in stream.spec_tags}
    tag, seen = tags[name], {name}
    while not tag.importable:
        followed = followed_tag(stream.metadata.name, stream.metadata.namespace, tag)
        if followed is None or followed in seen or followed not in tags:
            return None
        seen.add(followed)
        tag = tags[followed]
    return tag
