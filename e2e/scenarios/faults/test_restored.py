"""etcd is restored from a backup: the API server has an older version, and a watch from a later one hears nothing at all."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mirrorstream.kube.client import ApiError, ClientError

from e2e.scenarios.conftest import configuration
from e2e.scenarios.faults.conftest import Saw
from e2e.testbed.backends import SIMULATOR, Choice
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.faults.agreement import agree
from e2e.testbed.faults.hasty import WATCH_SECONDS, HastyController, HastyWebhook
from e2e.testbed.programs.hooks import registered, wait_asked
from e2e.testbed.programs.program import running
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(600)
OUTAGE_SECONDS = 2
RELIST_SECONDS = 60
"""Within which everything is listed again, and what failed is healed soon after."""


def _is_absent(ns: Namespace, stream: str) -> bool:
    """Whether the API server reports that the stream does not exist. False while the API server is down."""
    try:
        ns.get(stream)
    except ClientError as error:
        return isinstance(error, ApiError) and error.status == 404
    return False


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
    if chosen.backend != SIMULATOR and not outage:
        pytest.skip("a real etcd is restored while its API server is away")
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
            cluster.back_up()
            ns.change("app", lambda stream: stream["spec"]["tags"][0]["from"].update(name=ns.source("app:v2")))
            ns.wait_healed("app", "v1", new)
            ns.delete("failing")
            for name in ("gone", "gone-too"):
                ns.create(name, tag("v1", ns.source("app:v1")))
                ns.wait_healed(name, "v1", old)
            ns.remove_mirror_set(rule)
            wait_for("the webhook knows that the rule is gone", lambda: digest_of(ns.source("app:v2")) == "")
            if outage:
                cluster.restore(outage=OUTAGE_SECONDS)
            else:
                cluster.control("restore")
            wait_for("the backup is served", lambda: _is_absent(ns, "gone"))
            began = time.monotonic()
            for program in (controller, webhook):  # there are fewer streams and more rules than before
                agree(program, cluster, seconds=RELIST_SECONDS)
            saw["listed again after"] = (
                f"{time.monotonic() - began:.1f} s, with watches of {WATCH_SECONDS[0]} to {WATCH_SECONDS[1]} s"
            )
            wait_for("pods get the backup's image", lambda: digest_of(ns.source("app:v1")) == old)
            ns.create("later", tag("v1", ns.source("app:v2")))
            ns.wait_healed("later", "v1", new)
            ns.change("app", lambda stream: stream["spec"]["tags"][0]["from"].update(name=ns.source("app:v2")))
            ns.wait_healed("app", "v1", new)
