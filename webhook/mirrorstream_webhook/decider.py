"""What is done about one image of one pod, and why: the index, the guards, the settings and the right to pull, in their order."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog
from mirrorstream.diagnose.pods import DISABLED, SYSTEM
from mirrorstream.imagestream.eligibility import Eligibility, evaluate, makes_room
from mirrorstream.imagestream.failures import Bypass, Failure, FailureClass
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import Reference, has_registry_host, parse_reference
from mirrorstream.runtime.settings import ControllerSettings, Settings, WebhookSettings
from mirrorstream.text.sanitize import shortened

from mirrorstream_webhook.access import AnswerPendingError
from mirrorstream_webhook.architecture import own_architecture
from mirrorstream_webhook.claims import EARLIER, MAYBE_EARLIER, Claim, parse_again, parse_with_key
from mirrorstream_webhook.guards import Guards
from mirrorstream_webhook.index import Index
from mirrorstream_webhook.patch import Decision, Examined, Result, Rewriting, Way, new_slots, observed, rewrite
from mirrorstream_webhook.pods import (
    Pod,
    Slot,
    is_placed,
    other_architectures,
    pull_secret_problem,
    runs_on_windows,
    service_account,
)
from mirrorstream_webhook.ways import MayPull, Refused, Subject, Ways, unchecked

log = structlog.get_logger(__name__)

DOUBT_SECONDS = 60.0
"""How long an item that may be of an earlier `from` is not served after an import failed: the controller replaces it by then."""
TEXT_LIMIT = 300
"""Characters of an image that are logged: a pod may name anything."""
NO_WAY: frozenset[Way] = frozenset()
REGISTRY = Way.REGISTRY
HAS_IT = "the tag has this image"


_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, eq=False)
class _Configured:
    """The settings that decide, read at once: a decision never mixes old and new ones. `number` is another for each."""

    webhook: WebhookSettings
    controller: ControllerSettings
    serve_from: tuple[Way, ...]
    observe: bool
    bypass: Bypass
    owners: frozenset[str]
    number: int

    @classmethod
    def of(cls, settings: Settings) -> "_Configured":
        webhook = settings.webhook
        ways, owners = tuple(Way(way) for way in webhook.serveFrom), frozenset(webhook.excludeOwners)
        observe, bypass = settings.mode == "observe", Bypass.of(settings.mirrors)
        return cls(webhook, settings.controller, ways, observe, bypass, owners, next(_numbers))


class Decider:
    """Decides about pods with what is known at present; `guards` is replaced whole when the rules change.

    `own_namespace` is mirrorstream's, `architecture` the API server's (this machine's by default), whose manifest a Legacy import
    takes from a list. Never waits for anything but `may_pull`.
    """

    def __init__(
        self,
        index: Index,
        may_pull: MayPull,
        settings: Settings,
        *,
        own_namespace: str,
        architecture: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.index = index
        self.architecture = architecture or own_architecture()
        self._may_pull = may_pull
        self._own_namespace = own_namespace
        self._clock = clock
        self.guards: Guards | None = None
        """None while the rules are not known; then nothing is rewritten."""
        self._configured = _Configured.of(settings)
        self._ways: tuple[Guards, _Configured, Ways] | None = None

    def version(self) -> tuple[int, int, int]:
        """The same as long as the streams, the rules and the settings are."""
        return self.index.version, self.guards.version if self.guards else 0, self._configured.number

    def configure(self, settings: Settings) -> None:
        """Take over changed settings."""
        self._configured = _Configured.of(settings)

    def pod(self, pod: Pod, old: Pod | None, namespace: str, *, subresource: str = "", waits: bool = True) -> Rewriting:
        """Decide about a pod that is created (`old` is None) or changed. If it `waits`, raises AnswerPendingError in a loop."""
        if left := self.left_alone(pod, namespace):
            return Rewriting([], [Examined(slot, left) for slot in new_slots(pod, old)])
        subject = self.subject(pod, namespace, waits=waits)
        pending: AnswerPendingError | None = None

        def decide(slot: Slot) -> Decision:
            nonlocal pending
            if slot.never_pulled:
                return Decision(Result.NEVER_PULLED, "its pull policy is Never: the image is on the node under this name")
            try:
                return self.image(slot.image, subject)
            except AnswerPendingError as error:
                # The questions of all images are asked at once: one after another, they could take longer than a review may.
                pending = pending or error
                return Decision(Result.ACCESS_UNKNOWN, "the right to pull is being looked up")
            except Exception:  # one image never costs the others of the pod theirs
                log.exception("decision failed, image left unchanged", namespace=namespace, image=shortened(slot.image, TEXT_LIMIT))
                return Decision(Result.ERROR, "an internal error, which the webhook's log has")

        rewriting = rewrite(pod, old, decide, self.stands_for, subresource=subresource)
        if pending:
            raise pending
        return observed(rewriting) if self._configured.observe else rewriting

    def subject(self, pod: Pod, namespace: str, *, waits: bool = True) -> Subject:
        """What decides about all images of a pod of `namespace`."""
        subject = Subject(namespace, service_account(pod), pull_secret_problem(pod), waits=waits)
        if not is_placed(pod):
            return subject
        return msgspec.structs.replace(subject, windows=runs_on_windows(pod), placed=pod)

    def left_alone(self, pod: Pod, namespace: str) -> Decision | None:
        """Why no image of the pod is looked at; None if they are."""
        if namespace.startswith(SYSTEM) or namespace == self._own_namespace:
            return Decision(Result.EXCLUDED_NAMESPACE, f"pods in {namespace} are never rewritten")
        if pod.metadata.labels and pod.metadata.labels.rewrite == DISABLED:
            return Decision(Result.OPTED_OUT, "the pod's label says so")
        if pod.metadata.annotations and pod.metadata.annotations.static is not None:
            return Decision(Result.STATIC_POD, "it stands for a static pod: the kubelet runs what its file says")
        owners = self._configured.owners
        for owner in pod.metadata.owner_references or () if owners else ():
            if owner.qualified in owners:
                return Decision(Result.EXCLUDED_OWNER, f"webhook.excludeOwners has {owner.qualified}")
        if self.guards is None:
            return Decision(Result.NOT_SYNCED, "not everything has been read from the API server yet")
        return None

    def stands_for(self, image: str, original: str) -> bool:
        """Whether `original` may have become `image`: the internal registry's, or a digest of the same repository or its mirror."""
        guards, found, named = self.guards, parse_again(image), parse_again(original)
        if guards is None or found is None:
            return False
        if found.host == guards.internal_registry:
            return True
        if named is None or not found.digest:
            return False
        return found.name == named.name or found.name in guards.mirror_names(named.name)

    def image(self, text: str, subject: Subject, *, without: frozenset[Way] = NO_WAY) -> Decision:
        """Decide about one reference as a pod names it; `without` the ways that were tried already."""
        guards = self.guards
        if guards is None:
            return Decision(Result.NOT_SYNCED, "the mirror rules are not known")
        parsed = parse_with_key(text)
        if parsed is None:
            return Decision(Result.UNPARSABLE, "not a valid reference")
        reference, key = parsed
        if reference.host == guards.internal_registry:
            return Decision(Result.INTERNAL, "the internal registry's already")
        if guards.search_registries and not has_registry_host(text):
            listed = ", ".join(guards.search_registries)
            return Decision(Result.SEARCH_REGISTRIES, f"nodes look for a name without a registry in {listed}")
        configured, first = self._configured, None
        for namespace in (subject.namespace, *configured.webhook.sharedNamespaces):
            if not (claims := self.index.find(namespace, key)) or (first is not None and namespace == subject.namespace):
                continue
            decision = self._claimed(guards, configured, claims, reference, text, subject, without)
            if decision.target:
                return decision
            first = first or decision
        return first or Decision(Result.NO_STREAM, "no Local tag stands for it")

    def _claimed(
        self,
        guards: Guards,
        configured: _Configured,
        claims: tuple[Claim, ...],
        reference: Reference,
        text: str,
        subject: Subject,
        without: frozenset[Way],
    ) -> Decision:
        """Decide about a reference that tags of one namespace claim; the first claim counts."""
        if reference.digest:
            claims = tuple(claim for claim in claims if claim.digest == reference.digest) or claims
        claim = claims[0]
        guarded, signed = guards.problem(reference, text, subject.namespace)
        if guarded and guarded == Result.BLOCKED:
            return Decision(Result.BLOCKED, signed, claim.name)
        if configured.webhook.scope == "mirrored" and not guards.covered(claim.repository):
            return Decision(Result.NOT_MIRRORED, f"no mirror set covers {claim.source}", claim.name)
        if not_served := self._not_served(claim, reference, subject, guards, configured):
            return Decision(*not_served, claim.name)
        ways = self._ways_under(guards, configured)
        refused: list[tuple[Way, Refused]] = []
        for way in configured.serve_from:
            if without and way in without:
                continue
            if way is REGISTRY:
                found = ways.registry(claim, reference, signed, subject)
            else:
                found = ways.digest(claim, reference, text, subject)
            if isinstance(found, str):
                other = _told(refused) if refused else ""
                reason = HAS_IT if claim.digest and len(claims) == 1 else _why(claims)
                return Decision(Result.REWRITTEN if claim.digest else Result.PENDING, reason, claim.name, found, way, other)
            refused.append((way, found))
            if found.result is Result.TOO_LONG:
                break
        if not refused:
            return Decision(Result.KEPT, "every way of webhook.serveFrom was tried", claim.name)
        (_, problem), *others = refused
        return Decision(problem.result, problem.reason, claim.name, other=_told(others))

    def _ways_under(self, guards: Guards, configured: _Configured) -> Ways:
        """The ways under a snapshot of the rules; kept, since all reviews between two changes share it."""
        known = self._ways
        if known is None or known[0] is not guards or known[1] is not configured:
            may_pull = self._may_pull if configured.webhook.checkAccess else unchecked
            self._ways = known = guards, configured, Ways(guards, may_pull)
        return known[2]

    def _not_served(
        self, claim: Claim, reference: Reference, subject: Subject, guards: Guards, configured: _Configured
    ) -> tuple[Result, str] | None:
        """Why a claim has nothing to serve, whatever the way; None if it has, or is to be waited for."""
        if claim.standing == EARLIER:
            return Result.EARLIER_IMAGE, "the tag's image is of an earlier from"
        if claim.standing == MAYBE_EARLIER and self._in_doubt(claim):
            return Result.EARLIER_IMAGE, "the tag's image may be of an earlier from, until it is imported again"
        if reference.digest:
            if claim.digest not in ("", reference.digest):
                which = "one architecture's image (importMode Legacy)" if claim.tag_import.legacy else "another image"
                return Result.ARCHITECTURE, f"the tag has {which}, {claim.digest}"
        elif (
            subject.placed
            and claim.tag_import.legacy
            and (others := other_architectures(subject.placed, claim.tag_import.architecture or self.architecture))
        ):
            asked = ", ".join(sorted(others))
            return Result.ARCHITECTURE, f"the tag has one architecture's image (importMode Legacy), and the pod asks for {asked}"
        elif (
            claim.came_from and claim.tag_import.failed_generation and claim.came_from not in guards.mirror_names(claim.repository)
        ):
            reason = f"the tag's last item came from {claim.came_from}, which is no mirror of {claim.source}"
            return Result.OTHER_SOURCE, reason
        if claim.digest or not (problem := self._not_pending(claim, guards.policy, configured)):
            return None
        return Result.NOT_IMPORTED, problem

    def _in_doubt(self, claim: Claim) -> bool:
        """Whether a tag whose item may be of an earlier `from` is about to be imported again: its failure is young, or to come."""
        found = claim.tag_import
        return found.failed_generation < found.generation or abs(self._clock() - found.failed_at) < DOUBT_SECONDS

    def _not_pending(self, claim: Claim, policy: MirrorPolicy, configured: _Configured) -> str:
        """Why a tag without an image is not waited for; empty if it is."""
        failure, source = claim.tag_import.failure, claim.source
        why = failure or "its import is pending"
        if configured.webhook.pendingTags != "rewrite":
            return f"the tag is not imported ({why}), and webhook.pendingTags is leave"
        found = policy.resolve(parse_reference(source))
        if failure is not None and not makes_room(failure, found, configured.bypass):
            return f"the tag is not imported, and its failure must not be bypassed ({why})"
        if claim.stream.opted_out:
            return "the tag is not imported, and its stream opted out"
        if not configured.controller.namespaces.cover(claim.stream.namespace):
            return "the tag is not imported, and controller.namespaces leaves its namespace out"
        if len(found.pull_sources) > 1:
            return "the tag is not imported, and the node has a mirror of its own for it"
        evaluation = evaluate(
            policy,
            source,
            Failure(failure or FailureClass.STUCK, why),
            insecure=claim.tag_import.insecure,
            bypass=configured.bypass,
            recorded_reference=configured.controller.recordedReference,
        )
        return "" if evaluation.eligibility is Eligibility.IMPORT else f"the tag is not imported, and {evaluation.why}"


def _told(refused: list[tuple[Way, Refused]]) -> str:
    return "; ".join(f"{way}: {problem.reason}" for way, problem in refused)


def _why(claims: tuple[Claim, ...]) -> str:
    claim = claims[0]
    if not claim.digest:
        return f"the tag will have it once it is imported ({claim.tag_import.failure or 'its import is pending'})"
    reason = HAS_IT
    others = [other.name for other in claims[1:] if other.digest != claim.digest and other.digest and other.standing != EARLIER]
    if others:
        reason += f"; {', '.join(others)} would give another, and come later by name"
    return reason
