"""What happens on the simulated cluster of the commands' tests: a namespace `ns` whose stream `app` fails."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mirrorstream.kube.client import Client
from mirrorstream_cli.polling import Clock

from e2e.testbed.simulator.simulator import Simulator
from tests.diagnose.builders import DIGEST, SOURCE

Run = Callable[..., int]
Object = dict[str, Any]
STREAMS = "/apis/image.openshift.io/v1/namespaces/ns/imagestreams"
DEAD = "localhost:1/team/app:v1"
MIRRORED = "localhost:2/mirror/team/app:v1"


def cover(client: Client, source: str = "localhost:1") -> None:
    """Create a mirror set for the source."""
    spec = {"imageDigestMirrors": [{"source": source, "mirrors": ["localhost:2/mirror"]}]}
    body = {"metadata": {"name": "m"}, "spec": spec}
    client.request("POST", "/apis/config.openshift.io/v1/imagedigestmirrorsets", body=body)


def heal(client: Client) -> None:
    """Record an image, as the controller does."""
    recorded = json.dumps({"2027-01-01T00:00:00Z": "localhost:2"})
    annotations = {"mirrorstream.github.io/imported-through": "localhost:2", "mirrorstream.github.io/recorded": recorded}
    image = {"metadata": {"name": DIGEST, "annotations": annotations}, "dockerImageReference": f"localhost:1/team/app@{DIGEST}"}
    client.request("POST", "/apis/image.openshift.io/v1/images", body=image)
    stream = client.get(f"{STREAMS}/app")
    event = {"created": "2027-01-01T00:00:00Z", "dockerImageReference": f"localhost:1/team/app@{DIGEST}", "image": DIGEST}
    generation = stream["spec"]["tags"][0]["generation"]
    stream["status"]["tags"] = [{"tag": "v1", "items": [{**event, "generation": generation}]}]
    client.request("PUT", f"{STREAMS}/app/status", body=stream)


class Waits:
    """A test's clock: a sleep lets something happen and moves the time."""

    def __init__(self, *happenings: Callable[[], object]) -> None:
        self.at, self.happenings = time.time(), list(happenings)
        self.slept = 0

    def clock(self) -> Clock:
        """The clock."""
        return Clock(lambda: self.at, self.sleep, lambda: self.at)

    def sleep(self, seconds: float) -> None:
        """Pass the time."""
        self.at += seconds
        self.slept += 1
        if self.happenings:
            self.happenings.pop(0)()


def arguments(kubeconfig: Path, **changes: Any) -> Any:
    """The parsed arguments of a command."""
    defaults = {
        "namespace": "ns",
        "all_namespaces": False,
        "all": False,
        "wait": None,
        "output": "text",
        "context": None,
        "subject": "app:v1",
    }
    return argparse.Namespace(**{**defaults, "kubeconfig": str(kubeconfig), **changes})


def event(client: Client, outcome: dict[str, Any], name: str = "e", at: str = "2027-01-01T00:00:00Z") -> None:
    """Write an Event, as the controller does."""
    stream = client.get(f"{STREAMS}/app")["metadata"]
    body = {
        "metadata": {"name": name, "annotations": {"mirrorstream.github.io/outcome": json.dumps(outcome)}},
        "involvedObject": {"kind": "ImageStream", "namespace": "ns", "name": "app", "uid": stream["uid"]},
        "reason": "MirrorImportFailed",
        "message": "m",
        "lastTimestamp": at,
        "count": 1,
    }
    client.request("POST", "/api/v1/namespaces/ns/events", body=body)


def fail(simulator: Simulator, status: int | str, path: str = "", verb: str | None = None, **more: Any) -> None:
    """Have the API server fail what the command asks."""
    action = {"reset": True} if status == "reset" else {"status": status, "reason": "x", "message": "not now"}
    fault = {"path": path, "userAgent": "^kubectl-mirrorstream", "action": action, **({"verb": verb} if verb else {}), **more}
    simulator.server.faults.add(fault)


def configure(client: Client, text: str) -> None:
    """Write the controller's configuration."""
    client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": "mirrorstream"}})
    body = {"metadata": {"name": "mirrorstream-config"}, "data": {"config.yaml": text}}
    client.request("POST", "/api/v1/namespaces/mirrorstream/configmaps", body=body)


def pod(name: str = "web", *images: str, reason: str = "ImagePullBackOff", namespace: str = "ns", **metadata: Any) -> Object:
    """A pending pod whose containers' images cannot be pulled."""
    names = [f"c{number}" for number in range(len(images or (SOURCE,)))]
    waiting = {"reason": reason, "message": "Back-off pulling image"}
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"{name}-uid", **metadata},
        "spec": {"containers": [{"name": n, "image": i} for n, i in zip(names, images or (SOURCE,), strict=True)]},
        "status": {"phase": "Pending", "containerStatuses": [{"name": n, "state": {"waiting": waiting}} for n in names]},
    }


def local(client: Client) -> None:
    """Make the stream's tag Local."""
    found = client.get(f"{STREAMS}/app")
    found["spec"]["tags"][0]["referencePolicy"] = {"type": "Local"}
    client.request("PUT", f"{STREAMS}/app", body=found)


def create(client: Client, document: Object) -> Object:
    """Make a pod, with its status."""
    body = {key: value for key, value in document.items() if key != "status"}
    namespace = document["metadata"]["namespace"]
    body["metadata"].pop("uid")
    made: Object = client.request("POST", f"/api/v1/namespaces/{namespace}/pods", body=body)
    path = f"/api/v1/namespaces/{namespace}/pods/{made['metadata']['name']}/status"
    answer: Object = client.request("PUT", path, body={**made, "status": document["status"]})
    return answer
