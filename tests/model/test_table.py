"""The decision table, every combination of what it depends on, against rows written from the design and not from the code.

The rows of a failed import and those of a tag's state are two tables, since a failure's row does not depend on how it came about.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from mirrorstream.imagestream.failures import Bypass
from mirrorstream.imagestream.model import ImageStream, imagestream_from
from mirrorstream.imagestream.settled import EARLIER, UNKNOWN
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream_controller.history import History
from mirrorstream_controller.plan import PlanSettings, TagPlan, plan_stream, replacement

from tests.model import SOAK
from tests.model.world import remembering

NOW = 1_800_000_000.0
SOURCE = "src.io/team/app:v1"
OTHER = "src.io/team/app:v0"
GENERATION = 5
STUCK_AFTER = 180.0
REPLACE_AFTER = 3600.0
Object = dict[str, Any]

# What the platform says of a failed import (FACTS, recorded), with the source in place of {}.
FAILURES: dict[str, tuple[str, str]] = {
    "unreachable": ("InternalError", "Internal error occurred: {}: dial tcp 10.0.0.1:443: connect: connection refused"),
    "timeout": ("InternalError", "Internal error occurred: {}: net/http: TLS handshake timeout"),
    "tls": ("InternalError", "Internal error occurred: {}: x509: certificate signed by unknown authority"),
    "server-error": ("InternalError", "Internal error occurred: {}: received unexpected HTTP status: 503 Service Unavailable"),
    "throttled": ("InternalError", "Internal error occurred: {}: toomanyrequests: slow down"),
    "not-a-registry": ("InternalError", "Internal error occurred: {}: error unmarshalling content: invalid character '<'"),
    "unauthorized": ("Unauthorized", 'you may not have access to the container image "{}"'),
    "denied": ("InternalError", "Internal error occurred: {}: denied: no"),
    "unknown": ("InternalError", "Internal error occurred: {}: the moon is full"),
    "not-found": ("NotFound", 'dockerimage.image.openshift.io "{}" not found'),
    "forbidden": ("Forbidden", "forbidden: registry src.io blocked"),
    "invalid": ("Invalid", ' "" is invalid: from.name: Invalid value: "{}": invalid name: no'),
    "unsupported": ("InternalError", "Internal error occurred: {}: unsupported manifest media type"),
    "integrity": ("InternalError", "Internal error occurred: {}: content integrity error: the manifest does not match"),
}
NEVER = {"forbidden", "invalid", "unsupported", "integrity"}
"""What no setting lets a mirror stand in for."""

IDMS = {"kind": "ImageDigestMirrorSet", "metadata": {"name": "d"}}
ITMS = {"kind": "ImageTagMirrorSet", "metadata": {"name": "t"}}
DIGESTS = {**IDMS, "spec": {"imageDigestMirrors": [{"source": "src.io", "mirrors": ["d.io/x"]}]}}
TAGS = {**ITMS, "spec": {"imageTagMirrors": [{"source": "src.io", "mirrors": ["t.io/x"]}]}}
MIRRORS: dict[str, list[Object]] = {"none": [], "digest": [DIGESTS], "tag": [TAGS], "both": [DIGESTS, TAGS]}
"""No candidate, one of each kind, or two."""
REFUSALS: dict[str, Object] = {
    "no": {},
    "blocked": {"blockedRegistries": ["src.io"]},
    "not-allowed": {"allowedRegistries": ["d.io", "t.io"]},
}
ALLOWED: dict[str, list[str]] = {
    "all": [],
    "source": ["src.io"],
    "mirrors": ["d.io", "t.io"],
    "source-and-digest-mirror": ["src.io", "d.io"],
}
"""spec.allowedRegistriesForImport."""


class Rules(NamedTuple):
    """What is configured."""

    mirrors: str
    refusal: str
    allowed: str
    bypass_not_found: bool
    recorded: str
    bypass_denied: bool = True


class Tag(NamedTuple):
    """What a tag's spec and status say, and what is remembered of it."""

    condition: str
    """A class of failure, `true` for a success that is written down, or `none`."""
    about: str
    """The source that the condition is about: the present one, or one that the tag had before."""
    condition_age: int
    """The condition's generation beside the spec tag's: -1 older, 0 the same, 1 later."""
    item_age: int | None
    opted_out: bool
    scheduled: bool
    stuck_after: float
    pending_for: float | None
    """How long the import is known to be pending; None: seen for the first time."""
    failing_for: float | None


@dataclass(frozen=True)
class Expected:
    """What the design asks for."""

    action: str
    failure: str | None = None
    candidates: tuple[str, ...] = ()
    again_in: float | None = None
    failing_for: float | None = None


def every_rule() -> Iterator[Rules]:
    """Every configuration."""
    yield from (
        Rules(*values) for values in itertools.product(MIRRORS, REFUSALS, ALLOWED, (False, True), ("auto", "source", "mirror"))
    )


def every_tag() -> Iterator[Tag]:
    """Every state of a tag."""
    conditions: list[tuple[str, str, int]] = [("none", SOURCE, 0)]
    conditions += [("true", SOURCE, age) for age in (-1, 0, 1)]
    conditions += [(kind, about, age) for kind in FAILURES for about in (SOURCE, OTHER) for age in (-1, 0, 1)]
    for condition, *rest in itertools.product(
        conditions,
        (None, -1, 0, 1),
        (False, True),
        (False, True),
        (0.0, STUCK_AFTER),
        (None, STUCK_AFTER - 1, STUCK_AFTER),
        (None, 10.0, 2 * REPLACE_AFTER),
    ):
        yield Tag(*condition, *rest)


# The specification.


def bypassed(kind: str, rules: Rules) -> bool:
    """Whether a mirror may stand in for a source that failed like this."""
    if kind in ("unauthorized", "denied"):
        return rules.bypass_denied
    return kind not in NEVER and (kind != "not-found" or rules.bypass_not_found)


def recordable(rules: Rules) -> list[str]:
    """The mirrors that serve, in their order, without those whose name would be recorded and may not be."""
    order = {"none": [], "digest": ["d.io"], "tag": ["t.io"], "both": ["t.io", "d.io"]}[rules.mirrors]
    covers = rules.mirrors in ("digest", "both")
    by_source = rules.recorded == "source" or (rules.recorded == "auto" and covers)
    listed = ALLOWED[rules.allowed]
    return [host for host in order if by_source or not listed or host in listed]


def of_failure(kind: str, rules: Rules) -> tuple[str, tuple[str, ...]]:
    """The rows of a failed import, first match: action and mirrors."""
    if rules.mirrors == "none":
        return "nothing", ()
    if not bypassed(kind, rules) or rules.refusal != "no" or rules.allowed == "mirrors" or not recordable(rules):
        return "refuse", ()
    return "import", tuple(recordable(rules))


CONDITION_AGE = 1000.0
"""How long ago the failure was written down."""


def expected(tag: Tag, rules: Rules) -> Expected | None:
    """The rows of a tag's state, first match; None: there is no plan at all."""
    failed = tag.condition not in ("none", "true")
    condition_age = None if tag.condition == "none" else tag.condition_age
    if tag.opted_out:
        return None
    if all(age is None or age < 0 for age in (tag.item_age, condition_age)):
        # The platform has it still to do. It does not write down the same failure twice, so what the source said before is its
        # answer still.
        previous_failure = failed and tag.about == SOURCE and tag.condition != "forbidden"
        if tag.stuck_after == 0 and not previous_failure:
            return Expected("wait")
        pending = tag.pending_for or 0.0
        if pending < STUCK_AFTER:
            return Expected("wait", again_in=STUCK_AFTER - pending)
        kind = tag.condition if previous_failure and not bypassed(tag.condition, rules) else "stuck"
        since = max(pending, tag.failing_for or 0.0)
        return Expected(of_failure(kind, rules)[0], kind, of_failure(kind, rules)[1], failing_for=since)
    if not failed:
        return Expected("nothing")
    since = max(CONDITION_AGE, tag.failing_for or 0.0)
    return Expected(of_failure(tag.condition, rules)[0], tag.condition, of_failure(tag.condition, rules)[1], failing_for=since)


# The check.


def document(tag: Tag) -> ImageStream:
    """The stream of a tag."""
    status: Object = {"tag": "v1"}
    if tag.item_age is not None:
        event = {"image": "sha256:aa", "dockerImageReference": "x", "generation": GENERATION + tag.item_age}
        status["items"] = [event]
    if tag.condition != "none":
        reason, message = FAILURES.get(tag.condition, ("", ""))
        status["conditions"] = [
            {
                "type": "ImportSuccess",
                "status": "True" if tag.condition == "true" else "False",
                "reason": reason,
                "message": message.format(tag.about),
                "generation": GENERATION + tag.condition_age,
                "lastTransitionTime": datetime.fromtimestamp(NOW - CONDITION_AGE, UTC).isoformat(),
            }
        ]
    spec = {
        "name": "v1",
        "from": {"kind": "DockerImage", "name": SOURCE},
        "generation": GENERATION,
        "importPolicy": {"scheduled": tag.scheduled},
    }
    annotations = {"mirrorstream.github.io/import": "disabled"} if tag.opted_out else {}
    metadata = {"name": "app", "namespace": "ns", "uid": "u", "generation": GENERATION, "annotations": annotations}
    return imagestream_from({"metadata": metadata, "spec": {"tags": [spec]}, "status": {"tags": [status]}})


def policy(rules: Rules) -> MirrorPolicy:
    """The mirror rules of a configuration."""
    config = {
        "registrySources": REFUSALS[rules.refusal],
        "allowedRegistriesForImport": [{"domainName": host} for host in ALLOWED[rules.allowed]],
    }
    image = {"kind": "Image", "metadata": {"name": "cluster"}, "spec": config}
    return remembering(MirrorPolicy.from_objects([*MIRRORS[rules.mirrors], image]))


def found(plan: TagPlan | None) -> Expected | None:
    """A plan in the specification's terms."""
    if plan is None:
        return None
    return Expected(
        str(plan.action),
        str(plan.failure.kind) if plan.failure else None,
        tuple(candidate.host for candidate in plan.candidates),
        None if plan.again_at is None else plan.again_at - NOW,
        None if plan.failing_since is None else NOW - plan.failing_since,
    )


def decide(tag: Tag, stream: ImageStream, rules: Rules, mirrors: MirrorPolicy) -> TagPlan | None:
    """What the code decides."""
    history = History(
        {} if tag.pending_for is None else {"v1": NOW - tag.pending_for},
        {} if tag.failing_for is None else {"v1": NOW - tag.failing_for},
    )
    settings = PlanSettings(Bypass(rules.bypass_not_found, rules.bypass_denied), rules.recorded, tag.stuck_after, REPLACE_AFTER)
    plans = plan_stream(stream, mirrors, settings, history, NOW)
    assert len(plans) <= 1
    return plans[0] if plans else None


PLAIN = [Rules("both", "no", "all", bypass, recorded) for bypass in (False, True) for recorded in ("auto", "mirror")] + [
    Rules("none", "no", "all", False, "auto"),
    Rules("digest", "blocked", "all", False, "auto"),
    Rules("both", "no", "all", False, "auto", bypass_denied=False),
]
"""Configurations of every kind of answer."""


def test_every_state_of_a_tag() -> None:
    """All states, each under a configuration of every kind of answer: which tags are looked at, and for what failure."""
    seen: Counter[str] = Counter()
    for tag in every_tag():
        stream = document(tag)
        for rules in PLAIN:
            wanted = expected(tag, rules)
            plan = decide(tag, stream, rules, POLICIES[rules])
            assert found(plan) == wanted, (tag, rules)
            seen[wanted.action if wanted else "none"] += 1
    assert set(seen) == {"none", "nothing", "wait", "import", "refuse"}
    assert sum(seen.values()) == 88 * 4 * 2 * 2 * 2 * 3 * 3 * len(PLAIN)


POLICIES = {rules: policy(rules) for rules in (*every_rule(), *PLAIN)}
FAILED = [Tag(kind, SOURCE, 0, item, False, False, STUCK_AFTER, None, None) for kind in FAILURES for item in (None, -1, 0, 1)] + [
    Tag("none", SOURCE, 0, item, False, False, STUCK_AFTER, STUCK_AFTER, None) for item in (None, -1)
]


def test_every_configuration() -> None:
    """All configurations, each for every way in which an import fails: through which mirrors, or why not."""
    seen: Counter[tuple[str, ...]] = Counter()
    for tag in FAILED:
        stream = document(tag)
        for rules in every_rule():
            wanted = expected(tag, rules)
            assert wanted
            assert found(decide(tag, stream, rules, POLICIES[rules])) == wanted, (tag, rules)
            seen[wanted.candidates] += 1
    assert set(seen) == {(), ("d.io",), ("t.io",), ("t.io", "d.io")}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("condition", [*FAILURES, "true", "none"])
def test_every_state_in_every_configuration(condition: str) -> None:
    """The whole product; without soak only that part of it in which rules are asked at all, as the first test shows."""
    checked = 0
    for tag in every_tag():
        unasked = tag.opted_out or tag.scheduled or tag.pending_for != STUCK_AFTER or tag.failing_for is not None
        if tag.condition != condition or (unasked and not SOAK):
            continue
        stream = document(tag)
        for rules in every_rule():
            assert found(decide(tag, stream, rules, POLICIES[rules])) == expected(tag, rules), (tag, rules)
            checked += 1
    assert checked


# Replacing what a tag has.


@pytest.mark.parametrize("newest", ["", "sha256:aa", "sha256:bb"])
@pytest.mark.parametrize("ours", [False, True], ids=["platforms", "ours"])
@pytest.mark.parametrize("failing_for", [None, 0.0, REPLACE_AFTER - 1, REPLACE_AFTER])
@pytest.mark.parametrize("replace_after", [0.0, REPLACE_AFTER])
@pytest.mark.parametrize("settled", [True, False], ids=["settled", "of-an-earlier-source"])
def test_every_replacement(newest: str, ours: bool, failing_for: float | None, replace_after: float, settled: bool) -> None:
    """The platform's own item of the present source gives way to another digest once that has failed for long; all else at once."""
    (plan,) = plan_stream(document(FAILED[0]), POLICIES[PLAIN[0]], PlanSettings(), History(), NOW)
    since = None if failing_for is None else NOW - failing_for
    plan = TagPlan(plan.tag, plan.action, "", newest_image=newest, failing_since=since, settled=settled)
    decision = replacement(plan, "sha256:aa", newest_is_ours=ours, settings=PlanSettings(replace_after=replace_after), now=NOW)
    others = newest == "sha256:bb" and not ours and settled
    assert decision.allowed is (not others or (failing_for or 0.0) >= replace_after)
    assert decision.only_condition is (newest == "sha256:aa" and not ours and settled)
    assert decision.again_at == (None if decision.allowed else (since or NOW) + replace_after)


@pytest.mark.parametrize(
    ("unsettled", "settled"),
    [
        pytest.param({}, True, id="none"),
        pytest.param({"v1": UNKNOWN}, False, id="unknown"),
        pytest.param({"v1": EARLIER}, False, id="earlier"),
        pytest.param({"v1": OTHER}, False, id="another"),
        pytest.param({"v1": SOURCE}, True, id="the-present"),
        pytest.param({"v2": UNKNOWN}, True, id="another-tag"),
    ],
)
def test_whether_an_item_is_settled_is_in_the_plan(unsettled: dict[str, str], settled: bool) -> None:
    """Of a tag that the plan imports, and by it, whether its turn has come."""
    plans = [
        plan_stream(document(FAILED[0]), POLICIES[PLAIN[0]], PlanSettings(), History(unsettled=known), NOW)[0]
        for known in (unsettled, {})
    ]
    assert plans[0].settled is settled
    assert (plans[0].fingerprint == plans[1].fingerprint) is settled
