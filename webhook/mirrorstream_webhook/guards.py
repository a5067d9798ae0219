"""What a pull is guarded by: signature policies and registries that are blocked or not allowed.

The node checks a pod's image reference against them, and an internal-registry reference would slip past. So whatever guards the
original reference keeps the pod from being rewritten.
"""

import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import MAXIMUM_NAME_LENGTH, Reference, ReferenceError, parse_or_none, parse_reference
from mirrorstream.rules.scopes import enclosing_scopes
from mirrorstream.text.projection import decoder, project

from mirrorstream_webhook.claims import Stream

CLUSTER_KIND, NAMESPACED_KIND = "ClusterImagePolicy", "ImagePolicy"
SIGNATURE_VERSIONS = ("v1", "v1alpha1")
"""Versions of config.openshift.io that have signature policies: OpenShift 4.16 to 4.19 have the second only, and later ones may
serve both, with the same objects."""
REPOSITORY_ONLY = frozenset({"MatchRepository", "ExactRepository"})
REMEMBERED = 10_000
_versions = itertools.count(1)


class _Metadata(msgspec.Struct, frozen=True, gc=False):
    name: str = ""
    namespace: str = ""


class _Identity(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    match_policy: str = ""


class _Policy(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    signed_identity: _Identity | None = None


class _Spec(msgspec.Struct, frozen=True, gc=False):
    scopes: list[str] | None = None
    policy: _Policy | None = None


class SignaturePolicy(msgspec.Struct, frozen=True, gc=False):
    """A ClusterImagePolicy, or an ImagePolicy (which has a namespace), reduced to its scopes and whose name must be signed."""

    metadata: _Metadata = _Metadata()
    spec: _Spec = _Spec()

    @property
    def namespace(self) -> str:
        """The namespace whose pods it counts for; empty for all."""
        return self.metadata.namespace

    @property
    def scopes(self) -> Iterable[str]:
        """Where it counts: `host[:port][/namespace[/repository]][:tag|@digest]`, or `*.domain`."""
        return self.spec.scopes or ()

    @property
    def by_repository(self) -> bool:
        """Whether it looks at the signed repository only, so that it checks a digest as it checks a tag.

        The default, MatchRepoDigestOrExact, demands the exact tag of a reference by tag, and of one by digest nothing but the
        repository: by digest it would check less.
        """
        identity = self.spec.policy.signed_identity if self.spec.policy else None
        return identity is not None and identity.match_policy in REPOSITORY_ONLY

    def __str__(self) -> str:
        namespace, name = self.metadata.namespace, self.metadata.name
        return f"{NAMESPACED_KIND} {namespace}/{name}" if namespace else f"{CLUSTER_KIND} {name}"


decode_signature_policy = decoder(SignaturePolicy)
"""A SignaturePolicy from its JSON. Raises msgspec.MsgspecError."""


def signature_policy_from(document: dict[str, Any]) -> SignaturePolicy:
    """Project a whole ClusterImagePolicy or ImagePolicy. Raises msgspec.ValidationError."""
    return project(document, SignaturePolicy)


class SignaturePolicies:
    """All signature policies by scope; read from many threads while others change it.

    The lists of both versions give the same policies, each in a thread of its own.
    """

    def __init__(self) -> None:
        self._scopes: dict[tuple[str, str], Counter[tuple[str, bool]]] = {}
        """By namespace and scope: the policies' names, and whether each looks at the repository only."""
        self._changing = threading.Lock()

    def apply(self, old: SignaturePolicy | None, new: SignaturePolicy | None) -> None:
        """Take over a policy that appeared, changed or went away; never a moment without one that stays."""
        with self._changing:
            for scope in new.scopes if new else ():
                key = (new.namespace if new else "", scope)
                self._scopes[key] = self._scopes.get(key, Counter()) + Counter([_entry(new)])
            for scope in old.scopes if old else ():
                key = (old.namespace if old else "", scope)
                left = self._scopes.get(key, Counter()) - Counter([_entry(old)])
                if left:
                    self._scopes[key] = left
                else:
                    self._scopes.pop(key, None)

    def covering(self, reference: Reference, namespace: str) -> str:
        """The policy that decides about a reference in a pod of `namespace`, the most specific scope's; empty if none does."""
        found = self._covering(reference, namespace)
        return min(found)[0] if found else ""

    def allow_digest(self, original: Reference, target: Reference, namespace: str) -> bool:
        """Whether `target`, by digest, is checked as much as `original` is, and by the same policies."""
        before, after = self._covering(original, namespace), self._covering(target, namespace)
        return before is after and (before is None or all(by_repository for _, by_repository in before))

    def guard(self, image: str, namespace: str, digest: str) -> str:
        """The policy that keeps a pod of `namespace` from naming an image by `digest` instead; empty if none does."""
        reference = parse_or_none(image)
        if reference is None or not (name := self.covering(reference, namespace)):
            return ""
        target = parse_or_none(f"{reference.name}@{digest}")
        return "" if target and self.allow_digest(reference, target, namespace) else name

    def _covering(self, reference: Reference, namespace: str) -> Counter[tuple[str, bool]] | None:
        """The policies of the most specific scope; a reference with tag and digest lies in the scopes of both."""
        if not self._scopes:
            return None
        exact = [f"{reference.name}@{reference.digest}"] if reference.digest else []
        exact += [f"{reference.name}:{reference.tag}"] if reference.tag else []
        for scope in (*exact, *enclosing_scopes(reference.name)):
            if found := self._scopes.get(("", scope)):
                return found
            if (found := self._scopes.get((namespace, scope))) and not self._is_in_conflict(scope):
                return found
        return None

    def _is_in_conflict(self, scope: str) -> bool:
        """Whether a namespace's scope counts for nothing since it lies in one of a cluster's policy (machine-config-operator)."""
        before, colon, _ = scope.partition(":")
        # There, a scope with a tag or a digest lies in no wildcard.
        exact = bool(colon) and "/" in before
        return any(("", outer) in self._scopes for outer in enclosing_scopes(scope) if not (exact and outer.startswith("*.")))


def signature_paths(namespace: str = "") -> Iterator[tuple[str, str, str]]:
    """Kind, version and path of each list of signature policies; with a `namespace` of those that count for its pods."""
    for version in SIGNATURE_VERSIONS:
        root = f"/apis/config.openshift.io/{version}"
        yield CLUSTER_KIND, version, f"{root}/clusterimagepolicies"
        yield NAMESPACED_KIND, version, f"{root}/namespaces/{namespace}/imagepolicies" if namespace else f"{root}/imagepolicies"


def _entry(policy: SignaturePolicy | None) -> tuple[str, bool]:
    return str(policy), policy is not None and policy.by_repository


class Guards:
    """The answers of one snapshot of the mirror rules; remembered, since clusters name the same images again and again.

    A change of the rules or of a signature policy makes a new one.
    """

    def __init__(self, policy: MirrorPolicy, signatures: SignaturePolicies, *, respect: bool) -> None:
        """`respect` is `webhook.respectImagePolicies`."""
        self.policy = policy
        self.internal_registry = policy.internal_registry
        self.search_registries = policy.search_registries
        self.version = next(_versions)
        """Another number for each snapshot."""
        self._signatures = signatures
        self._respect = respect
        self._problems: dict[tuple[str, str], tuple[str, str]] = {}
        self._repositories: dict[tuple[str, str, str], tuple[str, str, str]] = {}
        self._digests: dict[tuple[str, str, str, str], tuple[str, str]] = {}
        self._fetched: dict[tuple[str, bool], str] = {}
        self._covered: dict[str, bool] = {}

    def problem(self, reference: Reference, text: str, namespace: str) -> tuple[str, str]:
        """What guards the pull of a pod's reference (`text` as written): a kind, `signature-policy` or `blocked`, and the reason.

        Both are empty if nothing does.
        """
        if not self._respect:
            return "", ""
        key = (namespace, text)
        if (known := self._problems.get(key)) is None:
            known = self._problem(reference, namespace)
            _remember(self._problems, key, known)
        return known

    def _problem(self, reference: Reference, namespace: str) -> tuple[str, str]:
        if refusal := self.policy.resolve(reference).refusal:
            return "blocked", refusal
        if name := self._signatures.covering(reference, namespace):
            return "signature-policy", f"{name} guards it, which would not see the internal registry's reference"
        return "", ""

    def repository(self, stream: Stream, namespace: str) -> tuple[str, str, str]:
        """A stream's repository in the internal registry, and why a node of a pod of `namespace` would not pull from there.

        That is a kind, `no-registry`, `too-long` or `registry-refused`, and the reason; both are empty if it would.
        """
        key = (namespace, stream.namespace, stream.name)
        if (known := self._repositories.get(key)) is None:
            known = self._repository(stream, namespace)
            _remember(self._repositories, key, known)
        return known

    def _repository(self, stream: Stream, namespace: str) -> tuple[str, str, str]:
        if not (host := self.policy.internal_registry):
            return "", "no-registry", "the cluster has no internal registry"
        repository = f"{host}/{stream.path}"
        if len(repository) > MAXIMUM_NAME_LENGTH:
            reason = f"the stream's name in the internal registry has more than {MAXIMUM_NAME_LENGTH} letters: no node can pull it"
            return repository, "too-long", reason
        if (reference := parse_or_none(repository)) is None:
            return repository, "registry-refused", f"no node can pull {repository}, which is not a valid reference"
        if refusal := self.policy.resolve(reference).refusal:
            return repository, "registry-refused", refusal
        if self._respect and (name := self._signatures.covering(reference, namespace)):
            return repository, "registry-refused", f"{name} guards the internal registry's images, too"
        return repository, "", ""

    def registry_problem(self, repository: str, digest: str, *, insecure: bool) -> str:
        """Why the internal registry cannot fetch a digest from where it was recorded; empty if nothing is known against it."""
        key = (repository, insecure)
        if (known := self._fetched.get(key)) is None:
            known = self.policy.registry_problem(parse_reference(f"{repository}@{digest}"), insecure=insecure)
            _remember(self._fetched, key, known)
        return known

    def digest_target(self, name: str, repository: str, came_from: str, digest: str) -> tuple[str, str]:
        """By which reference nodes pull a digest from a mirror, or why by none; one of the two is empty.

        `name` is the repository that the pod names, `repository` the tag's, `came_from` the item's where it is not the tag's.
        """
        key = (name, repository, came_from, digest)
        if (known := self._digests.get(key)) is None:
            try:
                known = self._digest_target(name, repository, came_from, digest)
            except ReferenceError as error:
                known = "", str(error)
            _remember(self._digests, key, known)
        return known

    def _digest_target(self, name: str, repository: str, came_from: str, digest: str) -> tuple[str, str]:
        own, recorded = f"{name}@{digest}", f"{came_from}@{digest}"
        by_mirror = bool(came_from) and came_from in self.mirror_names(repository)
        found = self.policy.resolve(parse_reference(own))
        mirrors = {place.reference for place in found.pull_sources[:-1] if not place.blocked}
        if by_mirror and (name == came_from or recorded not in mirrors):
            # What came through a tag mirror only, say, is pulled from there by its own name.
            found = self.policy.resolve(parse_reference(recorded))
            if found.pull_sources[-1].blocked:
                return "", f"{came_from}, where the tag's item came from, is blocked"
        elif not mirrors:
            return "", f"no digest mirror covers {name}"
        return ("", found.refusal) if found.refusal else (str(found.reference), "")

    def digest_signed(self, original: Reference, target: str, namespace: str) -> str:
        """Why signature policies keep a pod of `namespace` from naming `target` by digest instead; empty if they do not."""
        if not self._respect or self._signatures.allow_digest(original, parse_reference(target), namespace):
            return ""
        name = self._signatures.covering(original, namespace) or self._signatures.covering(parse_reference(target), namespace)
        return f"{name} would not check {target} as it checks {original}"

    def mirror_names(self, repository: str) -> set[str]:
        """The repositories that stand for one."""
        return {parse_reference(text).name for text in self.policy.resolve(parse_reference(repository)).mirror_origins}

    def covered(self, repository: str) -> bool:
        """Whether a mirror set covers a repository."""
        if (known := self._covered.get(repository)) is None:
            known = self.policy.resolve(parse_reference(repository)).is_mirrored
            _remember(self._covered, repository, known)
        return known


def _remember(memory: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep an answer; where there are too many, start over rather than grow."""
    if len(memory) >= REMEMBERED:
        memory.clear()
    memory[key] = value
