"""The commands in a hosted cluster, where nobody may create mirror sets: what they advise where no rule covers a tag."""

import pytest
from mirrorstream.kube.client import Client

from e2e.testbed.infrastructure import ELSEWHERE, ON_ITS_OWN_NODES, set_topology
from e2e.testbed.simulator.simulator import Simulator
from tests.cli.simulated import DEAD, Run, cover, create, fail, heal, local, pod

HOSTED = "the source in imageContentSources of the HostedCluster, in the management cluster (ROSA: `rosa create image-mirror`)"
MIRROR_SET = "a mirror set that covers the source"
UNKNOWN = "whether this is a hosted cluster, where nobody may create mirror sets, is not known"
COMMANDS = {"status -A": 2, "status -n ns -o json": 2, "status --contexts test -o json": 1, "check -A": 1}
"""What advises, and how often: `status` for the tag, and for the pod that hangs on it."""


def answer(run: Run, capsys: pytest.CaptureFixture[str], command: str) -> str:
    """What a command prints."""
    run(*command.split())
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def asked(simulator: Simulator) -> int:
    """How often the command asked where the control plane runs."""
    requests = [request for request in simulator.server.requests if request["userAgent"].startswith("kubectl-mirrorstream")]
    return sum(request["path"].endswith("/infrastructures/cluster") for request in requests)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("topology", "helps", "other"),
    [(ELSEWHERE, HOSTED, MIRROR_SET), (ON_ITS_OWN_NODES, MIRROR_SET, HOSTED)],
    ids=["hosted", "usual"],
)
def test_where_a_rule_can_be_added(
    run: Run, simulator: Simulator, client: Client, capsys: pytest.CaptureFixture[str],
    topology: str, helps: str, other: str, command: str,
) -> None:  # fmt: skip
    """In a hosted cluster not by a mirror set. One request tells."""
    set_topology(client, topology)
    local(client)
    create(client, pod("web", DEAD))
    found = answer(run, capsys, command)
    assert found.count(helps) == COMMANDS[command]
    assert other not in found
    assert UNKNOWN not in found
    assert asked(simulator) == 1


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("status", [403, 503])
def test_what_cannot_be_read_is_not_known(
    run: Run, simulator: Simulator, client: Client, capsys: pytest.CaptureFixture[str], status: int, command: str
) -> None:
    """The rest of the answer is there, with a note."""
    set_topology(client, ELSEWHERE)
    fail(simulator, status, "infrastructures")
    found = answer(run, capsys, command)
    assert MIRROR_SET in found
    assert UNKNOWN in found


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("heals", [True, False], ids=["healed", "covered"])
def test_nothing_is_asked_where_no_advice_depends_on_it(
    run: Run, simulator: Simulator, client: Client, capsys: pytest.CaptureFixture[str], heals: bool, command: str
) -> None:
    """Where rules cover all tags."""
    cover(client)
    if heals:
        heal(client)
    assert UNKNOWN not in answer(run, capsys, command)
    assert asked(simulator) == 0


def test_a_pod_that_needs_a_rule_for_a_tag_with_an_image(run: Run, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """As is so with `webhook.scope: mirrored`."""
    set_topology(client, ELSEWHERE)
    local(client)
    heal(client)
    create(client, pod("web", DEAD))
    found = answer(run, capsys, "status -n ns -o json")
    assert "(webhook.scope: mirrored)" in found
    assert f'"helps": "{HOSTED}"' in found
