"""`mirrorstream explain --as-pod`: what the webhook would do with an image in a pod, asked beforehand."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from mirrorstream.commands.explain import is_reference, read_file
from mirrorstream.commands.output import print_document
from mirrorstream.commands.reading import cluster_objects
from mirrorstream.imagestreams import imagestream_from
from mirrorstream.kube.client import ApiError, Client, ConfigurationError, load_client
from mirrorstream.kube.credentials import own_namespace
from mirrorstream.kube.errors import ClientError
from mirrorstream.policy import MirrorPolicy
from mirrorstream.settings import Settings
from mirrorstream.sources import PATHS

from mirrorstream_webhook.access import ask
from mirrorstream_webhook.decide import Decider
from mirrorstream_webhook.guards import Guards, SignaturePolicies, signature_policy_from
from mirrorstream_webhook.lookup import Index, parse, stream_claims
from mirrorstream_webhook.patch import Result
from mirrorstream_webhook.pods import DISABLED, REWRITE_LABEL, pod_from

Object = dict[str, Any]
SIGNATURE_KINDS = ("ClusterImagePolicy", "ImagePolicy")


@dataclass(frozen=True, slots=True)
class ExplainedPod:
    """What a pod of `namespace` that names `reference` would get: `image`, and why."""

    reference: str
    namespace: str
    serviceAccount: str  # noqa: N815  spelled as in the JSON output
    result: str
    reason: str
    stream: str
    image: str


def run(args: argparse.Namespace) -> int:
    """Explain `args.subject` for a pod; the exit status. Raises ConfigurationError with one clear line."""
    if not args.namespace:
        raise ConfigurationError("--as-pod needs the pod's namespace: -n NS")
    if not is_reference(args.subject) and parse(args.subject) is None:
        raise ConfigurationError(f"{args.subject!r} is not an image")
    settings, notes = Settings(), ["decided with the default configuration"]
    namespaces = list(dict.fromkeys([args.namespace, *settings.webhook.sharedNamespaces]))
    try:
        client = None if args.file else load_client(args.kubeconfig, args.context)
        objects = (
            list(_from_cluster(client, namespaces, notes)) if client else [item for name in args.file for item in read_file(name)]
        )
        decider = _decider(objects, settings, client, notes)
        found = _explain(decider, args, opted_out=client is not None and _opted_out(client, args.namespace, notes))
    except ClientError as error:
        raise ConfigurationError(str(error)) from error
    if args.output == "text":
        sys.stdout.write(render(found, notes))
    else:
        print_document({"pod": asdict(found), "notes": notes}, args.output)
    return 0


def _from_cluster(client: Client, namespaces: list[str], notes: list[str]) -> Iterable[Object]:
    """Everything that the decision depends on."""
    config, image = "/apis/config.openshift.io/v1", "/apis/image.openshift.io/v1"
    streams = {f"imagestreams in {name}": (f"{image}/namespaces/{name}/imagestreams", "ImageStream") for name in namespaces}
    policies = {
        "clusterimagepolicies.config.openshift.io": (f"{config}/clusterimagepolicies", "ClusterImagePolicy"),
        "imagepolicies.config.openshift.io": (f"{config}/namespaces/{namespaces[0]}/imagepolicies", "ImagePolicy"),
    }
    yield from cluster_objects(client, {**PATHS, **streams, **policies}, notes)


def _decider(objects: list[Object], settings: Settings, client: Client | None, notes: list[str]) -> Decider:
    index, signatures = Index(), SignaturePolicies()
    for item in objects:
        kind, metadata = item.get("kind"), item["metadata"]
        try:
            if kind == "ImageStream":
                index.apply(None, stream_claims(imagestream_from(item)))
            elif kind in SIGNATURE_KINDS:
                signatures.apply(None, signature_policy_from(item))
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{kind} {metadata.get('namespace', '')}/{metadata.get('name')}: {error}") from error

    def may_pull(namespace: str, pod_namespace: str, account: str) -> bool | None:
        if client is None:
            notes.append("files do not say whether the service account may pull: taken for granted")
            return True
        try:
            return ask(client, (namespace, pod_namespace, account))
        except ApiError as error:
            if error.status != 403:
                raise
            notes.append(f"you may not ask whether the service account may pull: {error.message}")
            return None

    decider = Decider(index, may_pull, settings, own_namespace=own_namespace())
    decider.guards = Guards(MirrorPolicy.from_objects(objects), signatures, respect=settings.webhook.respectImagePolicies)
    return decider


def _opted_out(client: Client, namespace: str, notes: list[str]) -> bool:
    """Whether the namespace's label keeps the API server from asking the webhook."""
    try:
        labels = client.get(f"/api/v1/namespaces/{namespace}")["metadata"].get("labels") or {}
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        notes.append(f"the namespace's labels cannot be read: {error.message}")
        return False
    return bool(labels.get(REWRITE_LABEL) == DISABLED)


def _explain(decider: Decider, args: argparse.Namespace, *, opted_out: bool) -> ExplainedPod:
    spec = {"containers": [{"name": "c", "image": args.subject}], "serviceAccountName": args.service_account}
    (examined,) = decider.pod(pod_from({"metadata": {}, "spec": spec}), None, args.namespace).images
    decision = examined.decision
    who = (args.subject, args.namespace, args.service_account)
    if opted_out:
        return ExplainedPod(*who, Result.OPTED_OUT, "the namespace's label says so", decision.stream, args.subject)
    return ExplainedPod(*who, decision.result, decision.reason, decision.stream, decision.target or args.subject)


def render(found: ExplainedPod, notes: list[str]) -> str:
    """The text for people."""
    lines = [f"{found.reference}  in a pod of {found.namespace}, as service account {found.serviceAccount}"]
    lines.append(f"  Becomes: {found.image}" if found.image != found.reference else "  Stays as it is")
    lines.append(f"  Why:     {found.reason} ({found.result})")
    lines += [f"  Tag:     {found.stream}"] if found.stream else []
    return "\n".join([*lines, *(f"Note: {note}" for note in notes)]) + "\n"
