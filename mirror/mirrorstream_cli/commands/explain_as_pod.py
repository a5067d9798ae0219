"""`mirrorstream explain --as-pod`: what the webhook would do with an image in a pod, asked beforehand.

It decides with what the webhook decides with. What the caller may not read is said, and never taken for what is not there: where
the answer depends on it there is none.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
from mirrorstream.diagnose.pods import DISABLED, REWRITE_LABEL
from mirrorstream.imagestream.model import imagestream_from
from mirrorstream.kube.answers import decode_object
from mirrorstream.kube.client import ApiError, Client, ConfigurationError, load_client
from mirrorstream.kube.credentials import own_namespace
from mirrorstream.kube.errors import ClientError, UsageError
from mirrorstream.kube.pager import read_all
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_or_none
from mirrorstream.rules.source import PATHS
from mirrorstream.runtime.settings import Settings, SettingsError, parse_settings, read_settings
from mirrorstream.text.terminal import Line, line, notes
from mirrorstream_webhook.access import ask
from mirrorstream_webhook.claims import stream_claims
from mirrorstream_webhook.decider import Decider
from mirrorstream_webhook.guards import CLUSTER_KIND, Guards, SignaturePolicies, signature_paths, signature_policy_from
from mirrorstream_webhook.index import Index
from mirrorstream_webhook.patch import Result
from mirrorstream_webhook.pods import pod_from, pull_secret_prefix

from mirrorstream_cli.commands.explain import is_reference
from mirrorstream_cli.object_files import read_files
from mirrorstream_cli.output import print_document, print_lines
from mirrorstream_cli.reader import DEFAULTS_NOTE
from mirrorstream_cli.single_objects import USER_AGENT, configuration, namespace_labels, pull_secrets

Object = dict[str, Any]
SIGNATURE_KINDS = ("ClusterImagePolicy", "ImagePolicy")
LABEL_WIDTH = len("Becomes:")


@dataclass(frozen=True, slots=True)
class ExplainedPod:
    """What a pod of `namespace` that names `reference` would get: `image`, by which way, and why.

    `other` says why a way that webhook.serveFrom has earlier is not taken.
    """

    reference: str
    namespace: str
    serviceAccount: str  # noqa: N815  spelled as in the JSON output
    result: str
    reason: str
    stream: str
    image: str
    way: str = ""
    other: str = ""


@dataclass(slots=True)
class Known:
    """What the decision depends on, and what is to be said of it; `refused` names the rights that are missing, in order."""

    settings: Settings
    objects: list[Object] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    opted_out: bool = False
    notes: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """What may not be read, and how the API server says so."""

    def refuse(self, what: str, error: ApiError) -> None:
        """Remember a refusal. Raises any other error."""
        if error.status != 403:
            raise error
        self.refused[what] = error.message

    def malformed(self, kind: str) -> Callable[[str], None]:
        """What is called with the error of each object of `kind` that cannot be read."""
        return lambda why: self.notes.append(f"an object of kind {kind} cannot be read and is left out: {why}")


def run(args: argparse.Namespace) -> int:
    """Explain `args.subject` for a pod; the exit status. Raises ConfigurationError with one clear line."""
    if not args.namespace:
        raise UsageError("--as-pod needs the pod's namespace: -n NS")
    if not is_reference(args.subject) and parse_or_none(args.subject) is None:
        raise ConfigurationError(f"{args.subject!r} is not an image")
    try:
        client = None if args.file else load_client(args.kubeconfig, args.context, user_agent=USER_AGENT)
        known = _of_cluster(client, args) if client else _of_files(args)
        found = _explain(_decider(known, client), known, args)
    except (SettingsError, ClientError) as error:
        raise ConfigurationError(str(error)) from error
    if known.refused:
        raise ConfigurationError(
            "cannot tell what the webhook would do: you may not "
            + "; ".join(f"{what}: {message}" for what, message in known.refused.items())
        )
    if args.output == "text":
        print_lines(render(found, known.notes))
    else:
        print_document({"pod": asdict(found), "notes": known.notes}, args.output)
    return 0


def _of_files(args: argparse.Namespace) -> Known:
    """What files tell; the rest is taken for granted, and said."""
    found = read_files(args.file)
    known = Known(read_settings(args.config), found.objects, notes=found.notes)
    if args.config is None:
        known.notes.append("decided with the default configuration")
    if not any(item.get("kind") == "Image" for item in known.objects):
        known.notes.append("the files have no Image config: decided as where there is no internal registry")
    known.secrets = [pull_secret_prefix(args.service_account)]
    known.notes.append("files do not say whether the service account may pull, and has its pull secret: taken for granted")
    return known


def _of_cluster(client: Client, args: argparse.Namespace) -> Known:
    """Everything that the decision depends on."""
    notes: list[str] = []
    settings = read_settings(args.config) if args.config is not None else _configuration(client, notes)
    known = Known(settings, notes=notes)
    image = "/apis/image.openshift.io/v1"
    resources = [(name, *found) for name, found in PATHS.items()]
    namespaces = dict.fromkeys([args.namespace, *settings.webhook.sharedNamespaces])
    resources += [(f"imagestreams in {name}", f"{image}/namespaces/{name}/imagestreams", "ImageStream") for name in namespaces]
    if settings.webhook.respectImagePolicies:
        for kind, _, path in signature_paths(args.namespace):
            resource = f"{path.rpartition('/')[2]}.config.openshift.io"
            resources.append((resource if kind == CLUSTER_KIND else f"{resource} in {args.namespace}", path, kind))
    known.objects = list(_read(client, resources, known))
    known.opted_out = _opted_out(client, args.namespace, known)
    known.secrets = _pull_secrets(client, args.namespace, args.service_account, known)
    return known


def _configuration(client: Client, notes: list[str]) -> Settings:
    """The cluster's own configuration. Raises SettingsError."""
    if (found := configuration(client)) is None:
        notes.append(DEFAULTS_NOTE)
        return Settings()
    notes += found.notes
    return parse_settings(found.text, found.where)


def _read(client: Client, resources: Iterable[tuple[str, str, str]], known: Known) -> Iterable[Object]:
    """All objects of some resources, each a name, a path and a kind; a kind that the cluster does not serve has none."""
    for resource, path, kind in resources:
        try:
            items = read_all(client, path, decode_object, on_malformed=known.malformed(kind))
        except ApiError as error:
            if error.status != 404:
                known.refuse(f"list {resource}", error)
            continue
        yield from ({**item, "kind": kind} for item in items)


def _opted_out(client: Client, namespace: str, known: Known) -> bool:
    """Whether the namespace's label keeps the API server from asking the webhook. Raises ClientError, also if there is none."""
    try:
        labels = namespace_labels(client, namespace)
    except ApiError as error:
        known.refuse(f"get namespace {namespace}, whose label may opt out", error)
        return False
    return bool(labels.get(REWRITE_LABEL) == DISABLED)


def _pull_secrets(client: Client, namespace: str, account: str, known: Known) -> list[str]:
    """The pull secrets that ServiceAccount admission would give the pod."""
    try:
        return pull_secrets(client, namespace, account)
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        known.notes.append(
            f"whether service account {account} has its pull secret is not known, and taken for granted: {error.message}"
        )
        return [pull_secret_prefix(account)]


def _decider(known: Known, client: Client | None) -> Decider:
    index, signatures = Index(), SignaturePolicies()
    for item in known.objects:
        kind, metadata = item.get("kind"), item["metadata"]
        try:
            if kind == "ImageStream":
                index.apply(None, stream_claims(imagestream_from(item)))
            elif kind in SIGNATURE_KINDS:
                signatures.apply(None, signature_policy_from(item))
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{kind} {metadata.get('namespace', '')}/{metadata.get('name')}: {error}") from error

    def may_pull(*question: str) -> bool | None:
        if client is None:
            return any(question[2:])
        try:
            return ask(client, (question[0], question[1], question[2], question[3]))
        except ApiError as error:
            known.refuse("create subjectaccessreviews, which tell whether the service account may pull", error)
            return None

    settings = known.settings
    decider = Decider(index, may_pull, settings, own_namespace=own_namespace())
    decider.guards = Guards(MirrorPolicy.from_objects(known.objects), signatures, respect=settings.webhook.respectImagePolicies)
    return decider


def _explain(decider: Decider, known: Known, args: argparse.Namespace) -> ExplainedPod:
    spec = {
        "containers": [{"name": "c", "image": args.subject}],
        "serviceAccountName": args.service_account,
        "imagePullSecrets": [{"name": name} for name in known.secrets],
    }
    (examined,) = decider.pod(pod_from({"metadata": {}, "spec": spec}), None, args.namespace).images
    decision = examined.decision
    who = (args.subject, args.namespace, args.service_account)
    if known.opted_out:
        return ExplainedPod(*who, Result.OPTED_OUT, "the namespace's label says so", decision.stream, args.subject)
    target = decision.target or args.subject
    return ExplainedPod(*who, decision.result, decision.reason, decision.stream, target, decision.way, decision.other)


def render(found: ExplainedPod, notes_: list[str]) -> list[Line]:
    """The text for people."""
    image = found.image if found.image != found.reference else ""
    said = {
        "Becomes": image,
        "Why": f"{found.reason} ({found.result})",
        "Way": found.way,
        "Not by": found.other,
        "Tag": found.stream,
    }
    lines = [line(f"{found.reference}  in a pod of {found.namespace}, as service account {found.serviceAccount}")]
    lines += [] if image else [line("Stays as it is", indent=2)]
    hang = 2 + LABEL_WIDTH + 1
    lines += [line(f"{name + ':':<{LABEL_WIDTH}} {text}", indent=2, hang=hang) for name, text in said.items() if text]
    return [*lines, *notes(notes_)]
