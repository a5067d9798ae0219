"""The kinds that are served, and where their rules hang."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from e2e.testbed.simulator.identity import ADMINISTRATOR
from e2e.testbed.simulator.store import Kind, Object, Store


@dataclass(frozen=True)
class Context:
    """Who asks for what."""

    store: Store
    namespace: str
    user: str = ADMINISTRATOR.user
    groups: tuple[str, ...] = ADMINISTRATOR.groups
    dry_run: bool = False


class Strategy:
    """What a kind does to objects on their way into the store; by default what a custom resource does."""

    unconditional_update = True
    """Whether a PUT may come without a resourceVersion."""

    def admit(self, item: Object, old: Object | None, context: Context) -> None:
        """What built-in plugins do to an object in place before webhooks are asked; `old` is None for a new one."""

    def prepare_create(self, item: Object, context: Context) -> None:
        """Complete and check a new object in place. Raises StatusError."""
        item["metadata"].setdefault("generation", 1)

    def prepare_update(self, new: Object, old: Object, context: Context) -> None:
        """Complete and check a changed object in place. Raises StatusError."""
        changed = new.get("spec") != old.get("spec")
        generation = old["metadata"].get("generation")
        if generation is not None:
            new["metadata"]["generation"] = generation + 1 if changed else generation

    def prepare_status_update(self, new: Object, old: Object, context: Context) -> None:
        """The same for a write to the status; everything else stays as it was."""
        status = new.get("status")
        metadata = old["metadata"]
        new.clear()
        new.update({**old, "metadata": dict(metadata)})
        if status is not None:
            new["status"] = status

    def decorate(self, item: Object) -> Object:
        """An object as readers see it; not to be changed in place."""
        return item


Handler = Callable[[Context, str, Any], Object]
"""(context, name, body) -> answer."""


@dataclass(frozen=True)
class Resource(Kind):
    """A kind that is served, with its rules."""

    has_status: bool = False
    short_names: tuple[str, ...] = ()
    strategy: Strategy = field(default_factory=Strategy, compare=False)
    stored: bool = field(default=True, compare=False)
    admitted: bool = field(default=False, compare=False)
    """Whether registered webhooks are asked."""
    create: Handler | None = field(default=None, compare=False)
    get: Handler | None = field(default=None, compare=False)
    delete: Handler | None = field(default=None, compare=False)
    subresources: dict[str, Handler] = field(default_factory=dict, compare=False)


ANONYMOUS = "system:anonymous"
DENIALS = Resource("", "v1", "configmaps", "ConfigMap")
"""Where a test says who may not do what."""
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False, has_status=True)
"""As an equal of what is served."""


class Registry:
    """The resources that this cluster serves."""

    def __init__(self) -> None:
        self._by_path: dict[tuple[str, str, str], Resource] = {}

    def add(self, resource: Resource) -> Resource:
        """Serve a resource."""
        self._by_path[resource.group, resource.version, resource.plural] = resource
        return resource

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource at a path, if it is served."""
        return self._by_path.get((group, version, plural))

    def remove(self, name: str) -> None:
        """Stop serving a resource (`imagetagmirrorsets`) or a whole group (`image.openshift.io`)."""
        gone = [path for path in self._by_path if name in (path[0], path[2])]
        if not gone:
            raise ValueError(f"no resource or group {name!r} is served")
        for path in gone:
            del self._by_path[path]

    def all(self) -> list[Resource]:
        """Every resource that is served."""
        return list(self._by_path.values())


def core_kinds(registry: Registry) -> None:
    """The kinds of Kubernetes and OpenShift's configuration that mirrorstream touches."""
    for plural, kind, namespaced, status in (
        ("namespaces", "Namespace", False, True),
        ("events", "Event", True, False),
        ("configmaps", "ConfigMap", True, False),
        ("secrets", "Secret", True, False),
        ("limitranges", "LimitRange", True, False),
    ):
        strategy = _NamespaceStrategy() if plural == "namespaces" else PlainStrategy()
        registry.add(Resource("", "v1", plural, kind, namespaced, status, strategy=strategy))
    for plural, kind in (("subjectaccessreviews", "SubjectAccessReview"), ("selfsubjectaccessreviews", "SelfSubjectAccessReview")):
        registry.add(Resource("authorization.k8s.io", "v1", plural, kind, False, stored=False, create=_review))
    for group, version, plural, kind, namespaced in (
        ("coordination.k8s.io", "v1", "leases", "Lease", True),
        ("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False),
        # Kept, not evaluated.
        ("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False),
        ("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False),
        ("operator.openshift.io", "v1alpha1", "imagecontentsourcepolicies", "ImageContentSourcePolicy", False),
        ("config.openshift.io", "v1", "imagedigestmirrorsets", "ImageDigestMirrorSet", False),
        ("config.openshift.io", "v1", "imagetagmirrorsets", "ImageTagMirrorSet", False),
        ("config.openshift.io", "v1", "images", "Image", False),
        ("config.openshift.io", "v1", "infrastructures", "Infrastructure", False),
    ):
        registry.add(Resource(group, version, plural, kind, namespaced, group == "config.openshift.io"))
    signature_policies(registry, "v1")


def signature_policies(registry: Registry, version: str) -> None:
    """Serve signature policies, which older releases have as v1alpha1 only, or not at all."""
    for plural, kind, namespaced in (("imagepolicies", "ImagePolicy", True), ("clusterimagepolicies", "ClusterImagePolicy", False)):
        registry.add(Resource("config.openshift.io", version, plural, kind, namespaced, has_status=True))


def _review(context: Context, name: str, body: Any) -> Object:
    """Everybody may do everything, unless a ConfigMap `denied` in the namespace names the user; nobody known nothing.

    A ConfigMap `allowed` there lets those in that it names.
    """
    spec = (body or {}).get("spec") or {}
    namespace = (spec.get("resourceAttributes") or {}).get("namespace", "")
    user = spec.get("user")
    named = [item for item in context.store.list(DENIALS, namespace)[1] if user in (item.get("data") or {}).values()]
    names = {item["metadata"]["name"] for item in named}
    allowed = "denied" not in names and (user != ANONYMOUS or "allowed" in names)
    typed = {"kind": (body or {}).get("kind") or "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
    return {**typed, "metadata": {}, "spec": spec, "status": {"allowed": allowed}}


class PlainStrategy(Strategy):
    """Core kinds have no generation."""

    def prepare_create(self, item: Object, context: Context) -> None:
        """Nothing to complete."""

    def prepare_update(self, new: Object, old: Object, context: Context) -> None:
        """Nothing to complete."""


class _NamespaceStrategy(PlainStrategy):
    """Namespaces are active at once."""

    def prepare_create(self, item: Object, context: Context) -> None:
        """Make it active and label it with its name."""
        item["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = item["metadata"]["name"]
        item.setdefault("spec", {"finalizers": ["kubernetes"]})
        item["status"] = {"phase": "Active"}
