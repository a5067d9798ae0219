"""Pods that hang on an image of a Local tag: what each waits for, and what would help. A pure function of pods, streams and tags.

This is what can be told from outside. What exactly a pod would get depends on more (its account's rights, signature policies):
`explain --as-pod` decides as the webhook does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from mirrorstream.diagnose.causes import cause_of, rule_helps
from mirrorstream.diagnose.pods import (
    DISABLED,
    ORIGINALS_ANNOTATION,
    REWRITE_LABEL,
    STATIC_ANNOTATION,
    SYSTEM,
    ContainerStatus,
    Owner,
    Projection,
    Waiting,
)
from mirrorstream.diagnose.tag_status import State, TagState
from mirrorstream.imagestream.eligibility import normalised
from mirrorstream.imagestream.model import LOCAL, ImageStream
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_or_none
from mirrorstream.text.sanitize import one_line, shortened

if TYPE_CHECKING:  # `explain` of files does without pydantic
    from mirrorstream.runtime.settings import Settings

OWN_NAMESPACE = "mirrorstream"
MESSAGE_LENGTH = 300
SERVED = (State.IMPORTED, State.HEALED, State.HELD)
"""The states in which a tag has an image for pods."""


class WaitsFor(StrEnum):
    """What a hanging pod waits for; the values are part of the output."""

    IMPORT = "import"
    """The tag has no image yet."""
    REPAIR = "repair"
    """The tag has an image, and mirrorstream is about to give it to the pod."""
    PULL = "pull"
    """The pod has the reference that mirrorstream gave it, and the node cannot pull that."""
    OWNER = "owner"
    """Somebody: mirrorstream does not change this pod."""


# A pod, as an API server lists it.


class _Labels(Projection, frozen=True, rename={"rewrite": REWRITE_LABEL}):
    rewrite: str = ""


class _Annotations(Projection, frozen=True, rename={"originals": ORIGINALS_ANNOTATION, "static": STATIC_ANNOTATION}):
    originals: str = ""
    static: str = ""


class _Meta(Projection, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    deletion_timestamp: str = ""
    labels: _Labels | None = None
    annotations: _Annotations | None = None
    owner_references: tuple[Owner, ...] | None = None


class _Container(Projection, frozen=True):
    name: str = ""
    image: str = ""


class _Spec(Projection, frozen=True):
    containers: tuple[_Container, ...] | None = None
    init_containers: tuple[_Container, ...] | None = None


class _Status(Projection, frozen=True):
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None


class Pod(Projection, frozen=True):
    """A Pod, reduced to what tells whether and why it hangs."""

    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()
    status: _Status = _Status()

    @property
    def key(self) -> tuple[str, str]:
        """Its namespace and name."""
        return self.metadata.namespace, self.metadata.name

    def hanging(self) -> Iterator[tuple[_Container, Waiting, bool]]:
        """The containers whose image cannot be pulled, and whether each ran before; of a pod that is being deleted, none."""
        if self.metadata.deletion_timestamp:
            return
        images = {c.name: c for c in (*(self.spec.init_containers or ()), *(self.spec.containers or ()))}
        for status in (*(self.status.init_container_statuses or ()), *(self.status.container_statuses or ())):
            if status.hang and status.name in images:
                yield images[status.name], status.hang, status.started

    def original(self, container: str) -> str:
        """The reference that the container had before mirrorstream changed it; empty if that is not known."""
        annotations = self.metadata.annotations
        try:
            found = msgspec.json.decode(annotations.originals) if annotations and annotations.originals else {}
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return ""
        text = found.get(container) if isinstance(found, dict) else None
        return text if isinstance(text, str) else ""


decode_pod = msgspec.json.Decoder(Pod).decode
"""A Pod from its JSON. Raises msgspec.ValidationError. Made here, before any thread: see `Client.request`."""


# What is told.


@dataclass(frozen=True, slots=True)
class HangingPod:
    """One container that hangs on the image of a tag."""

    namespace: str
    pod: str
    container: str
    image: str
    """What the node tries to pull."""
    tag: str
    """`namespace/stream:tag`."""
    reason: str
    """The node's word for it."""
    waits_for: WaitsFor
    why: str
    helps: str

    @property
    def name(self) -> str:
        """`namespace/pod`."""
        return f"{self.namespace}/{self.pod}"

    def document(self) -> dict[str, str]:
        """The JSON and YAML form."""
        return {
            "namespace": self.namespace,
            "pod": self.pod,
            "container": self.container,
            "image": self.image,
            "tag": self.tag,
            "reason": self.reason,
            "waitsFor": str(self.waits_for),
            "why": self.why,
            "helps": self.helps,
        }


class Claims:
    """Which Local tag a pod's image belongs to."""

    def __init__(self, streams: Iterable[ImageStream]) -> None:
        self._tags: dict[str, dict[str, tuple[str, str]]] = {}
        """By namespace and reference, a stream and a tag."""
        for stream in streams:
            self._add(stream)

    def _add(self, stream: ImageStream) -> None:
        claims = self._tags.setdefault(stream.metadata.namespace, {})
        statuses, here = stream.status_by_tag(), stream.status.docker_image_repository
        for tag in stream.spec_tags:
            if tag.reference_policy.type != LOCAL:
                continue
            name, status = (stream.metadata.name, tag.name), statuses.get(tag.name)
            references = [tag.from_.name] if tag.from_ and tag.importable else []
            references += [f"{here}:{tag.name}"] if here else []
            for item in (status.items or ()) if status else ():
                references += [item.docker_image_reference, f"{here}@{item.image}"] if here else [item.docker_image_reference]
            for reference in references:
                claims.setdefault(normalised(reference), name)

    def find(self, image: str, namespaces: Iterable[str]) -> tuple[str, str, str] | None:
        """The namespace, stream and tag that stands for `image`, in the first of `namespaces` that has one."""
        reference = normalised(image)
        for namespace in namespaces:
            if found := self._tags.get(namespace, {}).get(reference):
                return namespace, *found
        return None


@dataclass(frozen=True, slots=True)
class Known:
    """What pods are judged by, besides their tags."""

    settings: "Settings"
    opted_out: frozenset[str] = frozenset()
    """The namespaces whose label keeps the webhook away."""
    policy: MirrorPolicy | None = None
    """The mirror rules; None where they may not be seen."""
    told: Mapping[str, str] = field(default_factory=dict)
    """What the webhook's Events say of pods that it did not change, by the pod's uid."""
    guard: Callable[[str, str, str], str] = lambda image, namespace, digest: ""
    """The signature policy that keeps an image of a pod of a namespace from being served by a digest; empty if none does."""
    is_hosted: Callable[[], bool] = lambda: False
    """Whether it is a hosted cluster, in which nobody may create mirror sets; called where that counts only."""


def hanging_pods(pods: Iterable[Pod], claims: Claims, tags: Iterable[TagState], known: Known) -> tuple[HangingPod, ...]:
    """The containers that hang on an image of a Local tag, in the order of their pods' names."""
    states = {(tag.namespace, tag.stream, name): tag for tag in tags for name in (*tag.followers, tag.tag)}
    found = []
    for pod in sorted(pods, key=lambda pod: pod.key):
        namespaces = (pod.metadata.namespace, *known.settings.webhook.sharedNamespaces)
        for container, waiting, started in pod.hanging():
            original = pod.original(container.name)
            claim = claims.find(original, namespaces) if original else None
            claim = claim or claims.find(container.image, namespaces)
            if claim is None:
                continue
            is_changed = bool(original) and original != container.image
            hang = _Hang(original or container.image, waiting, is_changed, started)
            waits, why, helps = _judge(pod, hang, claim, states.get(claim), known)
            found.append(
                HangingPod(
                    one_line(pod.metadata.namespace),
                    one_line(pod.metadata.name),
                    one_line(container.name),
                    one_line(container.image),
                    "{}/{}:{}".format(*claim),
                    waiting.reason,
                    waits,
                    shortened(one_line(why), MESSAGE_LENGTH),
                    helps,
                )
            )
    return tuple(found)


Judged = tuple[WaitsFor, str, str]
CREATE_AGAIN = "create the pod again: it gets the image then"


@dataclass(frozen=True, slots=True)
class _Hang:
    """A container that hangs: the image that its pod's author wrote, and whether it has another by now, and ran before."""

    image: str
    waiting: Waiting
    is_changed: bool
    started_before: bool


def _judge(pod: Pod, hang: _Hang, claim: tuple[str, str, str], tag: TagState | None, known: Known) -> Judged:
    """What a pod waits for, why, and what would help."""
    if why := _left_alone(pod, known):
        return WaitsFor.OWNER, why, "its owner has to name an image that the node can pull"
    if hang.started_before and not hang.is_changed:
        return WaitsFor.OWNER, "the container has started before, so mirrorstream does not change its image", CREATE_AGAIN
    if tag is not None and tag.state not in SERVED:
        cause = cause_of(tag, hosted=tag.state is State.UNMIRRORED and known.is_hosted())
        return WaitsFor.IMPORT, cause.text, cause.helps
    if told := known.told.get(pod.metadata.uid):
        return WaitsFor.OWNER, told, CREATE_AGAIN
    if hang.is_changed:
        return (
            WaitsFor.PULL,
            hang.waiting.message or hang.waiting.reason,
            "find out why the node cannot pull that: `oc describe pod` says more",
        )
    settings = known.settings
    if settings.mode == "observe":
        return WaitsFor.OWNER, "mirrorstream observes only (mode: observe)", "mode: active"
    if settings.webhook.scope == "mirrored" and tag and known.policy and not _is_mirrored(known.policy, tag.source):
        why = f"no mirror set covers {tag.source} (webhook.scope: mirrored)"
        return WaitsFor.OWNER, why, rule_helps(hosted=known.is_hosted())
    if guard := known.guard(hang.image, pod.metadata.namespace, tag.digest if tag else ""):
        return WaitsFor.OWNER, f"{guard} guards its image", "an image that the node can pull, and that the policy accepts"
    if settings.webhook.pendingPods == "report":
        return WaitsFor.OWNER, "pods are only reported (webhook.pendingPods: report)", CREATE_AGAIN
    name = "{}/{}:{}".format(*claim)
    helps = f"if that lasts longer than a minute: `mirrorstream explain --as-pod -n {pod.metadata.namespace}`, or create it again"
    return WaitsFor.REPAIR, f"{name} has an image, which mirrorstream is about to give to the pod", helps


def _is_mirrored(policy: MirrorPolicy, source: str) -> bool:
    reference = parse_or_none(source)
    return reference is not None and policy.resolve(reference).is_mirrored


def _left_alone(pod: Pod, known: Known) -> str:
    """Why mirrorstream never changes a pod; empty if it may."""
    metadata = pod.metadata
    if metadata.labels and metadata.labels.rewrite == DISABLED:
        return f"the pod's label {REWRITE_LABEL} says so"
    if metadata.namespace in known.opted_out:
        return f"the namespace's label {REWRITE_LABEL} says so"
    if metadata.namespace.startswith(SYSTEM) or metadata.namespace == OWN_NAMESPACE:
        return "mirrorstream changes no pods of the platform's namespaces and of its own"
    if metadata.annotations and metadata.annotations.static:
        return "a static pod runs what its file on the node says"
    for owner in metadata.owner_references or ():
        if owner.qualified in known.settings.webhook.excludeOwners:
            return f"webhook.excludeOwners has {owner.qualified}"
    return ""


def pod_groups(found: Sequence[HangingPod]) -> list[list[HangingPod]]:
    """Pods for which the same would help, the largest group first."""
    groups: dict[tuple[Any, ...], list[HangingPod]] = {}
    for pod in found:
        # Of the same trouble each pod's Event or node may speak a little differently.
        key = (pod.waits_for, pod.helps, pod.why if pod.waits_for is WaitsFor.IMPORT else "")
        groups.setdefault(key, []).append(pod)
    return sorted(groups.values(), key=lambda pods: (-len({pod.name for pod in pods}), pods[0].name))
