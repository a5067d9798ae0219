"""Projections of the few Pod fields that a review looks at, and the places in a pod that name an image."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

REWRITE_LABEL = "mirrorstream.github.io/rewrite"
ORIGINALS_ANNOTATION = "mirrorstream.github.io/original-images"
DISABLED = "disabled"


class _Projection(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A slotted, immutable part of a pod."""


class Labels(_Projection, frozen=True, gc=False, rename={"rewrite": REWRITE_LABEL}):
    """The one label that means something here."""

    rewrite: str = ""


class Annotations(_Projection, frozen=True, gc=False, rename={"originals": ORIGINALS_ANNOTATION}):
    """The one annotation that is ours; None when the pod does not have it."""

    originals: str | None = None


class Owner(_Projection, frozen=True, gc=False, rename="camel"):
    """An owner reference."""

    api_version: str = ""
    kind: str = ""

    @property
    def qualified(self) -> str:
        """`Kind.group`; a core kind has no group, and no dot."""
        group, slash, _ = self.api_version.rpartition("/")
        return f"{self.kind}.{group}" if slash else self.kind


class Metadata(_Projection, frozen=True, gc=False, rename="camel"):
    """What a pod says about itself."""

    labels: Labels | None = None
    annotations: Annotations | None = None
    owner_references: tuple[Owner, ...] | None = None


class Container(_Projection, frozen=True, gc=False):
    """A container of any kind."""

    name: str = ""
    image: str | None = None


class ImageVolume(_Projection, frozen=True, gc=False):
    """An image that is mounted."""

    reference: str | None = None


class Volume(_Projection, frozen=True, gc=False):
    """A volume; `image` is None unless it is an image volume."""

    name: str = ""
    image: ImageVolume | None = None


class PullSecret(_Projection, frozen=True, gc=False):
    """A reference to a secret; its content is never read."""

    name: str = ""


class Spec(_Projection, frozen=True, gc=False, rename="camel"):
    """What a pod runs."""

    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    ephemeral_containers: tuple[Container, ...] | None = None
    volumes: tuple[Volume, ...] | None = None
    image_pull_secrets: tuple[PullSecret, ...] | None = None
    service_account_name: str | None = None


class Pod(_Projection, frozen=True, gc=False):
    """A Pod, reduced to what a review needs: pods that are equal in this get the same answer."""

    metadata: Metadata = Metadata()
    spec: Spec = Spec()


decode_pod = msgspec.json.Decoder(Pod).decode
"""A Pod from its JSON. Raises msgspec.ValidationError. Made here, before any thread: see `Client.request`."""


def pod_from(document: dict[str, Any]) -> Pod:
    """Project a whole Pod. Raises msgspec.ValidationError."""
    return msgspec.convert(document, Pod)


class Slot(NamedTuple):
    """A place in a pod that names an image.

    `name` is the container's, or `volume/NAME`; `pointer` is the JSON Pointer of the reference.
    """

    name: str
    image: str
    pointer: str


def slots(pod: Pod) -> Iterator[Slot]:
    """Every place in `pod` that names an image; those that leave it empty are skipped."""
    spec = pod.spec
    for field, containers in (
        ("containers", spec.containers),
        ("initContainers", spec.init_containers),
        ("ephemeralContainers", spec.ephemeral_containers),
    ):
        for index, container in enumerate(containers or ()):
            if container.image:
                yield Slot(container.name, container.image, f"/spec/{field}/{index}/image")
    for index, volume in enumerate(spec.volumes or ()):
        if volume.image is not None and volume.image.reference:
            yield Slot(f"volume/{volume.name}", volume.image.reference, f"/spec/volumes/{index}/image/reference")


def pull_secret_problem(pod: Pod) -> str:
    """Why the pod could not pull from the internal registry; empty if nothing is known against it.

    The platform adds the service account's own secrets, `NAME-dockercfg-…` for the internal registry among them, only to a pod
    that names none.
    """
    names = [secret.name for secret in pod.spec.image_pull_secrets or ()]
    theirs = f"{service_account(pod)}-dockercfg-"
    if not names or any(name.startswith(theirs) for name in names):
        return ""
    return f"the pod names pull secrets of its own ({', '.join(names)}), none of them for the internal registry"


def service_account(pod: Pod) -> str:
    """The service account that the pod runs as."""
    return pod.spec.service_account_name or "default"
