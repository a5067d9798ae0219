"""What every installation of mirrorstream has, seen on the run's node."""

from e2e.testbed.cluster import Namespace
from e2e.testbed.node.product import Product
from e2e.testbed.programs.installed import image_of, mirrored
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.workloads import state, wait_running


def test_a_pod_runs_the_image_of_a_healed_tag(product: Product, ns: Namespace) -> None:
    """The source is dead; the controller heals the tag, the webhook changes the pod's image, and the node pulls that."""
    source, target = mirrored(ns)
    wait_for("the webhook knows the tag", lambda: image_of(ns.pod("seen", source, dry_run=True)) != source)
    ns.pod("app", source)
    assert wait_running(ns, "app").digests == {"c0": target.partition("@")[2]}


def test_its_own_pods_run_as_their_manifests_say(product: Product) -> None:
    """Probes succeed, no container had to start again, and nothing went wrong unseen."""
    states = [state(pod) for pod in product.pods()]
    assert [(found.ready, found.restarts) for found in states] == [(True, 0)] * 2
    assert "Traceback" not in product.log("controller") + product.log("webhook")
    assert "mirrorstream_" in product.metrics("controller")
    assert "mirrorstream_webhook_" in product.metrics("webhook")
