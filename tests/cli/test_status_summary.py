"""The first screen of `status`: what it says of tags that are well, what it offers, and how long it may be."""

import dataclasses
from collections.abc import Callable

import pytest
from mirrorstream.diagnose.missing import imageset, missing_images
from mirrorstream.diagnose.status import StatusReport
from mirrorstream.diagnose.tag_status import State, TagState
from mirrorstream.imagestream.model import ImportPolicy
from mirrorstream.rules.policy import PolicyWarning
from mirrorstream.text.terminal import LEAST_WIDTH, layout
from mirrorstream_cli.commands.status import text_lines
from mirrorstream_cli.groups import SCREEN
from mirrorstream_cli.status_summary import render_summary

from tests.cli.bad_day import RULES, status_report
from tests.diagnose.builders import DIGEST, NOW

SCHEDULED = TagState("openshift", "jenkins", "v1", State.HEALED, "src.io/a:v1", import_policy=ImportPolicy(scheduled=True))


def report(*tags: TagState) -> StatusReport:
    """All namespaces of a cluster with these tags."""
    return StatusReport(None, len(tags), tags, RULES)


def screen(*tags: TagState, width: int | None = None) -> str:
    """What people read first."""
    return layout(render_summary(report(*tags), NOW, width), width=width)


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("state", [State.FAILING, State.HELD])
def test_a_scheduled_tag_that_does_not_heal_is_not_told_as_healed(state: State, everything: bool) -> None:
    """`suggest` has nothing for it, and nothing imports it each time."""
    other = dataclasses.replace(SCHEDULED, stream="other", state=state)
    alone = layout(text_lines(report(other), NOW, None, everything=everything))
    assert "scheduled import" not in alone
    assert "suggest" not in alone
    both = layout(text_lines(report(other, SCHEDULED), NOW, None, everything=everything))
    assert "`mirrorstream suggest` prints" in both
    section = both[both.index("each scheduled import") : both.index("Mirror rules")]
    assert "openshift/jenkins:v1" in section
    assert "openshift/other" not in section


def test_many_scheduled_samples_leave_room_for_what_fails() -> None:
    """Three streams are named, and every group is there; `--all` names all streams."""
    samples = [dataclasses.replace(SCHEDULED, stream=f"a-sample-{n:03}", is_sample=True) for n in range(200)]
    failing = [TagState("web", f"s-{n}", "v1", State.OPTED_OUT, "src.io/b:v1", why=f"reason {n % 4}") for n in range(8)]
    found = screen(*samples, *failing, width=80)
    assert found.count("\n") <= SCREEN
    assert found.count("2 opted-out: reason") == 4
    plain = screen(*samples, *failing)
    assert "add a-sample-000, a-sample-001, a-sample-002 and 197 more (`mirrorstream suggest` names all) to spec." in plain
    whole = layout(text_lines(report(*samples), NOW, None, everything=True))
    assert f"add {', '.join(tag.stream for tag in samples)} to spec.skippedImagestreams" in whole


WIDTHS = [20, 40, 45, 50, 60, 80, 100, 160]


def longest_names() -> StatusReport:
    """A bad day on which tenants chose the longest names that they may."""
    day = status_report("many")
    names = {"namespace": "n" * 63, "stream": "s" * 103, "tag": "t" * 60}
    tags = tuple(
        dataclasses.replace(tag, namespace=f"{number % 4}{'n' * 62}", stream=f"{number:03}{'s' * 100}", tag="t" * 60)
        for number, tag in enumerate(day.tags)
    )
    whole = f"{names['namespace']}/{names['stream']}:{names['tag']}"
    pods = tuple(dataclasses.replace(pod, namespace=names["namespace"], pod=f"{pod.pod}{'p' * 50}", tag=whole) for pod in day.pods)
    return dataclasses.replace(day, tags=tags, pods=pods)


def everything() -> StatusReport:
    """Longest names, and all else that may be told, with the longest texts."""
    day = longest_names()
    scheduled = tuple(
        dataclasses.replace(SCHEDULED, stream=f"{n:03}{'s' * 100}", is_sample=True, warnings=(f"reason {n} {'w ' * 200}",))
        for n in range(200)
    )
    out = tuple(TagState("o" * 63, "s" * 103, f"v{n}", State.OPTED_OUT, "src.io/b:v1", why=f"{n} {'why ' * 90}") for n in range(9))
    rules = dataclasses.replace(RULES, warnings=tuple(PolicyWarning("Kind/n", "spec", "m " * 300) for _ in range(20)))
    remarks = tuple(f"note {n} {'text ' * 100}" for n in range(12))
    return dataclasses.replace(day, tags=(*day.tags, *scheduled, *out), rules=rules, notes=remarks)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("made", [longest_names, everything])
def test_whatever_the_cluster_it_is_one_screen(made: Callable[[], StatusReport], width: int) -> None:
    """The commands at the end are whole, since people copy them."""
    report = made()
    lines = render_summary(report, NOW, width)
    found = layout(lines, width=width)
    assert found.count("\n") <= SCREEN
    assert max(map(len, found.splitlines())) <= max(width, LEAST_WIDTH)
    plain = layout(lines)
    assert "mirrorstream missing -A -o imageset  " in plain
    assert any(f"mirrorstream explain {tag.name}  " in plain for tag in report.tags)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_narrow_terminal_has_more_than_one_group(width: int) -> None:
    """Less of each group comes before fewer groups."""
    found = layout(render_summary(status_report("many"), NOW, width), width=width)
    assert found.count("\n") <= SCREEN
    assert found.count("\n  helps: ") >= 2


FAILS = TagState("web", "app", "v1", State.UNMIRRORED, "src.io/b:v1")
LACKED = status_report("few").tags[0]


@pytest.mark.parametrize(
    ("tags", "offer"),
    [
        pytest.param([LACKED], "mirrorstream missing -A -o imageset  ", id="a-mirror-lacks-it"),
        pytest.param([LACKED, FAILS], "mirrorstream missing -A -o imageset  ", id="one-and-the-other"),
        pytest.param([FAILS], "mirrorstream missing -A -o imageset --unmirrored  ", id="no-rule"),
        pytest.param([dataclasses.replace(LACKED, tag="")], "", id="a-whole-repository"),
        pytest.param([dataclasses.replace(FAILS, tag="")], "", id="a-whole-repository-without-a-rule"),
        pytest.param([dataclasses.replace(FAILS, state=State.OPTED_OUT, why="x")], "", id="opted-out"),
    ],
)
def test_a_list_for_oc_mirror_is_offered_where_it_is_not_empty(tags: list[TagState], offer: str) -> None:
    """With --unmirrored, where it is empty without."""
    found = screen(*tags)
    assert ("imageset" in found) == bool(offer)
    assert offer in found
    listed, _ = imageset(missing_images(tags), unmirrored="--unmirrored" in offer)
    assert bool(listed["mirror"]) == bool(offer)


def test_warnings_that_differ_in_the_repository_are_one_group() -> None:
    """What is left out is counted."""
    text = "the internal registry cannot pull from {}, which is insecure"
    tags = [
        dataclasses.replace(
            SCHEDULED, stream=f"s-{n}", state=State.IMPORTED, image=f"h.io/r-{n}@{DIGEST}", warnings=(text.format(f"h.io/r-{n}"),)
        )
        for n in range(30)
    ]
    found = screen(*tags)
    assert "images of 30 tags\n  why:          the internal registry cannot pull from its repository, which is insecure\n" in found
    several = [dataclasses.replace(tag, warnings=(f"reason {n}",)) for n, tag in enumerate(tags)]
    assert "and 22 tags for 22 more reasons: --all lists all\n" in screen(*several)
