"""Weeks of a busy cluster in seconds: after all of it the processes have as many threads and open files as after a quarter of it.

Watches break, rules change, namespaces come and go, imports fail and heal, certificates are renewed, and pods of ever new accounts
are reviewed. MIRRORSTREAM_SOAK=1 does more of it.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
import urllib3
from mirrorstream.kube.client import Client, load_client

from e2e.testbed.backends import SIMULATOR, Choice
from e2e.testbed.programs.program import Controller, Program, Webhook, running
from e2e.testbed.registries.registry import Failure, Registry
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.waiting import wait_for

log = structlog.get_logger(__name__)
Object = dict[str, Any]
SOAK = bool(os.environ.get("MIRRORSTREAM_SOAK"))
ROUNDS = 600 if SOAK else 16
NAMESPACES_KEPT, STREAMS = 3, 4
IMAGES, RULES = "/apis/image.openshift.io/v1", "/apis/config.openshift.io/v1/imagedigestmirrorsets"
THREADS_MORE, DESCRIPTORS_MORE = 4, 8
"""What may be there for a moment: a connection to the metrics, an idle one to the API server."""
MEGABYTES_MORE = 12
"""What a quarter does not bring to its usual size: CPython gives memory back in large pieces only."""
QUIET_SECONDS = 45.0
"""After so long an idle thread for reviews has ended, and a worker with an old certificate."""
OUTAGE = Failure(status=503)


class Bed:
    """A simulated cluster, and both programs as processes."""

    def __init__(self, simulator: Simulator, source: Registry, mirror: Registry, client: Client, programs: list[Any]) -> None:
        self.simulator, self.source, self.mirror, self.client = simulator, source, mirror, client
        self.controller: Controller = programs[0]
        self.webhook: Webhook = programs[1]
        self.http = urllib3.PoolManager(ca_certs=str(self.webhook.authority.certificate), retries=False)
        self.namespaces: list[str] = []
        self.renewed = self.patched = self.reviews = 0

    def round(self, number: int) -> None:
        """One round of everything."""
        self.source.failure = None if number % 8 == 7 else OUTAGE
        self._edit_rules(number)
        namespace = f"ci{number}"
        for stream in range(STREAMS):
            self._create(namespace, f"app{stream}", served=stream % 2 == 0)
        self.namespaces.append(namespace)
        if number % 4 == 2:
            self.simulator.store.drop_watches()
        wait_for(f"round {number} heals", lambda: all(self._healed(namespace, f"app{n}") for n in range(0, STREAMS, 2)))
        for name in ("app0", "app1"):
            body = {"metadata": {"annotations": {"mirrorstream.github.io/retry": str(number)}}}
            path = f"{IMAGES}/namespaces/{namespace}/imagestreams/{name}"
            self.client.request("PATCH", path, body=body, content_type="application/merge-patch+json")
        if number % 4 == 0:
            self.webhook.renew()
            self.renewed += 1
            wait_for("the certificate is served", lambda: self._reloads() >= self.renewed)
        wait_for("pods get it", lambda: self._review(namespace, f"account{number}", f"{self.source.host}/app0:{namespace}"))
        for program in (self.controller, self.webhook):
            assert program.get("/metrics")[0] == 200
        if len(self.namespaces) > NAMESPACES_KEPT:
            gone = self.namespaces.pop(0)
            for stream in range(STREAMS):
                self.client.request("DELETE", f"{IMAGES}/namespaces/{gone}/imagestreams/app{stream}")

    def _edit_rules(self, number: int) -> None:
        dead = [f"127.1.{number // 250}.{number % 250 + 1}:1/x"] if number % 2 else []
        mirrors = [{"source": self.source.host, "mirrors": [*dead, f"{self.mirror.host}/m"]}]
        body: Object = {"metadata": {"name": "m"}, "spec": {"imageDigestMirrors": mirrors}}
        if number:
            body["metadata"] = self.client.get(f"{RULES}/m")["metadata"]
            self.client.request("PUT", f"{RULES}/m", body=body)
        else:
            self.client.request("POST", RULES, body=body)

    def _create(self, namespace: str, name: str, *, served: bool) -> None:
        """A stream with a tag that the mirror has, or has not."""
        if served:
            for registry, prefix in ((self.source, ""), (self.mirror, "m/")):
                registry.put(f"{prefix}{name}", namespace, seed=f"{namespace} {name}")
        source = {"kind": "DockerImage", "name": f"{self.source.host}/{name}:{namespace}"}
        tag = {"name": "v1", "from": source, "referencePolicy": {"type": "Local"}}
        self.client.request(
            "POST", f"{IMAGES}/namespaces/{namespace}/imagestreams", body={"metadata": {"name": name}, "spec": {"tags": [tag]}}
        )

    def _healed(self, namespace: str, name: str) -> bool:
        stream = self.client.get(f"{IMAGES}/namespaces/{namespace}/imagestreams/{name}")
        states = stream["status"].get("tags") or [{}]
        return bool(states[0].get("items")) and not states[0].get("conditions")

    def _reloads(self) -> float:
        return self.webhook.metric("mirrorstream_webhook_certificate_reloads_total", accepted="true")

    def _review(self, namespace: str, account: str, image: str) -> bool:
        """Have a pod reviewed; whether it is pointed at the tag's image."""
        pod = {"metadata": {}, "spec": {"serviceAccountName": account, "containers": [{"name": "c", "image": image}]}}
        request = {"uid": "u", "kind": {"kind": "Pod"}, "operation": "CREATE", "namespace": namespace, "object": pod}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        try:
            answer = self.http.request(
                "POST", self.webhook.url, body=json.dumps(review), headers={"Content-Type": "application/json"}
            )
        except urllib3.exceptions.HTTPError:
            return False  # a kept connection to a worker that has just ended; the next request is served
        return "patch" in json.loads(answer.data)["response"]


def descriptors(program: Program) -> int:
    """The files and sockets that a process has open."""
    return len(list(Path(f"/proc/{program.process.pid}/fd").iterdir()))


@pytest.fixture
def bed(chosen: Choice, tmp_path: Path) -> Iterator[Bed]:
    """A cluster of the test's own, that nothing else happens on."""
    if chosen.backend != SIMULATOR:
        pytest.skip("only the simulator's watches break off when they are told to")
    with ExitStack() as stack:
        source, mirror = (stack.enter_context(Registry()) for _ in range(2))
        insecure = {"registrySources": {"insecureRegistries": [source.host, mirror.host]}}
        simulator = stack.enter_context(Simulator(Settings(image_config=insecure)))
        kubeconfig = simulator.write_kubeconfig(tmp_path / "kubeconfig")
        client = load_client(str(kubeconfig), in_cluster=False, user_agent="user")
        stack.callback(client.close)
        retry = {"controller": {"retry": {"initialSeconds": 0.5, "maximumSeconds": 2}}}
        programs = [
            stack.enter_context(running(Controller(kubeconfig, tmp_path, retry))),
            stack.enter_context(running(Webhook(kubeconfig, tmp_path, {}, log_level="info"))),
        ]
        yield Bed(simulator, source, mirror, client, programs)


@pytest.mark.timeout(3600)
def test_nothing_piles_up(bed: Bed) -> None:
    """Memory, threads and open files of both processes, after a quarter and at the end."""
    programs: tuple[Program, ...] = (bed.controller, bed.webhook)
    early: dict[str, tuple[float, int, int]] = {}
    began = time.monotonic()
    for number in range(ROUNDS):
        bed.round(number)
        if number + 1 == ROUNDS // 4:
            early = {p.name: (p.memory(), p.threads(), descriptors(p)) for p in programs}
    late = {p.name: (p.memory(), p.threads(), descriptors(p)) for p in programs}
    log.info("endured", rounds=ROUNDS, seconds=round(time.monotonic() - began), early=early, late=late)
    for program in programs:
        memory, threads, files = early[program.name]
        wait_for(
            f"few threads in the {program.name}", partial(_few, program.threads, threads + THREADS_MORE), seconds=QUIET_SECONDS
        )
        few_files = partial(_few, partial(descriptors, program), files + DESCRIPTORS_MORE)
        wait_for(f"few open files in the {program.name}", few_files)
        assert late[program.name][0] <= memory + MEGABYTES_MORE, (early, late)
    tags = NAMESPACES_KEPT * STREAMS
    known = partial(bed.controller.metric, "mirrorstream_informer_objects", resource="imagestreams.image.openshift.io")
    wait_for("only what is there is known", lambda: known() == tags)
    wait_for("only what fails is counted as failing", lambda: bed.controller.metric("mirrorstream_failing_tags") == tags / 2)
    mirrors = set(re.findall(r'mirror="([^"]*)"', bed.controller.get("/metrics")[1]))
    assert mirrors, "something was imported"
    assert len(mirrors) <= 2, f"only those that a rule names have a series: {mirrors}"


def _few(count: Callable[[], int], limit: int) -> bool:
    return count() <= limit
