"""What stands between passes everything unchanged, but for what a test asks for."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirrorstream.kube.client import ApiError, ApiUnreachable, load_client

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.faults.actions import Hold, cut_answer, delay, hang, lose_answer, refuse, reset, watch_lines
from e2e.testbed.interceptor import Action, Interceptor, intercepted
from e2e.testbed.streams import IMAGE_API, tag
from e2e.testbed.support.waiting import wait_for

SETS = "/apis/config.openshift.io/v1/imagedigestmirrorsets"


@pytest.mark.fault("Nothing", "none: only the interceptor in between", "a stream heals as without it")
def test_a_stream_heals_through_it(ns: Namespace, start: Start, between: Interceptor, saw: dict[str, str]) -> None:
    """Credentials, bodies, watches: the controller notices nothing of it."""
    digest = ns.put("good", "app:v1")
    start(program=between.kubeconfig)
    ns.digest_mirrors()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_healed("app", "v1", digest)
    assert between.count("watch", "/imagestreams$") == 1
    assert between.count("update", f"/namespaces/{ns.name}/imagestreams/app/status$") == 1
    saw["requests"] = f"{between.count()}"


@pytest.mark.parametrize(
    ("action", "error"),
    [
        pytest.param(reset, ApiUnreachable, id="reset"),
        pytest.param(cut_answer, ApiUnreachable, id="cut"),
        pytest.param(hang, ApiUnreachable, id="hang"),
        pytest.param(refuse(429, "TooManyRequests"), ApiError, id="refuse"),
    ],
)
def test_what_can_become_of_a_request(cluster: Cluster, tmp_path: Path, action: Action, error: type[Exception]) -> None:
    """As often as asked for, and then no more."""
    with intercepted(cluster.program, tmp_path) as between:
        client = load_client(str(between.kubeconfig), in_cluster=False)
        with between.when("list", SETS, action, times=4) as rule:
            with pytest.raises(error):
                client.request("GET", SETS, timeout=0.5)
            assert rule.hits >= 1
        assert client.request("GET", SETS)["items"] is not None
        assert {seen.verb for seen in between.requests} == {"list"}


def test_a_lost_answer_is_of_a_request_that_was_carried_out(cluster: Cluster, tmp_path: Path) -> None:
    """The program hears nothing, and yet it happened."""
    with cluster.namespace() as ns, intercepted(cluster.kubeconfig, tmp_path) as between:
        client = load_client(str(between.kubeconfig), in_cluster=False)
        path = f"{IMAGE_API}/namespaces/{ns.name}/imagestreams"
        with between.when("create", path, lose_answer, times=1), pytest.raises(ApiUnreachable):
            client.request("POST", path, body={"metadata": {"name": "app"}})
        assert ns.get("app")["metadata"]["name"] == "app"


def test_late_is_not_lost(cluster: Cluster, tmp_path: Path) -> None:
    """A delayed request arrives."""
    with intercepted(cluster.program, tmp_path) as between:
        client = load_client(str(between.kubeconfig), in_cluster=False)
        began = time.monotonic()
        with between.when("list", SETS, delay(0.5)):
            client.request("GET", SETS)
        assert time.monotonic() - began >= 0.5


def test_what_is_held_waits_until_it_is_let_go(cluster: Cluster, tmp_path: Path) -> None:
    """And is carried out then; what its program has given up is not."""
    with cluster.namespace() as ns, intercepted(cluster.kubeconfig, tmp_path) as between:
        client = load_client(str(between.kubeconfig), in_cluster=False)
        path = f"{IMAGE_API}/namespaces/{ns.name}/imagestreams"
        hold = Hold()
        with between.when("create", path, hold):
            with pytest.raises(ApiUnreachable):
                client.request("POST", path, body={"metadata": {"name": "given-up"}}, timeout=0.5)
            sender = threading.Thread(target=client.request, args=("POST", path), kwargs={"body": {"metadata": {"name": "app"}}})
            sender.start()
            wait_for("it waits", lambda: between.count("create", path) == 2)
            assert not ns.streams()
            hold.let_go.set()
            sender.join(10)
        assert [stream["metadata"]["name"] for stream in ns.streams()] == ["app"]


def test_the_log_of_the_api_server_tells_programs_apart(ns: Namespace, observed: Cluster, tmp_path: Path) -> None:
    """By what is added to the user agent."""
    assert observed.log
    mark = observed.log.mark()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with intercepted(observed.program, tmp_path / name, f"{ns.name}/{name}") as between:
            load_client(str(between.kubeconfig), in_cluster=False).get(SETS)

    def agents() -> list[str]:
        return [request.agent for request in observed.requests(mark) if ns.name in request.agent]

    wait_for("both are in the log", lambda: len(agents()) == 2)
    assert agents() == [f"mirrorstream {ns.name}/first", f"mirrorstream {ns.name}/second"]


def test_watches_can_be_rewritten_and_dropped(cluster: Cluster, tmp_path: Path) -> None:
    """Lines are what a test makes of them, and `drop` ends the watch for the program."""

    def twice(lines: Iterator[bytes]) -> Iterator[bytes]:
        for line in lines:
            yield line
            yield line

    with cluster.namespace() as ns, intercepted(cluster.kubeconfig, tmp_path) as between:
        client = load_client(str(between.kubeconfig), in_cluster=False)
        path = f"{IMAGE_API}/namespaces/{ns.name}/imagestreams"
        version = client.get(path)["metadata"]["resourceVersion"]
        got: list[bytes] = []
        with between.when("watch", path, watch_lines(twice)):
            watch = client.watch(path, {"watch": "1", "resourceVersion": version}, read_timeout=60)

            def read() -> None:
                with contextlib.suppress(ApiUnreachable):
                    got.extend(watch)

            reader = threading.Thread(target=read)
            reader.start()
            ns.create("app")
            wait_for("both arrive", lambda: len(got) >= 2)
            assert got[0] == got[1]
            assert between.drop("watch") == 1
            reader.join(5)
            assert not reader.is_alive()
            watch.close()
