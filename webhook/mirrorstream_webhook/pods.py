"""Projections of the few Pod fields that a review looks at, and the places in a pod that name an image."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from mirrorstream.diagnose.pods import ORIGINALS_ANNOTATION, REWRITE_LABEL, STATIC_ANNOTATION, Owner, Projection
from mirrorstream.text.projection import decoder

REPAIRED_LABEL = "mirrorstream.github.io/repaired"
"""Of pods whose images were replaced after they were created: the policy that bounds these changes looks only at such pods."""
OS_LABEL, OLD_OS_LABEL = "kubernetes.io/os", "beta.kubernetes.io/os"
WINDOWS_BUILD_LABEL = "node.kubernetes.io/windows-build"
"""Only Windows nodes have it. A RuntimeClass's selector has it, or the system's label: admission adds that before any webhook."""
ARCHITECTURE_LABEL, OLD_ARCHITECTURE_LABEL = "kubernetes.io/arch", "beta.kubernetes.io/arch"
NEVER = "Never"
SHORTENED_FROM = 48
"""Letters in an account's name from which on openshift-controller-manager shortens it in the names of its secrets."""
TRUE = "true"


class Labels(Projection, frozen=True, rename={"rewrite": REWRITE_LABEL}):
    """The one label that means something here."""

    rewrite: str = ""


class Annotations(Projection, frozen=True, rename={"originals": ORIGINALS_ANNOTATION, "static": STATIC_ANNOTATION}):
    """The annotation that is ours, and the kubelet's; None when the pod does not have it."""

    originals: str | None = None
    static: str | None = None


class Metadata(Projection, frozen=True):
    """What a pod says about itself."""

    labels: Labels | None = None
    annotations: Annotations | None = None
    owner_references: tuple[Owner, ...] | None = None


class WindowsOptions(Projection, frozen=True):
    """What only Windows has."""

    host_process: bool | None = None


class SecurityContext(Projection, frozen=True):
    """How a pod or a container is confined."""

    windows_options: WindowsOptions | None = None


class Container(Projection, frozen=True):
    """A container of any kind."""

    name: str = ""
    image: str | None = None
    image_pull_policy: str | None = None
    security_context: SecurityContext | None = None


class ImageVolume(Projection, frozen=True):
    """An image that is mounted."""

    reference: str | None = None
    pull_policy: str | None = None


class Volume(Projection, frozen=True):
    """A volume; `image` is None unless it is an image volume."""

    name: str = ""
    image: ImageVolume | None = None


class PullSecret(Projection, frozen=True):
    """A reference to a secret; its content is never read."""

    name: str = ""


class OperatingSystem(Projection, frozen=True):
    """The operating system that a pod says it is for."""

    name: str = ""


class NodeSelector(
    Projection,
    frozen=True,
    rename={
        "os": OS_LABEL,
        "old_os": OLD_OS_LABEL,
        "windows_build": WINDOWS_BUILD_LABEL,
        "architecture": ARCHITECTURE_LABEL,
        "old_architecture": OLD_ARCHITECTURE_LABEL,
    },
):
    """The labels of nodes that mean something here; the kubelet sets old and new ones alike."""

    os: str | None = None
    old_os: str | None = None
    windows_build: str | None = None
    architecture: str | None = None
    old_architecture: str | None = None


class Requirement(Projection, frozen=True):
    """One expression of a term."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class Term(Projection, frozen=True):
    """Expressions that a node must all match; one that has none matches no node."""

    match_expressions: tuple[Requirement, ...] | None = None
    match_fields: tuple[Requirement, ...] | None = None


class RequiredNodes(Projection, frozen=True):
    """Terms of which a node must match one."""

    node_selector_terms: tuple[Term, ...] | None = None


class PreferredNodes(Projection, frozen=True):
    """A term that a node had better match."""

    preference: Term = Term()


class NodeAffinity(
    Projection,
    frozen=True,
    rename={
        "required": "requiredDuringSchedulingIgnoredDuringExecution",
        "preferred": "preferredDuringSchedulingIgnoredDuringExecution",
    },
):
    """Where a pod may be scheduled, and where it had better be."""

    required: RequiredNodes | None = None
    preferred: tuple[PreferredNodes, ...] | None = None


class Affinity(Projection, frozen=True):
    """The same, as the pod has it."""

    node_affinity: NodeAffinity | None = None


class Spec(Projection, frozen=True):
    """What a pod runs."""

    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    ephemeral_containers: tuple[Container, ...] | None = None
    volumes: tuple[Volume, ...] | None = None
    image_pull_secrets: tuple[PullSecret, ...] | None = None
    service_account_name: str | None = None
    os: OperatingSystem | None = None
    node_selector: NodeSelector | None = None
    affinity: Affinity | None = None
    security_context: SecurityContext | None = None


class Pod(Projection, frozen=True):
    """A Pod, reduced to what a review needs: pods that are equal in this get the same answer."""

    metadata: Metadata = Metadata()
    spec: Spec = Spec()


decode_pod = decoder(Pod, places=True)
"""A Pod from its JSON. Raises msgspec.MsgspecError. Made here, before any thread: see `Client.request`."""


def pod_from(document: dict[str, Any]) -> Pod:
    """Project a whole Pod. Raises msgspec.ValidationError."""
    return msgspec.convert(document, Pod)


VOLUME = "volume/"
"""What the names of places in volumes begin with."""


class Slot(msgspec.Struct, frozen=True, gc=False):
    """A place in a pod that names an image.

    `name` is the container's, or `volume/NAME`; `pointer` is the JSON Pointer of the reference. `never_pulled` if the image must be
    on the node already.
    """

    name: str
    image: str
    pointer: str
    never_pulled: bool = False


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
                pointer = f"/spec/{field}/{index}/image"
                yield Slot(container.name, container.image, pointer, container.image_pull_policy == NEVER)
    for index, volume in enumerate(spec.volumes or ()):
        image = volume.image
        if image is not None and image.reference:
            pointer = f"/spec/volumes/{index}/image/reference"
            yield Slot(VOLUME + volume.name, image.reference, pointer, image.pull_policy == NEVER)


def pull_secret_problem(pod: Pod) -> str:
    """Why the pod could not log in to the internal registry; empty if nothing is known against it.

    ServiceAccount admission, before any webhook, adds the account's own secrets to a pod that names none. A new account has none
    yet, and a pod's list never changes.
    """
    secrets, account = pod.spec.image_pull_secrets or (), service_account(pod)
    theirs = pull_secret_prefix(account)
    for secret in secrets:
        if secret.name.startswith(theirs):
            return ""
    if not secrets:
        return f"the pod names no pull secret of its service account {account}"
    names = ", ".join(secret.name for secret in secrets)
    return f"the pod names pull secrets of its own ({names}), none of them for the internal registry"


def pull_secret_prefix(account: str) -> str:
    """What the names of an account's secrets for the internal registry begin with."""
    return f"{account if len(account) < SHORTENED_FROM else _shortened(account)}-dockercfg-"


def _shortened(account: str) -> str:
    """A long account's name as the names of its secrets begin: 38 letters and an FNV-1a hash."""
    value = 0x811C9DC5
    for byte in account.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{account[:38]}-{value:08x}"


def service_account(pod: Pod) -> str:
    """The service account that the pod runs as."""
    return pod.spec.service_account_name or "default"


def is_placed(pod: Pod) -> bool:
    """Whether the pod says anything about its nodes."""
    spec = pod.spec
    return spec.node_selector is not None or spec.affinity is not None or spec.os is not None or _is_host_process(spec)


def runs_on_windows(pod: Pod) -> bool:
    """Whether the pod asks for Windows nodes."""
    if pod.spec.os is not None and pod.spec.os.name:
        return pod.spec.os.name == "windows"
    selector = pod.spec.node_selector
    if _others(pod, {OS_LABEL: selector.os, OLD_OS_LABEL: selector.old_os} if selector else _NO_OS, "linux"):
        return True
    build = {WINDOWS_BUILD_LABEL: selector.windows_build if selector else None}
    return bool(_others(pod, build, "", everywhere=False)) or _is_host_process(pod.spec)


def _is_host_process(spec: Spec) -> bool:
    """Whether the pod, or a container of it, is one of Windows' host processes."""
    contexts = [spec.security_context, *(c.security_context for c in (*(spec.containers or ()), *(spec.init_containers or ())))]
    return any(context and context.windows_options and context.windows_options.host_process for context in contexts)


def other_architectures(pod: Pod, own: str) -> frozenset[str]:
    """The architectures besides `own` that the pod asks for, in words; empty if it asks for none."""
    selector = pod.spec.node_selector
    selected = {ARCHITECTURE_LABEL: selector.architecture, OLD_ARCHITECTURE_LABEL: selector.old_architecture} if selector else None
    return _others(pod, selected or _NO_ARCHITECTURE, own)


_NO_OS: Mapping[str, str | None] = {OS_LABEL: None, OLD_OS_LABEL: None}
_NO_ARCHITECTURE: Mapping[str, str | None] = {ARCHITECTURE_LABEL: None, OLD_ARCHITECTURE_LABEL: None}


def _others(pod: Pod, selected: Mapping[str, str | None], own: str, *, everywhere: bool = True) -> frozenset[str]:
    """The values besides `own` that the pod asks for of nodes' labels, by what its selector says of each.

    `everywhere`: every node has the labels, so that to ask for one is to ask for nothing.

    A node must match the selector and one of the required terms. What a pod only prefers counts, too: there is where it comes to.
    """
    selector = [Requirement(label, "In", (value,)) for label, value in selected.items() if value is not None]
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    required = affinity.required.node_selector_terms if affinity and affinity.required else None
    preferred = [term.preference for term in (affinity.preferred if affinity else None) or ()]
    found: set[str] = set()
    for term in required or (_ANY,):
        if term is _ANY or term.match_expressions or term.match_fields:
            for preference in (_ANY, *preferred):
                asked = [*selector, *(term.match_expressions or ()), *(preference.match_expressions or ())]
                found |= _asked(asked, selected, own, everywhere=everywhere)
    return frozenset(found)


_ANY = Term()


def _asked(requirements: Iterable[Requirement], labels: Mapping[str, object], own: str, *, everywhere: bool) -> set[str]:
    """The values besides `own` that requirements, all of them, ask for of `labels`, which have the same value."""
    named: set[str] | None = None
    refused: set[str] = set()
    exists = False
    for requirement in requirements:
        if requirement.key not in labels:
            continue
        values = set(requirement.values or ())
        if requirement.operator == "In":
            named = values if named is None else named & values
        elif requirement.operator == "NotIn":
            refused |= values
        elif requirement.operator == "Exists" or (not everywhere and requirement.operator in ("Gt", "Lt")):
            exists = True
        else:  # no node is without it, and none has a number in it
            return set()
    if named is not None:
        return named - refused - {own}
    if exists and not everywhere:
        return {"any"}
    return {f"another than {own}"} if own in refused else set()
