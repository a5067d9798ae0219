"""Objects for the webhook's tests, as the API has them."""

import json
from collections.abc import Mapping
from typing import Any

from mirrorstream.imagestream.model import imagestream_from
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.runtime.settings import Settings
from mirrorstream_webhook.access import ANONYMOUS
from mirrorstream_webhook.claims import StreamClaims, stream_claims
from mirrorstream_webhook.decider import Decider
from mirrorstream_webhook.guards import Guards, SignaturePolicies, signature_policy_from
from mirrorstream_webhook.index import Index
from mirrorstream_webhook.patch import Rewriting
from mirrorstream_webhook.pods import pod_from

Object = dict[str, Any]
REGISTRY = "registry.svc:5000"
NOW = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""
SOURCE = "registry.example.com/team/app"
MIRROR_SET = {
    "kind": "ImageDigestMirrorSet",
    "metadata": {"name": "corp"},
    "spec": {"imageDigestMirrors": [{"source": "registry.example.com", "mirrors": ["mirror.corp:5000/up"]}]},
}


def digest(number: int) -> str:
    """A digest by its number."""
    return f"sha256:{number:064x}"


def item(reference: str, number: int, generation: int = 1) -> Object:
    """A tag event."""
    return {"dockerImageReference": reference, "image": digest(number), "generation": generation, "created": "2026-01-01T00:00:00Z"}


def imported(number: int, name: str = SOURCE, generation: int = 1) -> Object:
    """A tag event as the platform records it."""
    return item(f"{name}@{digest(number)}", number, generation)


def tag(
    name: str, source: str | None = f"{SOURCE}:v1", *items: Object, failure: str = "", generation: int = 1, **spec: Any
) -> tuple[Object, Object]:
    """A tag of spec and status; `failure` is the message of its ImportSuccess condition."""
    entry: Object = {"name": name, "generation": generation, "referencePolicy": {"type": "Local"}, **spec}
    if source is not None:
        entry["from"] = {"kind": "DockerImage", "name": source}
    status: Object = {"tag": name, "items": list(items)}
    if failure:
        condition = {"type": "ImportSuccess", "status": "False", "reason": "InternalError", "message": failure}
        status["conditions"] = [{**condition, "generation": generation}]
    return entry, status


def stream(name: str, *tags: tuple[Object, Object], namespace: str = "openshift", uid: str = "1", **metadata: Any) -> StreamClaims:
    """What an ImageStream with these tags claims."""
    document = {
        "metadata": {"name": name, "namespace": namespace, "uid": uid, **metadata},
        "spec": {"tags": [entry for entry, _ in tags]},
        "status": {"tags": [status for _, status in tags if status["items"] or status.get("conditions")]},
    }
    return stream_claims(imagestream_from(document))


def image_config(registry: str = REGISTRY, **sources: Any) -> Object:
    """The Image config with the internal registry's name, if there is one, and registrySources."""
    status = {"internalRegistryHostname": registry} if registry else {}
    return {"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"registrySources": sources}, "status": status}


def pod(*images: str, **spec: Any) -> Object:
    """A Pod document with the containers c0, c1 and so on, and the pull secret of its account if none is given."""
    spec = {"imagePullSecrets": [{"name": f"{spec.get('serviceAccountName', 'default')}-dockercfg-x7k2p"}], **spec}
    metadata = {"name": "pod", **spec.pop("metadata", {})}
    return {"metadata": metadata, "spec": {"containers": [{"name": f"c{n}", "image": i} for n, i in enumerate(images)], **spec}}


def settings(**webhook: Any) -> Settings:
    """Settings with a webhook section, and the `mode` and the sections `mirrors` and `controller` where they are given."""
    others = {name: webhook.pop(name) for name in ("mode", "mirrors", "controller") if name in webhook}
    return Settings.model_validate({**others, "webhook": webhook})


class Bed:
    """A Decider with streams and rules; `denied` are (stream's namespace, pod's namespace) without the right to pull."""

    def __init__(
        self,
        *streams: StreamClaims,
        rules: tuple[Object, ...] = (MIRROR_SET, image_config()),
        signatures: tuple[Object, ...] = (),
        **webhook: Any,
    ) -> None:
        self.denied: set[tuple[str, str]] = set()
        self.unknown = self.anonymous = False
        self.now = NOW
        self.asked: list[tuple[str, str, str, str]] = []
        self.index = Index()
        for entry in streams:
            self.index.apply(None, entry)
        chosen = settings(**webhook)
        self.decider = Decider(
            self.index, self._may_pull, chosen, own_namespace="mirrorstream", architecture="amd64", clock=lambda: self.now
        )
        policies = SignaturePolicies()
        for document in signatures:
            policies.apply(None, signature_policy_from(document))
        respect = chosen.webhook.respectImagePolicies
        self.decider.guards = Guards(MirrorPolicy.from_objects(rules), policies, respect=respect)

    def rules(self, *rules: Object) -> None:
        """Other rules from now on."""
        self.decider.guards = Guards(MirrorPolicy.from_objects(rules), SignaturePolicies(), respect=True)

    def _may_pull(self, namespace: str, name: str, pod_namespace: str, account: str) -> bool | None:
        self.asked.append((namespace, name, pod_namespace, account))
        if (pod_namespace, account) == ANONYMOUS:
            return self.anonymous
        return None if self.unknown else (namespace, pod_namespace) not in self.denied

    def review(self, new: Object, old: Object | None = None, *, namespace: str = "team", subresource: str = "") -> Rewriting:
        """The outcome for a Pod document."""
        return self.decider.pod(pod_from(new), pod_from(old) if old else None, namespace, subresource=subresource)

    def image(self, reference: str, namespace: str = "team", **spec: Any) -> tuple[str, str, str]:
        """Result, reason and target for a pod with one image."""
        (examined,) = self.review(pod(reference, **spec), namespace=namespace).images
        return examined.decision.result, examined.decision.reason, examined.decision.target


ANNOTATION = "mirrorstream.github.io/original-images"
OURS = f"{REGISTRY}/openshift/app@{digest(1)}"
AT_SOURCE = f"{SOURCE}@{digest(1)}"
HEALED = stream("app", tag("v1", f"{SOURCE}:v1", imported(1), failure="dial tcp: connect: connection refused"))


def hanging(
    *images: str,
    reason: str = "ImagePullBackOff",
    which: tuple[str, ...] = ("c0",),
    originals: Mapping[str, str] | str | None = None,
    states: Mapping[str, Object] | None = None,
    **spec: Any,
) -> Object:
    """A pod whose containers `which` hang; `states` are other containers' statuses."""
    document = pod(*images, **spec)
    document["metadata"] |= {"uid": "u", "resourceVersion": "7", "namespace": "team"}
    if originals is not None:
        text = originals if isinstance(originals, str) else json.dumps(originals)
        document["metadata"]["annotations"] = {ANNOTATION: text}
    names = {"containers": "containerStatuses", "initContainers": "initContainerStatuses"}
    document["status"] = {"phase": "Pending"}
    for field, found in names.items():
        document["status"][found] = [
            {"name": name, "restartCount": 0, "state": {"waiting": {"reason": reason if name in which else "PodInitializing"}}}
            | (states or {}).get(name, {})
            for name in (container["name"] for container in document["spec"].get(field, []))
        ]
    return document
