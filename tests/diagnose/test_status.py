"""The text of `status`: read it as a user would."""

import pytest
from mirrorstream.diagnose.status import DETAILED, RuleObject, Rules, StatusReport, render_status
from mirrorstream.diagnose.tag_status import ControllerView, State, TagState, tag_states, with_origins
from mirrorstream.imagestream.outcomes import AttemptHistory, AttemptResult
from mirrorstream.rules.policy import MirrorPolicy, PolicyWarning
from mirrorstream.text.terminal import layout

from tests.diagnose.builders import DIGEST, HOST, NOT_FOUND, NOW, POLICY, attempt, failure, history, item, stream

RULES = Rules(True, (RuleObject("ImageDigestMirrorSet/m", 1),), (PolicyWarning("ImageTagMirrorSet/x", "spec.y", "is nothing"),))


def state(status: object = None, known: AttemptHistory | None = None, policy: MirrorPolicy | None = POLICY) -> TagState:
    """The state of one tag."""
    (found,) = tag_states(stream(status), policy, known or AttemptHistory(), ControllerView())  # type: ignore[arg-type]
    return found


def report(*tags: TagState, rules: Rules = RULES, streams: int = 1, notes: tuple[str, ...] = ()) -> StatusReport:
    """A report of a namespace."""
    return StatusReport("ns", streams, tags, rules, notes)


def text(found: StatusReport) -> str:
    """As it is in a pipe."""
    return layout(render_status(found, NOW))


def test_the_whole_answer() -> None:
    """Failures first and at length, then the rest."""
    failing = state(failure(), history(attempt(AttemptResult.FAILED, "not-found", "timeout")))
    refused = state(failure(NOT_FOUND, "NotFound"))
    (healed,) = with_origins([state(item())], {(DIGEST, ""): HOST})
    assert text(report(failing, refused, healed, state(), notes=("you see little",))) == (
        "Namespace ns: 1 failing, 1 refused, 1 pending, 1 healed; 4 tags in 1 stream\n"
        "\n"
        "Failing (mirrorstream imports it as soon as a mirror serves it)\n"
        "  ns/app:v1  for 1h, unreachable\n"
        "    from:         src.io/team/app:v1\n"
        "    failure:      dial tcp 10.0.0.1:443: connect: connection refused\n"
        "    tried:        failed 2m ago, 3 times with this result\n"
        "      m.io/x/team/app:v1  not-found\n"
        "      n.io/y/team/app:v1  timeout\n"
        "\n"
        "Refused (no mirror may stand in here, so somebody has to act)\n"
        "  ns/app:v1  for 1h, not-found\n"
        "    from:         src.io/team/app:v1\n"
        "    failure:      not found\n"
        "    why:          the failure (not-found) must not be bypassed, since mirrors.bypassNotFound is false\n"
        "\n"
        "Pending (the platform has not finished its import)\n"
        "  ns/app:v1  from src.io/team/app:v1\n"
        "\n"
        "Healed (imported through a mirror)\n"
        "  ns/app:v1  through m.io\n"
        "\n"
        "Mirror rules: 1 source in 1 object\n"
        "  ImageDigestMirrorSet/m  1 source\n"
        "Parts of them that cannot be used:\n"
        "  ImageTagMirrorSet/x: spec.y: is nothing\n"
        "Note: you see little\n"
    )


def test_without_an_event_the_rules_say_what_would_be_tried() -> None:
    """And that nothing is known to have been."""
    assert (
        "    tried:        no attempt is known from Events\n"
        "      candidates, in this order:\n"
        "        m.io/x/team/app:v1  ImageDigestMirrorSet/m\n"
        "        n.io/y/team/app:v1  ImageDigestMirrorSet/m\n"
    ) in text(report(state(failure())))


def test_a_mirror_that_came_later_is_said() -> None:
    """The Event does not know of it."""
    assert "      not yet: n.io/y/team/app:v1\n" in text(
        report(state(failure(), history(attempt(AttemptResult.FAILED, "not-found"))))
    )


HELD = attempt(
    AttemptResult.HELD, "not-found", "", message="serves another image than the source did, sha256:b: it replaces it from T on"
)


def test_a_held_tag_says_until_when() -> None:
    """It has an image, so nothing is broken by it; the source is."""
    held = state({**item(1), "conditions": failure()["conditions"]}, history(HELD))
    assert text(report(held)).startswith(
        "Namespace ns: 1 held; 1 tag in 1 stream\n"
        "\n"
        "Held (keeps its image until the source has failed for long enough: a mirror has another one)\n"
        "  ns/app:v1  for 1h, unreachable\n"
        "    from:         src.io/team/app:v1\n"
        "    failure:      dial tcp 10.0.0.1:443: connect: connection refused\n"
        "    why:          n.io/y/team/app:v1 serves another image than the source did, sha256:b: it replaces it from T on\n"
        "    tried:        held 2m ago, 3 times with this result\n"
        "      m.io/x/team/app:v1  not-found\n"
        "      n.io/y/team/app:v1  served it\n"
        f"    still has:    src.io/team/app@{DIGEST}\n"
    )
    assert (report(held).broken, report(held).unsettled) == (True, False)


def test_many_failures_get_a_line_each() -> None:
    """Nobody reads a thousand lines; `explain` tells more of each."""
    found = text(report(*[state(failure())] * (DETAILED + 1)))
    assert found.count("  ns/app:v1  for 1h, unreachable  from src.io/team/app:v1\n") == DETAILED + 1
    assert "`mirrorstream explain NAMESPACE/STREAM:TAG` tells more of each" in found


def test_every_tag_is_listed() -> None:
    """Whoever asks for all gets all."""
    healed = with_origins([state(item())] * 25, {(DIGEST, ""): HOST})
    assert text(report(*healed)).count("  ns/app:v1  through m.io\n") == 25


@pytest.mark.parametrize(
    ("tags", "streams", "says"),
    [
        ([], 0, "Namespace ns: there is no ImageStream\n"),
        ([state(item())], 1, "Namespace ns: nothing fails; 1 tag in 1 stream\n"),
        (with_origins([state(item())], {(DIGEST, ""): HOST}), 2, "Namespace ns: nothing fails; 1 healed; 1 tag in 2 streams\n"),
    ],
)
def test_the_headline(tags: list[TagState], streams: int, says: str) -> None:
    """It is all that many read."""
    assert text(report(*tags, streams=streams)).startswith(says)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (Rules(known=False), "Mirror rules: you have no permission to list them\n"),
        (Rules(known=True), "Mirror rules: there are none\n"),
    ],
)
def test_no_rules(rules: Rules, says: str) -> None:
    """None, and none that may be seen, are two things."""
    assert says in text(report(state(item()), rules=rules))


@pytest.mark.parametrize(
    ("found", "broken", "unsettled"),
    [
        (state(failure()), True, True),
        (state(failure(NOT_FOUND, "NotFound")), True, False),
        (state(failure(), policy=MirrorPolicy.from_objects([])), False, False),
        (state(), False, True),
        (state(item()), False, False),
    ],
    ids=["failing", "refused", "unmirrored", "pending", "imported"],
)
def test_what_counts_and_what_is_worth_waiting_for(found: TagState, broken: bool, unsettled: bool) -> None:
    """Waiting does not help what is refused."""
    assert (report(found).broken, report(found).unsettled) == (broken, unsettled)


def test_a_pending_tag_is_listed_with_what_its_source_answered_before() -> None:
    """Who reads the list sees where waiting will hardly help."""
    assert "from src.io/team/app:v1; before: not-found" in text(report(state(failure(NOT_FOUND, "NotFound", generation=1))))
    assert "before:" not in text(report(state()))


def test_tags_whose_image_pods_may_be_unable_to_run_are_listed_by_the_reason() -> None:
    """Also those that are well, which are otherwise counted only."""
    reason, other = "the reason", "another"
    tags = [
        TagState("ns", "app", f"v{n:02}", State.IMPORTED, "src.io/team/app:v1", warnings=(reason, other) if n == 3 else (reason,))
        for n in range(22)
    ]
    found = text(report(*tags, state(item())))
    assert ("Pods may be unable to run (an image that its tag has)\n  the reason\n    ns/app:v00\n") in found
    assert "    ns/app:v20\n    ns/app:v21\n  another\n    ns/app:v03\n\n" in found
    document = report(*tags, state(item())).document()
    assert [tag["tag"] for tag in document["tags"] if tag["warnings"]] == [f"v{n:02}" for n in range(22)]


def test_the_document() -> None:
    """Every state is counted, and every tag listed."""
    document = report(state(failure()), state(item()), notes=("n",)).document()
    assert set(document) == {"namespace", "summary", "groups", "tags", "pods", "rules", "notes"}
    counts = {str(one): 0 for one in State} | {"failing": 1, "imported": 1}
    assert document["summary"] == {"streams": 1, "tags": counts}
    assert [tag["state"] for tag in document["tags"]] == ["failing", "imported"]
    assert document["rules"] == {
        "known": True,
        "objects": [{"object": "ImageDigestMirrorSet/m", "sources": 1}],
        "warnings": [{"object": "ImageTagMirrorSet/x", "field": "spec.y", "message": "is nothing"}],
    }


def test_everything_has_the_imported_tags_too() -> None:
    """They are otherwise only counted."""
    found = report(state(failure()), state(item()))
    assert "Imported" not in layout(render_status(found, NOW))
    shown = layout(render_status(found, NOW, everything=True))
    assert "Imported (its import succeeded without mirrorstream)\n  ns/app:v1  from src.io/team/app:v1\n" in shown
