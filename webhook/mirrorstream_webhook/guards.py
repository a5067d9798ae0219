"""What a pull is guarded by: signature policies and registries that are blocked or not allowed.

The node checks a pod's image reference against them, and an internal-registry reference would slip past. So whatever guards the
original reference keeps the pod from being rewritten.
"""

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from mirrorstream.policy import MirrorPolicy
from mirrorstream.references import Reference, parse_reference
from mirrorstream.scopes import enclosing_scopes

CLUSTER_KIND, NAMESPACED_KIND = "ClusterImagePolicy", "ImagePolicy"
REMEMBERED = 10_000
_versions = itertools.count(1)


class _Metadata(msgspec.Struct, frozen=True, gc=False):
    name: str = ""
    namespace: str = ""


class _Spec(msgspec.Struct, frozen=True, gc=False):
    scopes: list[str] | None = None


class SignaturePolicy(msgspec.Struct, frozen=True, gc=False):
    """A ClusterImagePolicy, or an ImagePolicy (which has a namespace), reduced to its scopes."""

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

    def __str__(self) -> str:
        namespace, name = self.metadata.namespace, self.metadata.name
        return f"{NAMESPACED_KIND} {namespace}/{name}" if namespace else f"{CLUSTER_KIND} {name}"


decode_signature_policy = msgspec.json.Decoder(SignaturePolicy).decode
"""A SignaturePolicy from its JSON. Raises msgspec.ValidationError. Made here, before any thread: see `Client.request`."""


def signature_policy_from(document: dict[str, Any]) -> SignaturePolicy:
    """Project a whole ClusterImagePolicy or ImagePolicy. Raises msgspec.ValidationError."""
    return msgspec.convert(document, SignaturePolicy)


class SignaturePolicies:
    """All signature policies by scope; read from many threads while one changes it."""

    def __init__(self) -> None:
        self._scopes: dict[tuple[str, str], Counter[str]] = {}

    def apply(self, old: SignaturePolicy | None, new: SignaturePolicy | None) -> None:
        """Take over a policy that appeared, changed or went away; never a moment without one that stays."""
        for scope in new.scopes if new else ():
            key = (new.namespace if new else "", scope)
            self._scopes[key] = self._scopes.get(key, Counter()) + Counter([str(new)])
        for scope in old.scopes if old else ():
            key = (old.namespace if old else "", scope)
            left = self._scopes.get(key, Counter()) - Counter([str(old)])
            if left:
                self._scopes[key] = left
            else:
                self._scopes.pop(key, None)

    def covering(self, reference: Reference, namespace: str) -> str:
        """The policy that decides about a reference in a pod of `namespace`, the most specific scope's; empty if none does.

        A reference with tag and digest lies in the scopes of both.
        """
        if not self._scopes:
            return ""
        exact = [f"{reference.name}@{reference.digest}"] if reference.digest else []
        exact += [f"{reference.name}:{reference.tag}"] if reference.tag else []
        for scope in (*exact, *enclosing_scopes(reference.name)):
            # Where a cluster's policy and a namespace's have the same scope, the cluster's counts.
            for where in ("", namespace):
                if found := self._scopes.get((where, scope)):
                    return min(found)
        return ""


class Guards:
    """The answers of one snapshot of the mirror rules; remembered, since clusters name the same images again and again.

    A change of the rules or of a signature policy makes a new one.
    """

    def __init__(self, policy: MirrorPolicy, signatures: SignaturePolicies, *, respect: bool) -> None:
        """`respect` is `webhook.respectImagePolicies`."""
        self.policy = policy
        self.version = next(_versions)
        """Another number for each snapshot."""
        self._signatures = signatures
        self._respect = respect
        self._problems: dict[tuple[str, str], tuple[str, str]] = {}
        self._targets: dict[tuple[str, str], str] = {}
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
        if refusal := self.policy.refusal(str(reference)):
            return "blocked", refusal
        if name := self._signatures.covering(reference, namespace):
            return "signature-policy", f"{name} guards it, which would not see the internal registry's reference"
        return "", ""

    def target_problem(self, repository: str, namespace: str) -> str:
        """Why a node would not pull from a stream's repository in the internal registry; empty if it would."""
        key = (namespace, repository)
        if (known := self._targets.get(key)) is None:
            known = self._target_problem(repository, namespace)
            _remember(self._targets, key, known)
        return known

    def _target_problem(self, repository: str, namespace: str) -> str:
        reference = parse_reference(repository)
        if refusal := self.policy.refusal(repository):
            return refusal
        if self._respect and (name := self._signatures.covering(reference, namespace)):
            return f"{name} guards the internal registry's images, too"
        return ""

    def covered(self, source: str) -> bool:
        """Whether a mirror set covers a tag's source."""
        if (known := self._covered.get(source)) is None:
            known = self.policy.mirrors_cover(source)
            _remember(self._covered, source, known)
        return known


def _remember(memory: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep an answer; where there are too many, start over rather than grow."""
    if len(memory) >= REMEMBERED:
        memory.clear()
    memory[key] = value
