"""mirrorstream's own access to the API server: tokens that are rotated, and being told to slow down."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError, Client, ClientError, load_client
from mirrorstream.kube.credentials import find_credentials

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.installation import CONTROLLER, Installation
from e2e.testbed.streams import IMAGE_API, tag
from e2e.testbed.support.waiting import wait_for

FLOWS = "/apis/flowcontrol.apiserver.k8s.io/v1"


@pytest.fixture
def installation(authorized: Cluster, ns: Namespace) -> Iterator[Installation]:
    """Mirrorstream's service account in the scenario's namespace."""
    with Installation(authorized.client, ns.name) as made:
        made.wait_effective()
        yield made


def _holder(ns: Namespace, name: str) -> Any:
    """A Secret that a token can be bound to."""
    path = f"/api/v1/namespaces/{ns.name}/secrets"
    return {"kind": "Secret", **ns.client.request("POST", path, body={"metadata": {"name": name}})}


def _asks(client: Client) -> int:
    """The status that a request gets."""
    try:
        client.get("/apis/image.openshift.io/v1/imagestreams", {"limit": "1"})
    except ApiError as error:
        return error.status
    return 200


@pytest.mark.parametrize("late", [False, True], ids=["in-time", "late"])
def test_a_rotated_token_is_taken_over(ns: Namespace, installation: Installation, start: Start, tmp_path: Path, late: bool) -> None:
    """The kubelet replaces the file; a client with the old token gets 401, reads the file again and continues."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    first = _holder(ns, "first")
    old = installation.kubeconfig(tmp_path / "old.kubeconfig", ns.cluster.kubeconfig, installation.token(first))
    path = tmp_path / "program.kubeconfig"
    installation.kubeconfig(path, ns.cluster.kubeconfig, path.with_name("old.token").read_text(encoding="utf-8"))
    fresh = installation.token(_holder(ns, "second"))
    start(program=path)
    ns.create("one", tag("v1", ns.source("app:v1")))
    ns.wait_healed("one", "v1", digest)
    if not late:
        path.with_suffix(".token").write_text(fresh, encoding="utf-8")
    ns.client.request("DELETE", f"/api/v1/namespaces/{ns.name}/secrets/first")
    nobody = load_client(str(old), in_cluster=False, user_agent="test")
    wait_for("the old token is refused", lambda: _asks(nobody) == 401)
    ns.create("two", tag("v1", ns.source("app:v1")))
    if late:
        ns.stays("failed", lambda: not ns.healed("two", "v1"))
        path.with_suffix(".token").write_text(fresh, encoding="utf-8")
    ns.wait_healed("two", "v1", digest)


@contextmanager
def _throttled(ns: Namespace, account: Installation, program: Path) -> Iterator[None]:
    """kube-apiserver refuses the account's requests with 429 and Retry-After, since one of them takes up all it may have.

    A level with no shares still admits one request at a time, so that is kept busy with imports from a host that never answers.
    """
    level: dict[str, Any] = {"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0}
    limited = {"type": "Limited", "limited": {**level, "limitResponse": {"type": "Reject"}}}
    subject = {"kind": "ServiceAccount", "serviceAccount": {"name": CONTROLLER, "namespace": account.namespace}}
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
    flow = {
        "priorityLevelConfiguration": {"name": ns.name},
        "matchingPrecedence": 2,
        "rules": [{"subjects": [subject], "resourceRules": [everything]}],
    }
    made = []
    ended = threading.Event()
    occupant = threading.Thread(target=_occupy, args=(ns, program, ended))
    try:
        for plural, spec in (("prioritylevelconfigurations", limited), ("flowschemas", flow)):
            ns.client.request("POST", f"{FLOWS}/{plural}", body={"metadata": {"name": ns.name}, "spec": spec})
            made.append(f"{FLOWS}/{plural}/{ns.name}")
        occupant.start()
        yield
    finally:
        ended.set()
        for path in reversed(made):
            ns.client.request("DELETE", path)
        occupant.join()


def _occupy(ns: Namespace, program: Path, ended: threading.Event) -> None:
    """One import after the other that takes as long as the platform lets it; refused ones are made again without any manners."""
    load = find_credentials(str(program), None, in_cluster=False)
    client = Client(load, user_agent="test", sleep=lambda seconds: None)
    image = {"from": {"kind": "DockerImage", "name": f"{ns.cluster.host('silent')}/any/app:v1"}, "to": {"name": "v1"}}
    body = {"metadata": {"name": "occupied"}, "spec": {"import": False, "images": [image]}}
    while not ended.is_set():
        with contextlib.suppress(ClientError):
            client.request("POST", f"{IMAGE_API}/namespaces/{ns.name}/imagestreamimports", body=body, timeout=300)


def test_being_told_to_slow_down_is_obeyed(ns: Namespace, installation: Installation, start: Start, tmp_path: Path) -> None:
    """No request is made again before Retry-After is over; when the API server lets us again, everything heals."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    path = installation.kubeconfig(tmp_path / "program.kubeconfig", ns.cluster.kubeconfig)
    start(program=path)
    assert ns.cluster.log
    other = load_client(str(path), in_cluster=False, user_agent="test")
    with _throttled(ns, installation, path):
        wait_for("the account is throttled", lambda: _asks(other) == 429)
        mark = ns.cluster.log.mark()
        ns.create("app", tag("v1", ns.source("app:v1")))
        ns.wait_failed("app", "v1")
        wait_for("it was refused three times", lambda: len(_refused(ns, installation, mark)) >= 3)
        times = _refused(ns, installation, mark)
        assert all(later - earlier >= 0.95 for earlier, later in pairwise(times)), times
        assert ns.failure("app", "v1")
    ns.wait_healed("app", "v1", digest)


def _refused(ns: Namespace, installation: Installation, mark: int) -> list[float]:
    """When dry runs were refused with 429."""
    requests = ns.cluster.requests(mark)
    return [r.at for r in requests if r.user == installation.user and r.status == 429 and "imagestreamimports" in r.path]
