"""What the commands and the webhook both read of a pod, and the names that both use for it."""

import msgspec

REWRITE_LABEL = "mirrorstream.github.io/rewrite"
DISABLED = "disabled"
"""The value of that label, of a pod or a namespace, with which nothing is changed."""
ORIGINALS_ANNOTATION = "mirrorstream.github.io/original-images"
STATIC_ANNOTATION = "kubernetes.io/config.mirror"
"""The kubelet sets it on the pod that stands in the API for a static pod's file."""
SYSTEM = ("kube-", "openshift-")
"""How the names of the platform's own namespaces begin."""
REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
"""What the kubelet says of a container that waits for an image that could not be pulled. ErrImageNeverPull is no pull, and
InvalidImageName no reference."""
NOT_REPAIRED = "PendingPodNotRepaired"
"""The reason of the Event by which the webhook tells that it does not change a pod."""


class Projection(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A slotted, immutable part of a pod."""


class Owner(Projection, frozen=True):
    """An owner reference."""

    api_version: str = ""
    kind: str = ""

    @property
    def qualified(self) -> str:
        """`Kind.group`; a core kind has no group, and no dot."""
        group, slash, _ = self.api_version.rpartition("/")
        return f"{self.kind}.{group}" if slash else self.kind


class Waiting(Projection, frozen=True):
    """Why a container does not run."""

    reason: str = ""
    message: str = ""


class Present(Projection, frozen=True):
    """Whatever it says, it is there."""


class ContainerState(Projection, frozen=True):
    """One of the three is there."""

    waiting: Waiting | None = None
    running: Present | None = None
    terminated: Present | None = None


class ContainerStatus(Projection, frozen=True):
    """What the kubelet says of a container."""

    name: str = ""
    state: ContainerState | None = None
    last_state: ContainerState | None = None
    restart_count: int = 0

    @property
    def started(self) -> bool:
        """Whether it runs, or ran before."""
        seen = [state for state in (self.state, self.last_state) if state is not None]
        return self.restart_count > 0 or any(state.running or state.terminated for state in seen)

    @property
    def hang(self) -> Waiting | None:
        """What the kubelet says if the image cannot be pulled; None if it does not wait for an image."""
        waiting = self.state.waiting if self.state else None
        return waiting if waiting and waiting.reason in REASONS else None
