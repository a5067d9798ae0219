"""What is done about one image of one pod, and why: the index, the guards, the settings and the right to pull, in their order."""

from collections.abc import Callable, Iterator

import msgspec
from mirrorstream.failures import OF_THE_NETWORK
from mirrorstream.policy import MirrorPolicy
from mirrorstream.references import Reference, parse_reference
from mirrorstream.settings import Settings

from mirrorstream_webhook.guards import Guards
from mirrorstream_webhook.lookup import Claim, Index, claim_key, parse_again
from mirrorstream_webhook.patch import Decision, Result, Rewriting, rewrite
from mirrorstream_webhook.pods import DISABLED, Pod, pull_secret_problem, service_account

MayPull = Callable[[str, str, str], bool | None]
"""(namespace of the stream, namespace of the pod, service account) -> whether it may pull there; None while nobody can say."""

SYSTEM_PREFIXES = ("kube-", "openshift-")


class Subject(msgspec.Struct, frozen=True, gc=False):
    """Whose image it is: the pod's namespace, its service account, and what its own pull secrets stand in the way of."""

    namespace: str
    account: str = "default"
    pull_problem: str = ""


class Decider:
    """Decides about pods with what is known at present; `guards` is replaced whole when the rules change.

    `own_namespace` is mirrorstream's. Never waits for anything but `may_pull`.
    """

    def __init__(self, index: Index, may_pull: MayPull, settings: Settings, *, own_namespace: str) -> None:
        self.index = index
        self._may_pull = may_pull
        self._own_namespace = own_namespace
        self.guards: Guards | None = None
        """None while the rules are not known; then nothing is rewritten."""
        self._configured = 0
        self.configure(settings)

    def version(self) -> tuple[int, int, int]:
        """The same as long as the streams, the rules and the settings are."""
        return self.index.version, self.guards.version if self.guards else 0, self._configured

    def configure(self, settings: Settings) -> None:
        """Take over changed settings."""
        self._settings = settings.webhook
        self._observe = settings.mode == "observe"
        self._owners = frozenset(settings.webhook.excludeOwners)
        self._configured += 1

    def pod(self, pod: Pod, old: Pod | None, namespace: str, *, subresource: str = "") -> Rewriting:
        """Decide about a pod that is created (`old` is None) or changed."""
        if left := self._left_alone(pod, namespace):
            return rewrite(pod, old, lambda reference: left, subresource=subresource)
        subject = Subject(namespace, service_account(pod), pull_secret_problem(pod))
        return rewrite(pod, old, lambda reference: self.image(reference, subject), subresource=subresource)

    def _left_alone(self, pod: Pod, namespace: str) -> Decision | None:
        """Why no image of the pod is looked at; None if they are."""
        if namespace.startswith(SYSTEM_PREFIXES) or namespace == self._own_namespace:
            return Decision(Result.EXCLUDED_NAMESPACE, f"pods in {namespace} are never rewritten")
        if pod.metadata.labels and pod.metadata.labels.rewrite == DISABLED:
            return Decision(Result.OPTED_OUT, "the pod's label says so")
        for owner in pod.metadata.owner_references or () if self._owners else ():
            if owner.qualified in self._owners:
                return Decision(Result.EXCLUDED_OWNER, f"webhook.excludeOwners has {owner.qualified}")
        if self.guards is None:
            return Decision(Result.NOT_SYNCED, "not everything has been read from the API server yet")
        return None

    def image(self, text: str, subject: Subject) -> Decision:
        """Decide about one reference as a pod names it."""
        reference = parse_again(text)
        if reference is None:
            return Decision(Result.UNPARSABLE, "not a valid reference")
        if self.index.is_internal(reference.host):
            return Decision(Result.INTERNAL, "the internal registry's already")
        first: Decision | None = None
        key = claim_key(reference)
        for namespace in self._namespaces(subject.namespace):
            if not (claims := self.index.find(namespace, key)):
                continue
            decision = self._claimed(claims, reference, text, subject)
            if decision.target:
                return decision
            first = first or decision
        return first or Decision(Result.NO_STREAM, "no Local tag stands for it")

    def _namespaces(self, own: str) -> Iterator[str]:
        yield own
        for namespace in self._settings.sharedNamespaces:
            if namespace != own:
                yield namespace

    def _claimed(self, claims: tuple[Claim, ...], reference: Reference, text: str, subject: Subject) -> Decision:
        """Decide about a reference that tags of one namespace claim; the first claim counts."""
        claim = claims[0]
        guards = self.guards
        if guards is None:
            return Decision(Result.NOT_SYNCED, "the mirror rules are not known", claim.name)
        kind, reason = guards.problem(reference, text, subject.namespace)
        if kind:
            return Decision(Result(kind), reason, claim.name)
        if self._settings.scope == "mirrored" and not guards.covered(claim.source):
            return Decision(Result.NOT_MIRRORED, f"no mirror set covers {claim.source}", claim.name)
        if subject.pull_problem:
            return Decision(Result.PULL_SECRETS, subject.pull_problem, claim.name)
        if problem := guards.target_problem(claim.stream.repository, subject.namespace):
            return Decision(Result.REGISTRY_REFUSED, problem, claim.name)
        if not_served := self._not_served(claim, guards.policy):
            return not_served
        return self._if_allowed(claims, subject)

    def _not_served(self, claim: Claim, policy: MirrorPolicy) -> Decision | None:
        """Why a claim has nothing to serve; None if it has, or is to be waited for."""
        if claim.served_from and claim.served_from not in _mirror_names(policy, claim.source):
            reason = f"the tag's last item came from {claim.served_from}, which is no mirror of {claim.source}"
            return Decision(Result.OTHER_SOURCE, reason, claim.name)
        if claim.digest or not (problem := self._not_pending(claim, policy)):
            return None
        return Decision(Result.NOT_IMPORTED, problem, claim.name)

    def _not_pending(self, claim: Claim, policy: MirrorPolicy) -> str:
        """Why a tag without an image is not waited for; empty if it is."""
        if claim.failure is None:
            return "the platform's import of the tag is pending"
        if self._settings.pendingTags != "rewrite":
            return f"the tag is not imported ({claim.failure}), and webhook.pendingTags is leave"
        if claim.failure not in OF_THE_NETWORK:
            return f"the tag is not imported, and not for a reason of the network ({claim.failure})"
        if claim.opted_out:
            return "the tag is not imported, and its stream opted out"
        if len(policy.pull_sources(claim.source)) > 1:
            return "the tag is not imported, and the node has a mirror of its own for it"
        if not policy.import_candidates(claim.source) or not policy.import_allowed(claim.source):
            return "the tag is not imported, and there is nothing to import it through"
        return ""

    def _if_allowed(self, claims: tuple[Claim, ...], subject: Subject) -> Decision:
        """Serve the first claim, if the pod may pull from its stream."""
        claim = claims[0]
        if self._settings.checkAccess:
            allowed = self._may_pull(claim.stream.namespace, subject.namespace, subject.account)
            if not allowed:
                right = f"get imagestreams/layers in {claim.stream.namespace}"
                who = f"{subject.namespace}/{subject.account}"
                if allowed is None:
                    return Decision(Result.ACCESS_UNKNOWN, f"the API server does not say whether {who} may {right}", claim.name)
                return Decision(Result.NO_ACCESS, f"{who} may not {right}", claim.name)
        reason = _why(claims)
        if self._observe:
            return Decision(Result.OBSERVED, f"would become {claim.target}: {reason}", claim.name)
        return Decision(Result.REWRITTEN if claim.digest else Result.PENDING, reason, claim.name, claim.target)


def _why(claims: tuple[Claim, ...]) -> str:
    claim = claims[0]
    reason = "the tag has this image" if claim.digest else f"the tag will have it once it is healed ({claim.failure})"
    if len(claims) == 1:
        return reason
    if others := [other.name for other in claims[1:] if other.digest != claim.digest and other.digest]:
        reason += f"; {', '.join(others)} would give another, and come later by name"
    return reason


def _mirror_names(policy: MirrorPolicy, source: str) -> set[str]:
    """The repositories that stand for a source under the present rules."""
    return {parse_reference(text).name for text in policy.mirror_origins(source)}
