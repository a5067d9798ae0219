"""The two ways to serve a pod a digest, and why one of them cannot be used by the pod as it is.

*registry*: the internal registry, which pulls through a mirror and asks for a login and the right to the stream. *digest*: the
source's own digest, which nodes pull from a mirror with credentials of their own. A pod is never given a reference that it cannot
pull.
"""

from collections.abc import Callable

import msgspec
from mirrorstream.rules.references import Reference

from mirrorstream_webhook.access import ANONYMOUS, AnswerPendingError
from mirrorstream_webhook.claims import Claim
from mirrorstream_webhook.guards import Guards
from mirrorstream_webhook.patch import Result
from mirrorstream_webhook.pods import Pod

MayPull = Callable[[str, str, str, str], bool | None]
"""(namespace and name of the stream, namespace and name of the service account) -> whether it may pull; None while nobody can say.

With ANONYMOUS for the last two: whether a pull needs no login.
"""


class Subject(msgspec.Struct, frozen=True, gc=False):
    """Whose image it is: the pod's namespace and service account, and what decides how its nodes may pull.

    `pull_problem` says why it cannot log in to the internal registry; `placed` is the pod if it says anything about its nodes.
    `waits` unless its review has waited long enough for rights to pull that are being looked up.
    """

    namespace: str
    account: str = "default"
    pull_problem: str = ""
    windows: bool = False
    placed: Pod | None = None
    waits: bool = True


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Why a pod cannot take a way."""

    result: Result
    reason: str


class Ways:
    """Finds by each way what a pod's reference becomes, under one snapshot of the rules."""

    def __init__(self, guards: Guards, may_pull: MayPull) -> None:
        self._guards = guards
        self._may_pull = may_pull

    def registry(self, claim: Claim, reference: Reference, signed: str, subject: Subject) -> str | Refused:
        """The reference in the internal registry; `signed` says which signature policy guards the original, if any."""
        repository, problem, reason = self._guards.repository(claim.stream, subject.namespace)
        if problem:
            return Refused(Result(problem), reason)
        if signed:
            return Refused(Result.SIGNATURE_POLICY, signed)
        if subject.windows:
            return Refused(Result.WINDOWS, "Windows nodes do not resolve the internal registry's name")
        if claim.digest and (
            problem := self._guards.registry_problem(claim.recorded, claim.digest, insecure=claim.tag_import.insecure)
        ):
            return Refused(Result.INSECURE_SOURCE, problem)
        if subject.pull_problem:
            if not self._allowed(claim, subject, *ANONYMOUS):
                return Refused(Result.PULL_SECRETS, subject.pull_problem)
        elif not (allowed := self._allowed(claim, subject, subject.namespace, subject.account)):
            return _no_access(allowed, claim, subject)
        if claim.digest:
            return f"{repository}@{claim.digest}"
        return repository + (f"@{reference.digest}" if reference.digest else f":{claim.tag}")

    def digest(self, claim: Claim, reference: Reference, text: str, subject: Subject) -> str | Refused:
        """The digest by the source's name, or by the mirror's where that was recorded."""
        if not claim.digest:
            return Refused(Result.NOT_IMPORTED, "the tag has no image yet")
        guards = self._guards
        target, problem = guards.digest_target(reference.name, claim.repository, claim.came_from, claim.digest)
        if problem:
            return Refused(Result.NO_DIGEST_MIRROR, problem)
        if problem := guards.digest_signed(reference, target, subject.namespace):
            return Refused(Result.SIGNATURE_POLICY, problem)
        # The node pulls with its own credentials, so an account needs no right to what is its own namespace's.
        if claim.stream.namespace != subject.namespace:
            allowed = self._allowed(claim, subject, subject.namespace, subject.account)
            if not allowed:
                return _no_access(allowed, claim, subject)
        return text if f"{reference.name}@{reference.digest}" == target else target

    def _allowed(self, claim: Claim, subject: Subject, *account: str) -> bool | None:
        """Whether an account, or ANONYMOUS, may pull; None if nobody can say in time. Raises AnswerPendingError."""
        namespace, name = account
        try:
            return self._may_pull(claim.stream.namespace, claim.stream.name, namespace, name)
        except AnswerPendingError:
            if subject.waits:
                raise
            return None


def _no_access(allowed: bool | None, claim: Claim, subject: Subject) -> Refused:
    right = f"get imagestreams/layers of the stream in {claim.stream.namespace}"
    who = f"{subject.namespace}/{subject.account}"
    if allowed is None:
        return Refused(Result.ACCESS_UNKNOWN, f"the API server does not say whether {who} may {right}")
    return Refused(Result.NO_ACCESS, f"{who} may not {right}")


def unchecked(*question: str) -> bool:
    """A MayPull where rights are not to be checked: every account may, but a pull without login is not known to be possible."""
    return question[2:] != ANONYMOUS
