"""What the kubelet knows of a pod whose images it pulls, and how it says that in the pod's status. Nothing here reads or writes."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mirrorstream.rules.references import parse_reference

Object = dict[str, Any]
LONGEST = 30
"""The longest wait between two pulls, in first waits: the kubelet has 10 s and 300 s."""
SHOWN_AFTER = 0.1
"""After which part of the first wait ErrImagePull becomes ImagePullBackOff: the next look at the pod."""


def now() -> str:
    """The present second, as statuses have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@dataclass(frozen=True)
class Pull:
    """What came of a pull: the digest, or why not, in the kubelet's words."""

    digest: str = ""
    reason: str = ""
    message: str = ""


@dataclass
class BackOff:
    """An image that could not be pulled: until when it is not tried again (monotonic), and whether that is what is shown."""

    pull: Pull
    wait: float
    until: float
    shown_from: float
    shown: bool = False

    @staticmethod
    def after(known: "BackOff | None", pull: Pull, first: float) -> "BackOff":
        """The wait after one more failure."""
        wait = min(known.wait * 2, first * LONGEST) if known else first
        failed = time.monotonic()
        return BackOff(pull, wait, failed + wait, failed + first * SHOWN_AFTER)

    def waiting(self, image: str) -> Object:
        """The container's state."""
        if not self.shown or self.pull.reason in ("InvalidImageName", "ErrImageNeverPull"):
            return {"reason": self.pull.reason, "message": self.pull.message}
        message = f'Back-off pulling image "{image}": {self.pull.reason}: {self.pull.message}'
        return {"reason": "ImagePullBackOff", "message": message}


@dataclass
class Started:
    """A container that was started: with which image, and how often again."""

    image: str
    digest: str
    restarts: int = 0
    at: str = field(default_factory=now)


@dataclass
class PodState:
    """One pod's. Back-offs go by image, as the kubelet's do: another image is pulled at once.

    `failed` names the containers whose pull failed: of two containers with the same image, only the one that pulled.
    """

    back_offs: dict[str, BackOff] = field(default_factory=dict)
    started: dict[str, Started] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    written: Object | None = None
    since: str = field(default_factory=now)

    def start(self, container: Object, digest: str) -> None:
        """Start a container, or start it again with another image."""
        before = self.started.get(container["name"])
        self.started[container["name"]] = Started(container["image"], digest, before.restarts + 1 if before else 0)
        self.back_offs.pop(container["image"], None)

    def next_look(self) -> float:
        """In how many seconds something is due; 0 when nothing is."""
        present = time.monotonic()
        due = [moment for known in self.back_offs.values() for moment in (known.until, known.shown_from) if moment > present]
        return min(due) - present if due else 0


def containers(pod: Object, state: PodState) -> Iterator[Object]:
    """The containers whose turn it is, and whose image is not the one that runs: init containers one by one, then all others."""
    for container in pod["spec"].get("initContainers") or []:
        if not _runs(container, state):
            yield container
            if not _runs(container, state):
                return
    for container in pod["spec"]["containers"]:
        if not _runs(container, state):
            yield container


def images(pod: Object) -> list[str]:
    """All images of a pod's spec, in order."""
    spec = pod["spec"]
    return [str(container.get("image")) for container in [*(spec.get("initContainers") or []), *spec["containers"]]]


def _runs(container: Object, state: PodState) -> bool:
    started = state.started.get(container["name"])
    return started is not None and started.image == container["image"]


def status(pod: Object, state: PodState) -> Object:
    """The pod's status."""
    init = pod["spec"].get("initContainers") or []
    initialised = all(container["name"] in state.started for container in init)
    inits = [_container(container, state, ended=container.get("restartPolicy") != "Always") for container in init]
    waiting = "ContainerCreating" if initialised and not init else "PodInitializing"
    mains = [_container(container, state, waiting=waiting) for container in pod["spec"]["containers"]]
    ready = initialised and all(entry["ready"] for entry in mains)
    conditions = {"PodScheduled": True, "Initialized": initialised, "ContainersReady": ready, "Ready": ready}
    all_started = initialised and all("waiting" not in entry["state"] for entry in mains)
    return {
        "phase": "Running" if all_started else "Pending",
        "startTime": state.since,
        "conditions": [{"type": kind, "status": "True" if true else "False"} for kind, true in conditions.items()],
        "containerStatuses": mains,
        **({"initContainerStatuses": inits} if inits else {}),
    }


def _container(container: Object, state: PodState, *, ended: bool = False, waiting: str = "PodInitializing") -> Object:
    started = state.started.get(container["name"])
    known = state.back_offs.get(container["image"]) if container["name"] in state.failed else None
    entry: Object = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0, "ready": False}
    if started is None:
        shown = known.waiting(container["image"]) if known else {"reason": waiting}
        return {**entry, "started": False, "state": {"waiting": shown}}
    how: Object = {"running": {"startedAt": started.at}}
    if ended:
        how = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": started.at, "finishedAt": started.at}}
    image_id = f"{parse_reference(started.image).name}@{started.digest}"
    more = {"image": started.image, "imageID": image_id, "restartCount": started.restarts, "ready": True, "started": not ended}
    return {**entry, **more, "state": how}
