"""etcd is restored from a backup: the API server has an older version, and a watch from a later one hears nothing at all."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from e2e.scenarios.conftest import configuration
from e2e.scenarios.faults.conftest import Saw
from e2e.scenarios.faults.test_watches import COLLECTIONS, agree
from e2e.testbed.backends import SIMULATOR, Choice
from e2e.testbed.cluster import Cluster
from e2e.testbed.faults.hasty import WATCH_SECONDS, HastyController, HastyWebhook
from e2e.testbed.faults.reliability import often
from e2e.testbed.programs.hooks import registered, wait_asked
from e2e.testbed.programs.program import Program, running
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(often(600, 180))
WENT_BACK = "the API server went back to an older version, listing again"
OUTAGE_SECONDS = 2
RELIST_SECONDS = 60
"""Within which everything is listed again, and what failed is healed soon after."""


def _listed_again(program: Program) -> bool:
    return COLLECTIONS.keys() <= {line["resource"] for line in program.lines(WENT_BACK)}


@pytest.mark.fault(
    "API server",
    "etcd restored from an older backup, with an outage and without",
    f"Everything is listed again within {RELIST_SECONDS} s. Streams and rules that come back are handled, what is gone is "
    "forgotten, and pods get what the streams have now",
)
@pytest.mark.parametrize("outage", [True, False], ids=["outage", "watches-end"])
def test_restored_from_a_backup(
    own_cluster: Callable[..., Cluster], chosen: Choice, tmp_path: Path, saw: Saw, outage: bool
) -> None:
    """Versions of before are used again for other states."""
    if chosen.backend != SIMULATOR:
        pytest.skip("only the simulator can be restored by request")
    cluster = own_cluster()
    with cluster.namespace() as ns:
        ns.allow_pulls()
        old, new = ns.put("good", "app:v1"), ns.put("good", "app:v2")
        back = ns.put("good", "back:v1")
        rule = ns.digest_mirrors()
        with (
            running(HastyController(cluster.program, tmp_path, configuration(ns), "--no-leader-election")) as controller,
            running(HastyWebhook(cluster.webhook, tmp_path, {})) as webhook,
            registered(webhook, ns.client, [ns.name]),
        ):

            def digest_of(image: str) -> str:
                found: str = ns.pod("seen", image, dry_run=True)["spec"]["containers"][0]["image"]
                return found.partition("@")[2]

            wait_asked(webhook, ns)
            ns.create("app", tag("v1", ns.source("app:v1")))
            ns.wait_healed("app", "v1", old)
            ns.create("failing", tag("v1", ns.source("back:v1")))
            ns.wait_healed("failing", "v1", back)
            cluster.control("back-up")
            ns.change("app", lambda stream: stream["spec"]["tags"][0]["from"].update(name=ns.source("app:v2")))
            ns.wait_healed("app", "v1", new)
            ns.delete("failing")
            ns.create("gone", tag("v1", ns.source("app:v1")))
            ns.wait_healed("gone", "v1", old)
            ns.remove_mirror_set(rule)
            wait_for("the webhook knows that the rule is gone", lambda: digest_of(ns.source("app:v2")) == "")
            began = time.monotonic()
            if outage:
                cluster.control("outage", {"seconds": OUTAGE_SECONDS, "restore": True})
            else:
                cluster.control("restore")
            for program in (controller, webhook):
                wait_for("streams and rules are listed again", partial(_listed_again, program), seconds=RELIST_SECONDS)
            saw["listed again after"] = (
                f"{time.monotonic() - began:.1f} s, with watches of {WATCH_SECONDS[0]} to {WATCH_SECONDS[1]} s"
            )
            for program in (controller, webhook):
                agree(program, cluster)
            assert digest_of(ns.source("app:v1")) == old
            ns.create("later", tag("v1", ns.source("app:v2")))
            ns.wait_healed("later", "v1", new)
            ns.change("app", lambda stream: stream["spec"]["tags"][0]["from"].update(name=ns.source("app:v2")))
            ns.wait_healed("app", "v1", new)
