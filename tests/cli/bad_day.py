"""Clusters on a good day, on a usual one and on a bad one, as the commands see them: for the golden files of their text."""

from collections.abc import Iterator

from mirrorstream.diagnose.causes import cause_of
from mirrorstream.diagnose.check import CheckReport, Skipped, TagCheck, checks_of
from mirrorstream.diagnose.hanging_pods import HangingPod, WaitsFor
from mirrorstream.diagnose.status import RuleObject, Rules, StatusReport
from mirrorstream.diagnose.tag_status import ControllerView, TagState, tag_states, with_origins
from mirrorstream.imagestream.failures import Failure, FailureClass
from mirrorstream.imagestream.model import ImageStream, imagestream_from
from mirrorstream.imagestream.outcomes import AttemptHistory, AttemptResult, CandidateAnswer
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_reference

from tests.diagnose.builders import DIGEST, attempt, event, failure

MIRRORS = {
    "registry.redhat.io": "mirror.example.com:5000/redhat",
    "quay.io": "private.example.com/quay",
    "registry.access.redhat.com": "down.example.com:8443/access",
}
"""The first lacks every image, the second denies them, the third cannot be reached."""
ANSWERS = {
    "registry.redhat.io": Failure(FailureClass.NOT_FOUND, "name unknown: repository name not known to registry"),
    "quay.io": Failure(FailureClass.UNAUTHORIZED, "unauthorized: authentication required"),
    "registry.access.redhat.com": Failure(FailureClass.UNREACHABLE, "dial tcp 10.0.0.7:8443: connect: connection refused"),
}
UNCOVERED = "ghcr.io"
POLICY = MirrorPolicy.from_objects(
    {
        "kind": "ImageDigestMirrorSet",
        "metadata": {"name": source.replace(".", "-")},
        "spec": {"imageDigestMirrors": [{"source": source, "mirrors": [mirror]}]},
    }
    for source, mirror in MIRRORS.items()
)
NAMESPACES = ("payments", "payments", "payments", "web", "web", "openshift")
RULES = Rules(True, tuple(RuleObject(f"ImageDigestMirrorSet/{source.replace('.', '-')}", 1) for source in MIRRORS))


def _source(host: str, number: int) -> str:
    return f"{host}/team-{number % 5}/a-component-with-a-rather-long-name-{number:03}:v4.18.0-202601150800.p0"


def _stream(host: str, number: int, *, healed: bool = False) -> ImageStream:
    """A stream with one tag, which failed at its source, or was healed."""
    namespace, name = NAMESPACES[number % len(NAMESPACES)], f"{host.split('.')[-2]}-{number:03}"
    source = _source(host, number)
    status = failure(f'Internal error occurred: {source}: Get "https://{host}/v2/": dial tcp 10.0.0.1:443: i/o timeout')
    status["conditions"][0]["lastTransitionTime"] = f"2027-01-{1 + number % 14:02}T07:00:00Z"
    if healed:
        at = "2027-01-15T07:30:00Z"
        status = {"items": [{"image": DIGEST, "created": at, "dockerImageReference": f"{host}@{DIGEST}", "generation": 2}]}
    tag = {"name": "v1", "from": {"kind": "DockerImage", "name": source}, "generation": 2}
    return imagestream_from(
        {
            "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}", "generation": 2},
            "spec": {"tags": [tag]},
            "status": {"tags": [{"tag": "v1", **status}]},
        }
    )


def _tag(host: str, number: int, *, healed: bool = False) -> TagState:
    stream = _stream(host, number, healed=healed)
    history = AttemptHistory()
    if host in ANSWERS and not healed:
        made = attempt(AttemptResult.FAILED, source=_source(host, number))
        (candidate,) = POLICY.resolve(parse_reference(_source(host, number))).candidates
        answer = CandidateAnswer(candidate.reference, candidate.mirror_set, str(ANSWERS[host].kind), ANSWERS[host].message)
        made = attempt(AttemptResult.FAILED, source=_source(host, number), candidates=(answer,))
        involved = {"kind": "ImageStream", "namespace": stream.metadata.namespace, "name": stream.metadata.name, "uid": ""}
        history = AttemptHistory([event(made, involvedObject=involved)])
    (found,) = tag_states(stream, POLICY, history, ControllerView())
    if not healed:
        return found
    (found,) = with_origins([found], {found.item: "mirror.example.com:5000"})
    return found


SIZES = {"none": (0, 0, 3), "few": (1, 1, 2), "many": (60, 20, 20)}
"""How many tags fail at each mirror, how many have no rule, and how many are healed."""


def _tags(size: str) -> Iterator[TagState]:
    at_each, uncovered, healed = SIZES[size]
    numbers = iter(range(1000))
    for host in MIRRORS:
        yield from (_tag(host, next(numbers)) for _ in range(at_each))
    yield from (_tag(UNCOVERED, next(numbers)) for _ in range(uncovered))
    yield from (_tag("registry.redhat.io", next(numbers), healed=True) for _ in range(healed))


def status_report(size: str) -> StatusReport:
    """What `status` is told: of all namespaces, or of one if only a few tags fail."""
    tags = tuple(_tags(size))
    pods = tuple(
        HangingPod(tag.namespace, f"{tag.stream}-{number}", "app", tag.source, tag.name, "ImagePullBackOff", WaitsFor.IMPORT,
                   cause_of(tag).text, cause_of(tag).helps)
        for number, tag in enumerate(tag for tag in tags if tag.failure)
    )  # fmt: skip
    notes = ("you may not list Images: only 200 of 271 imported tags were checked for their mirror",) if size == "many" else ()
    return StatusReport("web" if size == "few" else None, len(tags), tags, RULES, notes, pods)


def check_report(size: str) -> CheckReport:
    """What `check` finds on the same cluster."""
    at_each, uncovered, healed = SIZES[size]
    checks: list[TagCheck] = []
    for number, host in enumerate([h for h in MIRRORS for _ in range(at_each)] + [UNCOVERED] * uncovered):
        (check,) = checks_of(_stream(host, number), POLICY, ControllerView())
        checks.append(check.answered(check.candidates[0], ANSWERS[host]) if check.candidates else check)
    for number in range(healed):
        (check,) = checks_of(_stream("registry.redhat.io", 900 + number, healed=True), POLICY, ControllerView())
        checks.append(check.answered(check.candidates[0], DIGEST))
    return CheckReport("web" if size == "few" else None, len(checks), tuple(checks), {Skipped.PUSHED: 3})
