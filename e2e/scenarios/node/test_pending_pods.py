"""What a repair touches on a node, and what it leaves running; `test_every_pod.py` shows that pods get going."""

from e2e.testbed.cluster import Namespace
from e2e.testbed.node.product import Product
from e2e.testbed.programs.installed import mirrored
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.workloads import pod, wait_hanging, wait_running


def test_all_that_has_not_started_is_replaced_in_one_change(product: Product, ns: Namespace) -> None:
    """Init containers one after another would each cost a back-off; nothing is restarted, and the pod's owner is told."""
    source = ns.source("app:v1")
    init = [{"name": f"init-{number}", "image": source, "command": ["/bin/true"]} for number in range(2)]
    ns.pod("app", source, source, initContainers=init)
    wait_hanging(ns, "app")
    _, target = mirrored(ns)
    found = wait_running(ns, "app")
    assert set(found.digests.values()) == {target.partition("@")[2]}
    assert (len(found.digests), found.restarts) == (4, 0)
    assert "init-1" in ns.wait_event("app", "PendingPodRepaired")


def test_a_container_that_runs_is_not_touched(product: Product, ns: Namespace) -> None:
    """Its neighbour hangs, and is mended beside it; also behind an init container that is through."""
    ns.allow_pulls()
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    by_digest, by_tag = f"{ns.source('app')}@{digest}", ns.source("app:v1")
    init = [{"name": "init", "image": by_digest, "command": ["/bin/true"]}]
    ns.pod("app", by_digest, by_tag, initContainers=init)
    wait_for("the first runs and the second hangs", lambda: "c0" in pod(ns, "app").digests and pod(ns, "app").hangs, seconds=20)
    ns.create("app", tag("v1", by_tag))
    ns.wait_healed("app", "v1", digest)
    found = wait_running(ns, "app")
    assert found.restarts == 0
    assert found.digests == dict.fromkeys(("init", "c0", "c1"), digest)
    assert (ns.image_of("app"), "@" in ns.image_of("app", 1)) == (by_digest, True)
