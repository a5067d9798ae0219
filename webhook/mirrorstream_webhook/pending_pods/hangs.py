"""Pods that hang on a pull: what is kept of them, which of their images may be replaced, and by what. Pure.

Only what has not started is changed, and only to a digest: of the internal registry's stream that the original reference belongs
to, or of the original's own repository, which the node pulls from its mirror.
"""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping

import msgspec
from mirrorstream.diagnose.pods import ContainerStatus, Projection
from mirrorstream.rules.references import MAXIMUM_LENGTH, Reference
from mirrorstream.text.sanitize import one_line, shortened

from mirrorstream_webhook.claims import parse_again
from mirrorstream_webhook.patch import Decision, Result, Way, read_originals
from mirrorstream_webhook.pods import REPAIRED_LABEL, TRUE, VOLUME, Annotations, Pod, Slot, decode_pod, slots

FAILED_NOW = frozenset({"ErrImagePull", "RegistryUnavailable"})
"""What it says just after a pull has failed; ImagePullBackOff follows a moment later."""
PATIENCE_SECONDS, PATIENCE_LIMIT = 3.0, 300.0
"""How long a reference of ours hangs before it gets the next way, doubled at each change: with everything down nothing may flap."""
BACKOFF_SECONDS, BACKOFF_LIMIT, SYNC_SECONDS = 10.0, 300.0, 16.0
"""The kubelet's own back-off between pulls, doubled at each failure, and the longest time from its end to the next pull."""
_BACKED_OFF = re.compile(r'Back-off pulling image "([^"]*)"')
_CHANGEABLE = ("/spec/containers/", "/spec/initContainers/")
NO_WAY: frozenset[Way] = frozenset()

Decide = Callable[[str, frozenset[Way]], Decision]
"""(reference, ways that are not to be taken) -> what is done about it in this pod."""


class _ContainerStatus(ContainerStatus, frozen=True):
    @property
    def reason(self) -> str:
        """Why it hangs; empty if it does not."""
        return self.hang.reason if self.hang and not self.started else ""

    def is_of(self, images: Collection[str]) -> bool:
        """Whether its reason is one of these images': while the kubelet pulls a new image, it still names the old one."""
        waiting = self.state.waiting if self.state else None
        named = _BACKED_OFF.match(waiting.message) if waiting else None
        return named is None or named[1] in images


class _Labels(Projection, frozen=True, rename={"repaired": REPAIRED_LABEL}):
    repaired: str = ""


class _Metadata(Projection, frozen=True):
    uid: str = ""
    labels: _Labels | None = None
    resource_version: str = ""
    deletion_timestamp: str | None = None


class _Status(Projection, frozen=True):
    phase: str = ""
    container_statuses: tuple[_ContainerStatus, ...] | None = None
    init_container_statuses: tuple[_ContainerStatus, ...] | None = None


class _Document(Projection, frozen=True):
    metadata: _Metadata = _Metadata()
    status: _Status = _Status()


_decode_document = msgspec.json.Decoder(_Document).decode


class PendingPod(msgspec.Struct, frozen=True):
    """A pending pod. Of one that does not hang nothing is kept.

    `pod` has no annotation of ours: a tenant can write 256 kB into it. `originals` has what it says of places that the pod has;
    `annotated` and `labelled` are whether there are annotations and labels at all, `repaired` whether our label is true.
    `hangs` has the reason for each container that hangs.
    """

    uid: str = ""
    version: str = ""
    pod: Pod = Pod()
    originals: Mapping[str, str] = msgspec.field(default_factory=dict)
    annotated: bool = False
    has_ours: bool = False
    labelled: bool = False
    repaired: bool = False
    hangs: Mapping[str, str] = msgspec.field(default_factory=dict)
    outdated: frozenset[str] = frozenset()
    """Those whose reason is still that of the image before."""
    started: frozenset[str] = frozenset()

    def images(self) -> tuple[str, ...]:
        """Every image that could be replaced, in order."""
        return tuple(slot.image for slot in changeable(self))


QUIET = PendingPod()
"""Every pending pod that does not hang."""


def read_pending(raw: bytes) -> PendingPod:
    """Project a pod's JSON. Raises msgspec.ValidationError."""
    document = _decode_document(raw)
    status = document.status
    statuses = [*(status.init_container_statuses or ()), *(status.container_statuses or ())]
    hangs = {found.name: found.reason for found in statuses if found.reason}
    if not hangs or document.metadata.deletion_timestamp or status.phase not in ("", "Pending"):
        return QUIET
    pod = decode_pod(raw)
    annotations, labels = pod.metadata.annotations, document.metadata.labels
    text = annotations.originals if annotations else None
    places = {slot.name for slot in slots(pod)}
    originals = {name: image for name, image in read_originals(text).items() if name in places and 0 < len(image) <= MAXIMUM_LENGTH}
    if text is not None:
        pod = msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, annotations=Annotations()))
    images = {slot.name: slot.image for slot in slots(pod)}
    # The kubelet tells of a volume's image as the reason of a container.
    volumes = {image for name, image in images.items() if name.startswith(VOLUME)}
    return PendingPod(
        uid=document.metadata.uid,
        version=document.metadata.resource_version,
        pod=pod,
        originals=originals,
        annotated=annotations is not None,
        has_ours=text is not None,
        labelled=labels is not None,
        repaired=labels is not None and labels.repaired == TRUE,
        hangs=hangs,
        outdated=frozenset(
            found.name for found in statuses if found.reason and not found.is_of({images.get(found.name, ""), *volumes})
        ),
        started=frozenset(found.name for found in statuses if found.started),
    )


def changeable(pending: PendingPod) -> Iterator[Slot]:
    """The places whose image the API server lets change, and that have not started; ephemeral containers have another door."""
    for slot in slots(pending.pod):
        if slot.pointer.startswith(_CHANGEABLE) and slot.name not in pending.started and not slot.never_pulled:
            yield slot


class Hang(msgspec.Struct, frozen=True, gc=False):
    """How long a container hangs with its image, in seconds of a monotonic clock; `failures` of its pull were seen.

    `since` is infinite while nobody knows whether the image has failed, or only the one before.
    """

    image: str
    since: float
    failed: float
    failures: int = 0

    def pulls_until(self, now: float) -> float:
        """For how many seconds the kubelet may be pulling the image again; 0 if its back-off runs, or nobody can say.

        A change in the middle of a pull that succeeds costs a restart of the container.
        """
        if not self.failures:
            return 0.0
        begins = self.failed + min(BACKOFF_SECONDS * 2 ** min(self.failures - 1, 10), BACKOFF_LIMIT)
        return begins + SYNC_SECONDS - now if begins - 1.0 <= now < begins + SYNC_SECONDS else 0.0


def follow_hangs(known: Mapping[str, Hang], old: Mapping[str, str] | None, pending: PendingPod, now: float) -> dict[str, Hang]:
    """Take over a pod as it is now; `old` has the reasons before, None if they are not known."""
    images = {slot.name: slot.image for slot in changeable(pending)}
    found = {}
    for name, reason in pending.hangs.items():
        if (image := images.get(name)) is None or name in pending.outdated:
            continue
        before, moved = known.get(name), old is None or old.get(name) != reason
        if before is None:
            before = Hang(image, now, now)
        elif before.image != image:
            before = Hang(image, now if moved or reason not in FAILED_NOW else math.inf, now)
        elif moved and before.since == math.inf:
            before = msgspec.structs.replace(before, since=now)
        # Of a failure at once followed by the back-off the API server may see the second only.
        if old is not None and moved and (reason in FAILED_NOW or name not in old):
            before = msgspec.structs.replace(before, failed=now, failures=before.failures + 1)
        found[name] = before
    return found


class Change(msgspec.Struct, frozen=True, gc=False):
    """One image and what it becomes; `original` is what the pod's author wrote."""

    slot: Slot
    original: str
    target: str
    stream: str

    def __str__(self) -> str:
        return f"{self.slot.name}: {self.slot.image} -> {self.target} ({self.stream})"


class Plan(msgspec.Struct, frozen=True):
    """What is done about a pod: `changes`, or nothing; `told` is what its owner has to know.

    `again` is after how many seconds another answer may be due because of the time alone; 0 if none is. `next_way` is whether the
    changes take another way for a reference that was ours before.
    """

    changes: tuple[Change, ...] = ()
    told: tuple[str, ...] = ()
    again: float = 0.0
    next_way: bool = False


def plan(pending: PendingPod, decide: Decide, hangs: Mapping[str, Hang], now: float, *, switches: int = 0) -> Plan:
    """Decide about a pod that hangs; `switches` is how often it got another way already."""
    places = [_Place(slot, pending, decide) for slot in changeable(pending)]
    told = [text for slot in slots(pending.pod) if (text := _volume(slot, decide))]
    patience = min(PATIENCE_SECONDS * 2 ** min(switches, 10), PATIENCE_LIMIT)
    waits, ways = [], set()
    for place in places:
        hang = hangs.get(place.slot.name)
        # Where a volume is what hangs, another way for the containers does not help.
        if hang is None or not place.ours or place.tagged or told:
            continue
        if (left := hang.since + patience - now) > 0:
            waits.append(left)
        else:
            ways.add(place.ours)
    changes, next_way = [], False
    for place in places:
        decision = place.decide(ways)
        if decision is None:
            continue
        hang = hangs.get(place.slot.name)
        if place.ours and hang and (left := hang.pulls_until(now)):
            waits.append(left)
            continue
        if text := place.problem(decision):
            told.append(text)
            continue
        changes.append(Change(place.slot, place.original, decision.target, decision.stream))
        next_way = next_way or bool(place.ours and not place.tagged)
    return Plan(tuple(changes), tuple(told), min(waits, default=0.0), next_way)


class _Place:
    """A place in a pod, and whose reference is there now: ours, by which way, or the author's.

    The annotation counts only where the present image is the internal registry's, or a digest of the same repository: pods are
    copied with the annotations of others.
    """

    def __init__(self, slot: Slot, pending: PendingPod, decide: Decide) -> None:
        self.slot = slot
        self.original = slot.image
        self.ours: Way | None = None
        self.tagged = False
        self._decide = decide
        self._present = parse_again(slot.image)
        self._internal = decide(slot.image, NO_WAY).result is Result.INTERNAL
        original = pending.originals.get(slot.name, "")
        source = parse_again(original) if original else None
        if self._present is None or source is None:
            return
        if self._internal:
            self.ours = Way.REGISTRY
        elif self._present.digest and self._present.name == source.name and self._present != source:
            self.ours = Way.DIGEST
        else:
            return
        self.original, self._source = original, source
        self.tagged = not self._present.digest

    def decide(self, due: set[Way]) -> Decision | None:
        """What the place gets; None if it stays. `due` are the ways that have hung for long enough."""
        if self._present is None or (self._internal and not self.ours):
            return None
        if not self.ours or self.tagged:
            decision = self._of(self.original, NO_WAY)
            if self.tagged and decision and decision.stream != self._stream(with_tag=True):
                return None
        elif self.ours in due:
            decision = self._next_way(self.ours, self._source, self._present)
        else:
            return None
        return decision if decision and decision.target != self.slot.image else None

    def _of(self, text: str, without: frozenset[Way]) -> Decision | None:
        """The decision if it names a digest."""
        decision = self._decide(text, without)
        if decision.result is not Result.REWRITTEN or "@" not in decision.target:
            return None
        if self._foreign(decision) and Way.DIGEST not in without:
            return self._of(text, without | {Way.DIGEST}) or decision
        return decision

    def _next_way(self, way: Way, source: Reference, present: Reference) -> Decision | None:
        """The same digest by another way: a digest never becomes another."""
        without = frozenset({way})
        for text in (self.original, f"{source.name}@{present.digest}"):
            decision = self._of(text, without)
            if decision is None or (way is Way.REGISTRY and decision.stream.rpartition(":")[0] != self._stream()):
                continue
            if decision.target.endswith(f"@{present.digest}"):
                return decision
        return None

    def _stream(self, *, with_tag: bool = False) -> str:
        """`namespace/stream[:tag]` of a reference of the internal registry's."""
        assert self._present is not None  # noqa: S101  asked of references that parse only
        return self._present.path + (f":{self._present.tag}" if with_tag else "")

    def _foreign(self, decision: Decision) -> bool:
        """Whether it is the digest of another repository, a mirror's own: no pod's image may be changed to that."""
        target, source = parse_again(decision.target), parse_again(self.original)
        return decision.way == Way.DIGEST and (target is None or source is None or target.name != source.name)

    def problem(self, decision: Decision) -> str:
        """Why the image is not replaced though it could be served; empty if it is."""
        if self._foreign(decision):
            return (
                f"{self.slot.name}: {self.slot.image} can be served as {decision.target} only, which is not put into a pod that is "
                "there already: create the pod again"
            )
        return ""


def _volume(slot: Slot, decide: Decide) -> str:
    """What to say of an image volume that could be served; empty for anything else."""
    if not slot.name.startswith(VOLUME) or not decide(slot.image, NO_WAY).target:
        return ""
    return f"{slot.name}: {slot.image} can be served by now, but the image of a volume can't be changed: create the pod again"


def refusal(message: str) -> str:
    """What the owner of a pod is told when the API server refuses its change."""
    if "security context constraint" in message:
        return (
            "it may not be changed: its security context was admitted by a right of its creator, which neither its service "
            "account nor mirrorstream has; create the pod again"
        )
    return f"its change was refused: {shortened(one_line(message), 400)}; create the pod again"
