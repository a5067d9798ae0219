"""The answer about many clusters: read it as who runs all of them would."""

import pytest
from mirrorstream.diagnose.fleet import FAILING, UNKNOWN, Answer, FleetReport, UnaskedCluster, cluster_status, render_fleet
from mirrorstream.diagnose.hanging_pods import HangingPod, WaitsFor
from mirrorstream.diagnose.status import Rules, StatusReport
from mirrorstream.diagnose.tag_status import ControllerView, TagState, tag_states, with_origins
from mirrorstream.imagestream.outcomes import AttemptHistory, AttemptResult
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.text.terminal import layout

from tests.diagnose.builders import DIGEST, HOST, POLICY, attempt, failure, history, item, stream

NOTE = "you may not list Events, so what mirrorstream tried is not known"
POD = HangingPod("ns", "web", "c", "i", "ns/app:v1", "ImagePullBackOff", WaitsFor.IMPORT, "why", "helps")
TWICE = HangingPod("ns", "web", "d", "i", "ns/app:v1", "ImagePullBackOff", WaitsFor.IMPORT, "why", "helps")
AWAY = UnaskedCluster("away", "https://10.0.0.1:6443: connection refused")


def state(status: object = None, known: AttemptHistory | None = None, policy: MirrorPolicy = POLICY) -> TagState:
    """The state of one tag."""
    (found,) = tag_states(stream(status), policy, known or AttemptHistory(), ControllerView())  # type: ignore[arg-type]
    return found


LACKED = state(failure(), history(attempt(AttemptResult.FAILED, "not-found", "not-found")))
DENIED = state(failure(), history(attempt(AttemptResult.FAILED, "denied", "denied")))
NO_RULE = state(failure(), policy=MirrorPolicy.from_objects([]))
(HEALED,) = with_origins([state(item())], {(DIGEST, ""): HOST})


def cluster(name: str, *tags: TagState, streams: int = 1, pods: tuple[HangingPod, ...] | None = (), notes: str = "") -> Answer:
    """A cluster that answered."""
    return cluster_status(name, StatusReport(None, streams, tags, Rules(True), (notes,) if notes else (), pods))


def text(*clusters: Answer, namespace: str | None = None, width: int | None = None) -> str:
    """As it is in a pipe, or on a terminal."""
    return layout(render_fleet(FleetReport(namespace, clusters)), width=width)


def test_a_line_for_each_cluster_the_worst_first() -> None:
    """What fails, what could not be asked, and then the rest; a note once, with its clusters."""
    assert text(
        cluster("lab", HEALED, state(item())),
        cluster("empty", streams=0, notes=NOTE),
        AWAY,
        cluster("berlin", DENIED, pods=(POD, TWICE), notes=NOTE),
        cluster("odd", NO_RULE),
        cluster("paris", DENIED, LACKED, LACKED, NO_RULE, NO_RULE, NO_RULE),
    ) == (
        "6 clusters: 2 with failing tags, 1 that cannot be asked, 3 others\n"
        "\n"
        "paris   3 failing, 3 unmirrored           2 failing: m.io does not have it, n.io does not have it\n"
        "berlin  1 failing, 1 pod hangs            1 failing: m.io denies it, n.io denies it\n"
        "away    cannot be asked                   https://10.0.0.1:6443: connection refused\n"
        "odd     1 unmirrored                      1 unmirrored: no rule covers it\n"
        "empty   there is no ImageStream\n"
        "lab     nothing fails (2 tags, 1 healed)\n"
        "\n"
        f"Note: berlin, empty: {NOTE}\n"
        "\n"
        "More: `mirrorstream status -A --context paris`\n"
    )


def test_a_narrow_terminal_has_whole_numbers_and_contexts() -> None:
    """Fifty clusters have fifty lines, and what is too wide for one goes on below; an error is shortened."""
    clusters = [cluster(f"cluster-{n}", DENIED, LACKED) for n in range(49)]
    shown = text(*clusters, UnaskedCluster("away", "x" * 500), width=80).splitlines()
    assert max(map(len, shown)) <= 80
    assert len(shown) <= 2 + 50 + 5 + 2
    context = "default/api-paris-example-com:6443/kube:admin"
    narrow = text(cluster(context, DENIED, LACKED), width=60)
    assert context in narrow
    assert "2 failing" in narrow


@pytest.mark.parametrize(
    ("clusters", "status"),
    [
        pytest.param([cluster("a", HEALED), cluster("b", NO_RULE)], 0, id="all-asked-nothing-fails"),
        pytest.param([cluster("a", HEALED), cluster("b", LACKED)], FAILING, id="one-fails"),
        pytest.param([AWAY, cluster("b", LACKED)], FAILING, id="one-fails-another-is-away"),
        pytest.param([AWAY, cluster("b", HEALED)], UNKNOWN, id="one-is-away"),
        pytest.param([AWAY], UNKNOWN, id="none-could-be-asked"),
    ],
)
def test_the_exit_status(clusters: list[Answer], status: int) -> None:
    """0 only if every cluster was asked and nothing fails."""
    assert FleetReport(None, tuple(clusters)).exit_status == status


def test_the_document() -> None:
    """Numbers only where they are known."""
    document = FleetReport("ns", (AWAY, cluster("a", LACKED, pods=None, notes=NOTE))).document()
    (found,) = document["clusters"]
    assert document["namespace"] == "ns"
    assert document["unreachable"] == [{"context": "away", "error": AWAY.error}]
    assert (found["context"], found["pods"], found["notes"]) == ("a", None, [NOTE])
    assert (found["summary"]["streams"], found["summary"]["tags"]["failing"]) == (1, 1)
    assert (found["worst"]["state"], found["worst"]["count"]) == ("failing", 1)


def test_a_namespace_is_named() -> None:
    """In the first line, and in the command that tells more."""
    shown = text(cluster("a", LACKED), namespace="web")
    assert shown.startswith("Namespace web of 1 cluster: 1 with failing tags\n")
    assert shown.endswith("`mirrorstream status -n web --context a`\n")
