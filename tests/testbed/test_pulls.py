"""The small kubelet says of pods what the kubelet says: what can be pulled runs, the rest waits, a new image is pulled at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from mirrorstream.kube.client import JSON_PATCH, Client

from e2e.testbed.kubelet.pod_status import BackOff, PodState, Pull, containers, status
from e2e.testbed.kubelet.pulls import Pulls
from e2e.testbed.registries.registry import DeadPort, Failure, Registry
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
PODS = "/api/v1/namespaces/team/pods"
DIGEST = "sha256:" + "1" * 64


def container(name: str, image: str, **more: Any) -> Object:
    """A container."""
    return {"name": name, "image": image, **more}


def pod(*mains: Object, init: tuple[Object, ...] = ()) -> Object:
    """A pod."""
    return {"metadata": {"name": "p"}, "spec": {"containers": list(mains), **({"initContainers": list(init)} if init else {})}}


# What is said.


def turns(found: Object, state: PodState) -> list[str]:
    """Whose turn it is, when nothing starts."""
    return [entry["name"] for entry in containers(found, state)]


def test_init_containers_come_one_by_one_and_others_all_at_once() -> None:
    """An init container whose image cannot be pulled keeps all others waiting; a main one does not."""
    found = pod(container("a", "i/a:1"), container("b", "i/b:1"), init=(container("x", "i/x:1"), container("y", "i/y:1")))
    state = PodState()
    assert turns(found, state) == ["x"]
    for name in ("x", "y"):
        assert status(found, state)["phase"] == "Pending"
        state.start(container(name, f"i/{name}:1"), DIGEST)
    assert turns(found, state) == ["a", "b"]
    state.start(container("b", "i/b:1"), DIGEST)
    said = status(found, state)
    assert said["phase"] == "Pending"
    assert ["waiting" in entry["state"] for entry in said["containerStatuses"]] == [True, False]
    assert all(entry["state"]["terminated"]["exitCode"] == 0 for entry in said["initContainerStatuses"])
    state.start(container("a", "i/a:1"), DIGEST)
    said = status(found, state)
    assert said["phase"] == "Running"
    assert said["containerStatuses"][0]["imageID"] == f"docker.io/i/a@{DIGEST}"
    assert {"type": "Ready", "status": "True"} in said["conditions"]


def test_waits_double_up_to_thirty_times_the_first() -> None:
    """As 10 s, 20 s, 40 s … 300 s."""
    known = None
    waits = []
    for _ in range(7):
        known = BackOff.after(known, Pull(reason="ErrImagePull", message="no"), 10)
        waits.append(known.wait)
    assert waits == [10, 20, 40, 80, 160, 300, 300]


@pytest.mark.parametrize("reason", ["ErrImagePull", "RegistryUnavailable", "ErrImageNeverPull", "InvalidImageName"])
def test_what_a_waiting_container_says(reason: str) -> None:
    """First the error; then, of what is tried again, that it is backed off from, with the image and the error."""
    known = BackOff.after(None, Pull(reason=reason, message="why"), 10)
    assert known.waiting("i/a:1") == {"reason": reason, "message": "why"}
    known.shown = True
    backed_off = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "i/a:1": {reason}: why'}
    tried_again = reason in ("ErrImagePull", "RegistryUnavailable")
    assert known.waiting("i/a:1") == (backed_off if tried_again else {"reason": reason, "message": "why"})


# What is pulled.


@dataclass
class Bed:
    """A cluster with a mirror and a dead upstream."""

    client: Client
    mirror: Registry
    dead: str

    def mirrors(self, kind: str) -> None:
        """A mirror set for the upstream: `digest` or `tag`."""
        spec = {f"image{kind.title()}Mirrors": [{"source": self.dead, "mirrors": [f"{self.mirror.host}/m"]}]}
        self.client.request(
            "POST", f"/apis/config.openshift.io/v1/image{kind}mirrorsets", body={"metadata": {"name": "m"}, "spec": spec}
        )

    def create(self, *mains: Object, init: tuple[Object, ...] = ()) -> None:
        """The pod."""
        self.client.request("POST", PODS, body=pod(*mains, init=init))

    def status(self) -> Object:
        """Its status."""
        found: Object = self.client.get(f"{PODS}/p").get("status") or {}
        return found

    def reason(self, number: int = 0) -> str:
        """Why a container waits; empty if it does not."""
        entries = self.status().get("containerStatuses") or []
        return str((entries[number]["state"].get("waiting") or {}).get("reason", "")) if entries else ""

    def wait_running(self) -> Object:
        """Wait until the pod runs; its status."""
        wait_for("the pod runs", lambda: self.status().get("phase") == "Running")
        return self.status()


@pytest.fixture
def bed() -> Iterator[Bed]:
    """With a kubelet whose first wait is short."""
    with DeadPort() as dead, Registry() as mirror:
        insecure = {"registrySources": {"insecureRegistries": [mirror.host, dead.host]}}
        with Simulator(Settings(insecure, f"localhost:{free_port()}")) as simulator:
            client = simulator.client("test")
            client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": "team"}})
            wait_for("the account", lambda: client.get("/api/v1/namespaces/team/serviceaccounts")["items"])
            with Pulls(client, ["team"], back_off=0.5):
                yield Bed(client, mirror, dead.host)


@pytest.mark.parametrize("kind", ["digest", "tag"])
def test_digests_come_through_digest_mirrors_and_tags_through_tag_mirrors(bed: Bed, kind: str) -> None:
    """Never the other way round: a node does not look there."""
    digest = bed.mirror.put("m/app", "v1")
    bed.mirrors(kind)
    wanted, other = (f"@{digest}", ":v1") if kind == "digest" else (":v1", f"@{digest}")
    bed.create(container("a", f"{bed.dead}/app{wanted}"), container("b", f"{bed.dead}/app{other}"))
    wait_for("the other one hangs", lambda: bed.reason(1) == "RegistryUnavailable")
    first = bed.status()["containerStatuses"][0]
    assert first["imageID"] == f"{bed.dead}/app@{digest}"
    assert bed.status()["phase"] == "Pending"
    wait_for("it is backed off from", lambda: bed.reason(1) == "ImagePullBackOff")
    patch = [{"op": "replace", "path": "/spec/containers/1/image", "value": f"{bed.dead}/app{wanted}"}]
    bed.client.request("PATCH", f"{PODS}/p", body=patch, content_type=JSON_PATCH)
    assert [entry["restartCount"] for entry in bed.wait_running()["containerStatuses"]] == [0, 0]


def test_what_can_be_pulled_later_is_pulled_at_a_later_try(bed: Bed) -> None:
    """The waits grow, and a registry that answers again ends them."""
    bed.mirror.put("m/app", "v1")
    bed.mirror.failure = Failure(503)
    bed.mirrors("tag")
    bed.create(container("a", f"{bed.dead}/app:v1"), init=(container("x", f"{bed.dead}/app:v1"),))
    wait_for("three tries", lambda: bed.mirror.requests["m/app"] >= 3)
    assert bed.reason() == "PodInitializing"
    bed.mirror.failure = None
    bed.wait_running()


def test_never_pulls_nothing_and_runs_what_is_there(bed: Bed) -> None:
    """ImagePullPolicy Never, and a reference that is none."""
    bed.mirror.put("m/app", "v1")
    bed.mirrors("tag")
    image = f"{bed.dead}/app:v1"
    bed.create(container("a", image, imagePullPolicy="Never"), container("b", "Not An Image"))
    wait_for("it is told", lambda: bed.reason() == "ErrImageNeverPull")
    assert bed.reason(1) == "InvalidImageName"
    assert not bed.mirror.requests["m/app"]
    bed.client.request("DELETE", f"{PODS}/p")
    bed.create(container("a", image))
    bed.wait_running()
    bed.client.request("DELETE", f"{PODS}/p")
    bed.create(container("a", image, imagePullPolicy="Never"))
    bed.wait_running()
