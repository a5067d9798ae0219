"""Reading what `status` tells of pods that hang, with the caller's rights: a right that is missing is named in a note."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mirrorstream.diagnose.hanging_pods import Claims, HangingPod, Known, Pod, decode_pod, hanging_pods
from mirrorstream.diagnose.pods import DISABLED, NOT_REPAIRED, REWRITE_LABEL
from mirrorstream.diagnose.tag_status import TagState, tag_states
from mirrorstream.imagestream.model import ImageStream
from mirrorstream.imagestream.outcomes import StreamEvent, decode_event
from mirrorstream.kube.client import ApiError
from mirrorstream.kube.errors import ClientError, is_transient
from mirrorstream.kube.pager import read_all

from mirrorstream_cli.reader import Reader
from mirrorstream_cli.single_objects import namespace_labels

if TYPE_CHECKING:
    from mirrorstream_webhook.guards import SignaturePolicies

MAX_NAMESPACES = 50
"""How many namespaces of hanging pods are read, to see whether they opted out."""


def read_hanging(reader: Reader, streams: Sequence[ImageStream], tags: Iterable[TagState]) -> tuple[HangingPod, ...] | None:
    """The pods that hang on an image of a Local tag of `streams`, or of shared ones; None if pods cannot be seen.

    Raises ClientError.
    """
    try:
        pods = _pending(reader)
        if not pods:
            return None if pods is None else ()
        shared, states = _shared(reader)
        opted_out = frozenset(_opted_out(reader, pods))
        guard = _signature_policies(reader).guard
        known = Known(reader.settings, opted_out, reader.policy, _told(reader), guard, reader.is_hosted)
    except ClientError as error:
        if not is_transient(error):
            raise
        # As with the Images, it is the last that is asked for, perhaps after minutes of waiting.
        reader.note(f"which pods hang is not known: {error}")
        return None
    return hanging_pods(pods, Claims([*streams, *shared]), [*tags, *states], known)


def _pending(reader: Reader) -> list[Pod] | None:
    """The pods whose containers hang on a pull; None if pods may not be listed."""
    params = {"fieldSelector": "status.phase=Pending"}
    try:
        pods = read_all(reader.client, reader.path("/api/v1", "pods"), decode_pod, params=params)
    except ApiError as error:
        if error.status != 403:
            raise
        reader.note(f"you may not list pods, so which pods hang is not known: {error.message}")
        return None
    return [pod for pod in pods if any(pod.hanging())]


def _shared(reader: Reader) -> tuple[list[ImageStream], list[TagState]]:
    """The streams of shared namespaces that were not read, and how their tags stand."""
    streams: list[ImageStream] = []
    states: list[TagState] = []
    for namespace in reader.settings.webhook.sharedNamespaces if reader.namespace else ():
        if namespace == reader.namespace:
            continue
        other = Reader(reader.client, namespace, reader.notes)
        try:
            found = other.streams()
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            reader.note(f"you may not list imagestreams in {namespace}, so pods that hang on an image of its tags are not listed")
            continue
        controller_view, _ = other.controller_view()
        policy, _ = other.rules(controller_view)
        history = other.history()
        streams += found
        states += [state for stream in found for state in tag_states(stream, policy, history, controller_view)]
    return streams, states


def _opted_out(reader: Reader, pods: Iterable[Pod]) -> Iterable[str]:
    """The namespaces of pods whose label keeps the webhook away."""
    names = sorted({pod.metadata.namespace for pod in pods})
    if len(names) > MAX_NAMESPACES:
        reader.note(f"only {MAX_NAMESPACES} of {len(names)} namespaces with hanging pods were asked whether they opted out")
    for name in names[:MAX_NAMESPACES]:
        try:
            labels = namespace_labels(reader.client, name)
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            reader.note(f"you may not get namespace {name!r}, so whether it opted out is not known")
        else:
            if labels.get(REWRITE_LABEL) == DISABLED:
                yield name


def _signature_policies(reader: Reader) -> "SignaturePolicies":
    """Those that count for the pods; a kind or version that the cluster does not serve has none."""
    from mirrorstream_webhook.guards import SignaturePolicies, decode_signature_policy, signature_paths  # noqa: PLC0415  only where pods hang

    found = SignaturePolicies()
    if not reader.settings.webhook.respectImagePolicies:
        return found
    refused: dict[str, str] = {}
    for kind, _, path in signature_paths(reader.namespace or ""):
        try:
            for policy in read_all(reader.client, path, decode_signature_policy):
                found.apply(None, policy)
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            if error.status == 403:
                refused[kind] = error.message
    for kind, message in refused.items():
        reader.note(f"you may not list {kind}, so whether one keeps pods from being changed is not known: {message}")
    return found


def _told(reader: Reader) -> dict[str, str]:
    """What Events say of pods that the webhook did not change, by the pod's uid; the latest of each."""
    selector = f"involvedObject.kind=Pod,reason={NOT_REPAIRED}"
    try:
        events = read_all(reader.client, reader.path("/api/v1", "events"), decode_event, params={"fieldSelector": selector})
    except ApiError as error:
        if error.status != 403:
            raise
        reader.note("you may not list Events, so which pods mirrorstream may not change is not known")
        return {}
    return {event.involved_object.uid: event.message for event in sorted(events, key=_at)}


def _at(event: StreamEvent) -> str:
    return event.at
