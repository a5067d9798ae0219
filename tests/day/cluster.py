"""The cluster of a day: what its users, its platform and its administrators do, minute by minute."""

import gc
import time
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError, load_client

from e2e.testbed.registries.registry import Failure, Registry
from e2e.testbed.simulator.images import imports
from e2e.testbed.simulator.settings import Settings as ClusterSettings
from e2e.testbed.simulator.simulator import Simulator
from tests.day.clock import DayClock
from tests.day.programs import Controller, Sizes, Webhook, caught_up, our_threads, settled

Object = dict[str, Any]
IMAGES, RULES = "/apis/image.openshift.io/v1", "/apis/config.openshift.io/v1/imagedigestmirrorsets"
STREAMS, TAGS = 5, ("v1", "v2")
"""Streams that are there all day, each with so many scheduled tags."""
SCHEDULED_SECONDS = 900
BUILDS_KEPT = 3
PASSING_KEPT = 3
SETTLE_SECONDS = 300.0
OURS = {"mirrorstream", "mirrorstream_controller", "mirrorstream_webhook"}
"""The packages whose memory is measured."""
OUTAGE = Failure(status=503)


class Cluster:
    """A simulated cluster with one source and one mirror, a controller, and a webhook."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.clock, self._folder = DayClock(), folder
        self.source, self.mirror = Registry(failure=OUTAGE), Registry()
        insecure = {"registrySources": {"insecureRegistries": [self.source.host, self.mirror.host]}}
        settings = ClusterSettings(image_config=insecure, scheduled_interval=SCHEDULED_SECONDS)
        self.simulator = Simulator(settings, clock=self.clock.monotonic)
        patch.setattr(imports, "timestamp", self.clock.stamp)
        self.kubeconfig = self.simulator.write_kubeconfig(folder / "kubeconfig")
        self.client = load_client(str(self.kubeconfig), in_cluster=False, user_agent="user")
        self.controller: Controller
        self.builds: list[str] = []
        self.passing: list[tuple[str, str]] = []
        self.patched = 0
        self.gone: list[weakref.ref[Controller]] = []
        """The controllers that ran before."""

    def __enter__(self) -> "Cluster":
        for registry in (self.source, self.mirror):
            registry.__enter__()
        self.simulator.start()
        self.edit_rules(0)
        self.populate()
        self.controller = Controller(self.kubeconfig, self._folder, self.clock)
        self.webhook = Webhook(self.kubeconfig, self.clock)
        return self

    def __exit__(self, *_: object) -> None:
        self.controller.stop()
        self.webhook.stop()
        self.client.close()
        self.simulator.stop()
        for registry in (self.source, self.mirror):
            registry.__exit__(None, None, None)

    def populate(self) -> None:
        """Create what is there in the morning."""
        for number in range(STREAMS):
            self._create("apps", f"app{number}", dict.fromkeys(TAGS, f"app{number}"), scheduled=True)
        self._create("apps", "builds", {})

    # What happens.

    def restart(self) -> None:
        """Have another controller take over the lease."""
        self.controller.stop()
        self.gone.append(weakref.ref(self.controller))
        self.controller = Controller(self.kubeconfig, self._folder, self.clock)

    def edit_rules(self, number: int) -> None:
        """Change the mirror set: a dead mirror, another one each time, comes before the good one, or goes again."""
        dead = [f"127.0.{number // 250}.{number % 250 + 1}:1/x"] if number % 2 else []
        mirrors = [{"source": self.source.host, "mirrors": [*dead, f"{self.mirror.host}/m"]}]
        body = {"metadata": {"name": "m"}, "spec": {"imageDigestMirrors": mirrors}}
        try:
            body["metadata"] = self.client.get(f"{RULES}/m")["metadata"]
        except ApiError:
            self.client.request("POST", RULES, body=body)
        else:
            self.client.request("PUT", f"{RULES}/m", body=body)

    def build(self, number: int) -> None:
        """A build gets a tag of its own; only the latest are kept."""
        self.builds = [*self.builds, f"b{number}"][-BUILDS_KEPT:]
        self._publish("builds", f"b{number}", f"build {number}")
        stream = self.client.get(self._path("apps", "builds"))
        stream["spec"]["tags"] = [self._tag("builds", tag, scheduled=False) for tag in self.builds]
        self.client.request("PUT", self._path("apps", "builds"), body=stream)

    def pass_by(self, number: int) -> None:
        """A namespace comes, with a stream of which one tag is in no mirror, and the oldest goes."""
        self.passing.append((f"ci{number}", f"s{number}"))
        self._create(*self.passing[-1], {"good": f"s{number}", "nowhere": ""})
        if len(self.passing) > PASSING_KEPT:
            gone = self.passing.pop(0)
            self.client.request("DELETE", self._path(*gone))

    def schedule(self) -> None:
        """Have the platform import what is due."""
        self.simulator.controller.run_schedule()

    def lose_watches(self) -> None:
        """Every watch breaks off."""
        self.simulator.store.drop_watches()

    def review(self, minute: int) -> None:
        """Pods are created, by accounts that are new again and again."""
        for number in range(STREAMS):
            image = f"{self.source.host}/app{number}:v1"
            self.patched += self.webhook.review("apps", f"account{minute}", image)

    def _create(self, namespace: str, name: str, tags: dict[str, str], *, scheduled: bool = False) -> None:
        for tag, seed in tags.items():
            if seed:
                self._publish(name, tag, f"{seed} {tag}")
        body = {"metadata": {"name": name}, "spec": {"tags": [self._tag(name, tag, scheduled=scheduled) for tag in tags]}}
        self.client.request("POST", f"{IMAGES}/namespaces/{namespace}/imagestreams", body=body)

    def _tag(self, repository: str, tag: str, *, scheduled: bool) -> Object:
        source = {"kind": "DockerImage", "name": f"{self.source.host}/{repository}:{tag}"}
        policy = {"importPolicy": {"scheduled": scheduled}, "referencePolicy": {"type": "Local"}}
        return {"name": tag, "from": source, **policy}

    def _publish(self, repository: str, tag: str, seed: str) -> None:
        self.source.put(repository, tag, seed=seed)
        self.mirror.put(f"m/{repository}", tag, seed=seed)

    def _path(self, namespace: str, name: str) -> str:
        return f"{IMAGES}/namespaces/{namespace}/imagestreams/{name}"

    # What can be seen.

    def settle(self) -> None:
        """Wait until nobody has anything to do at this time of day."""
        self.controller.wake()
        end = time.monotonic() + SETTLE_SECONDS
        quiet = 0
        while quiet < 3:
            quiet = quiet + 1 if self._idle() else 0
            assert time.monotonic() < end, f"busy for {SETTLE_SECONDS:g} s at one time of day: {self.controller.sizes()}"
            time.sleep(0.002)

    def _idle(self) -> bool:
        controller, webhook = self.controller, self.webhook
        return (
            self.simulator.controller.idle()
            and controller.idle()
            and caught_up([*controller.informers, *webhook.informers], self.simulator)
            and settled(controller.policy)
            and settled(webhook.policy)
        )

    def failing(self) -> list[str]:
        """The tags that a mirror has and that are not well."""
        found = []
        for item in self.client.get(f"{IMAGES}/imagestreams")["items"]:
            metadata = item["metadata"]
            states = {status["tag"]: status for status in item["status"].get("tags") or []}
            for tag in item["spec"].get("tags") or []:
                status = states.get(tag["name"], {})
                repository, _, version = tag["from"]["name"].removeprefix(f"{self.source.host}/").rpartition(":")
                wanted = self.mirror.store.tags.get(f"m/{repository}", {}).get(version)
                newest = (status.get("items") or [{}])[0].get("image")
                if wanted and (newest != wanted or status.get("conditions")):
                    found.append(f"{metadata['namespace']}/{metadata['name']}:{tag['name']}: {status}")
        return found

    def writes(self) -> int:
        """The status writes of the controller since requests were asked for last."""
        made = [r for r in self.requests() if r["verb"] == "update" and r["path"].endswith("/status")]
        return sum(1 for r in made if r["status"] == 200)

    def requests(self) -> list[Object]:
        """The requests of the controller since this was asked last, but for those for its lease and its watches."""
        made = list(self.simulator.server.requests)
        self.simulator.server.requests.clear()
        return list(filter(is_ours, made))

    def forget(self) -> None:
        """Have the simulator forget what etcd would not keep: Events of the last hour, and versions. Watches go on."""
        for item in self.client.get("/api/v1/events")["items"]:
            self.client.request("DELETE", f"/api/v1/namespaces/{item['metadata']['namespace']}/events/{item['metadata']['name']}")
        self.simulator.store.compact()

    def sizes(self) -> Sizes:
        """How much there is of everything that must not grow; memory in KiB, of what mirrorstream's own lines have allocated."""
        gc.collect()
        found = {**self.controller.sizes(), **self.webhook.sizes()}
        found["threads"] = our_threads()
        found["descriptors"] = len(list(Path("/proc/self/fd").iterdir()))
        if tracemalloc.is_tracing():
            # A filter would compare every block's file with every pattern, which takes half a minute in a large cluster.
            files = tracemalloc.take_snapshot().statistics("filename")
            ours = (file.size for file in files if not OURS.isdisjoint(Path(file.traceback[0].filename).parts))
            found["KiB"] = sum(ours) // 1024
        return found


def is_ours(request: Object) -> bool:
    """Whether a request is one that the controller makes for streams: not for its lease, and not for its watches."""
    ours = request["userAgent"].startswith(("mirrorstream-controller", "mirrorstream-events"))
    return ours and request["verb"] not in ("list", "watch") and "/leases/" not in request["path"]
