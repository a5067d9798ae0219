"""mirrorstream's own access to the API server: tokens that are rotated, and being told to slow down."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError, Client, load_client

from e2e.backends import CONTROLPLANE, OPENSHIFT
from e2e.scenarios.cluster import Cluster, Namespace, tag
from e2e.scenarios.conftest import Start
from e2e.scenarios.installation import Installation
from e2e.waiting import wait_for

FLOWS = "/apis/flowcontrol.apiserver.k8s.io/v1"


@pytest.fixture
def installation(cluster: Cluster, ns: Namespace) -> Iterator[Installation]:
    """Mirrorstream's service account in the scenario's namespace."""
    if cluster.backend not in (CONTROLPLANE, OPENSHIFT):
        pytest.skip("needs service accounts, and roles of our own")
    with Installation(cluster.client, ns.name) as made:
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
    """The kubelet replaces the file; whoever holds the old token gets 401, reads the file again and goes on."""
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
    wait_for("the old token is refused", lambda: _asks(nobody) == 401, seconds=30)
    ns.create("two", tag("v1", ns.source("app:v1")))
    if late:
        ns.stays("failed", lambda: not ns.healed("two", "v1"))
        path.with_suffix(".token").write_text(fresh, encoding="utf-8")
    ns.wait_healed("two", "v1", digest)


@contextmanager
def _throttled(ns: Namespace, account: Installation) -> Iterator[None]:
    """kube-apiserver refuses every request of the account with 429 and Retry-After."""
    level = {"type": "Limited", "limited": {"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0}}
    level["limited"]["limitResponse"] = {"type": "Reject"}  # type: ignore[index]
    subject = {"kind": "ServiceAccount", "serviceAccount": {"name": "mirrorstream-controller", "namespace": account.namespace}}
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
    flow = {
        "priorityLevelConfiguration": {"name": ns.name},
        "matchingPrecedence": 2,
        "rules": [{"subjects": [subject], "resourceRules": [everything]}],
    }
    made = []
    for plural, spec in (("prioritylevelconfigurations", level), ("flowschemas", flow)):
        ns.client.request("POST", f"{FLOWS}/{plural}", body={"metadata": {"name": ns.name}, "spec": spec})
        made.append(f"{FLOWS}/{plural}/{ns.name}")
    try:
        yield
    finally:
        for path in reversed(made):
            ns.client.request("DELETE", path)


def test_being_told_to_slow_down_is_obeyed(ns: Namespace, installation: Installation, start: Start, tmp_path: Path) -> None:
    """No request is made again before Retry-After is over; when the API server lets us again, everything heals."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    path = installation.kubeconfig(tmp_path / "program.kubeconfig", ns.cluster.kubeconfig)
    start(program=path)
    assert ns.cluster.log
    impatient = load_client(str(path), in_cluster=False, user_agent="test", requests_per_second=None)
    with _throttled(ns, installation):
        wait_for("the account is throttled", lambda: _asks(impatient) == 429, seconds=20)
        mark = ns.cluster.log.mark()
        ns.create("app", tag("v1", ns.source("app:v1")))
        ns.wait_failed("app", "v1")
        wait_for("it was refused three times", lambda: len(_refused(ns, installation, mark)) >= 3, seconds=30)
        times = _refused(ns, installation, mark)
        assert all(later - earlier >= 0.95 for earlier, later in pairwise(times)), times
        assert ns.failure("app", "v1")
    ns.wait_healed("app", "v1", digest, seconds=30)


def _refused(ns: Namespace, installation: Installation, mark: int) -> list[float]:
    """When dry runs were refused with 429."""
    requests = ns.cluster.requests(mark)
    return [r.at for r in requests if r.user == installation.user and r.status == 429 and "imagestreamimports" in r.path]
