"""Tags of a stream that are imported in one request: what is wrong with one of them costs the others nothing."""

import itertools

import pytest

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.registries.registry import Failure, Registry
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for

ALONE = "import request failed, importing each tag alone"


def dry_runs(cluster: Cluster, ns: Namespace, mark: int) -> int:
    """How many dry runs mirrorstream has made in the namespace since a mark of the log."""
    path = f"/namespaces/{ns.name}/imagestreamimports"
    return sum(request.verb == "create" and request.path.endswith(path) for request in cluster.requests(mark))


def test_tags_of_a_stream_go_together_and_each_has_its_own_result(ns: Namespace, start: Start, observed: Cluster) -> None:
    """Three tags, of which the mirror lacks one: one request. On a busy machine the mirror may look slow, and they try again."""
    digest = ns.put("good", "app:v1")
    ns.put("good", "app:v3")
    ns.digest_mirrors()
    start(controller={"retry": {"initialSeconds": 300}})  # what fails is not asked for again in between
    assert observed.log
    log, numbers = observed.log, itertools.count()

    def together() -> bool:
        mark, name = log.mark(), f"app{next(numbers)}"
        ns.create(name, *(tag(version, ns.source(f"app:{version}")) for version in ("v1", "v2", "v3")))
        ns.wait_healed(name, "v1", digest)
        ns.wait_healed(name, "v3")
        assert ns.failure(name, "v2")
        return dry_runs(observed, ns, mark) == 1

    wait_for("three tags go in one request", together, seconds=100)


def test_a_tag_that_hangs_does_not_delay_those_that_went_with_it(ns: Namespace, start: Start) -> None:
    """They are recorded while the mirror still does not answer for that one."""
    if not ns.cluster.is_ours:
        pytest.skip("the cluster's settings are not ours to change")
    with Registry() as mirror:
        digest = mirror.put(f"{ns.name}/quick", "v1")
        mirror.failures[f"{ns.name}/hanging"] = Failure(seconds=600)
        ns.cluster.change_image_config(lambda spec: spec["registrySources"]["insecureRegistries"].append(mirror.host))
        ns.digest_mirrors(f"{mirror.host}/{ns.name}")
        running, numbers = start(), itertools.count()

        def went_along() -> bool:
            number = next(numbers)
            ns.create(f"first{number}", tag("v1", ns.source("quick:v1")))
            ns.wait_healed(f"first{number}", "v1", digest)
            sources = {"a": "quick:v1", "b": f"hanging:v{number}", "c": "quick:v1"}
            ns.create(f"app{number}", *(tag(name, ns.source(source)) for name, source in sources.items()))
            for name in ("a", "c"):
                ns.wait_healed(f"app{number}", name, digest)
            assert ns.failure(f"app{number}", "b")
            return any("b" in line["tags"] for line in running.lines(ALONE))

        wait_for("it went along with others", went_along, seconds=100)
        assert mirror.requests[f"{ns.name}/hanging"]
