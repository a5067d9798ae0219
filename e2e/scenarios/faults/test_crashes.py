"""The controller dies at every step of a heal, and the next one takes it from there."""

import json
import random
import signal
from dataclasses import dataclass, field

import pytest

from e2e.scenarios.conftest import Start
from e2e.scenarios.faults.conftest import Saw
from e2e.testbed.cluster import Namespace
from e2e.testbed.faults.reliability import chance, often
from e2e.testbed.interceptor import Action, Exchange, Interceptor, Reset
from e2e.testbed.programs.program import Controller
from e2e.testbed.streams import IMAGE_API, Object, following, tag
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(often(1800, 180))

IMPORTED = {"one": ("v1",), "three": ("v1", "v2", "v3"), "whole": ("all",)}
FOLLOWED = {"one": ("v1", "latest"), "three": ("v2", "stable")}
"""Stream -> a tag, and one that follows it."""
Tag = tuple[str, str]


@dataclass
class Streams:
    """Streams of several kinds whose images change again and again; what each tag must have in its history is noted here."""

    ns: Namespace
    history: dict[Tag, list[set[str]]] = field(default_factory=dict)
    """What one of must be there, for each import of a tag; the newest first."""
    replaced: set[str] = field(default_factory=set)
    """Digests that the mirror gave away for others while the controller was dead."""

    def tags(self, stream: str) -> list[Object]:
        """The tags of a stream that are imported, as its user writes them."""
        mode = {"importPolicy": {"importMode": "PreserveOriginal"}} if stream == "whole" else {}
        return [tag(name, self.ns.source(f"{stream}:{name}"), **mode) for name in IMPORTED[stream]]

    def push(self, number: int) -> None:
        """Put a new image behind every tag into the mirror."""
        for stream, names in IMPORTED.items():
            for name in names:
                self.history.setdefault((stream, name), []).insert(0, {self._put(stream, name, str(number))})

    def replace(self, stream: str, name: str, number: int) -> None:
        """Put another image behind a tag into the mirror: the one from before need not have been recorded."""
        expected = self.history[stream, name][0]
        self.replaced |= expected
        expected.add(self._put(stream, name, f"{number}, replaced"))

    def _put(self, stream: str, name: str, seed: str) -> str:
        kind = "list" if stream == "whole" else "docker"
        return self.ns.put("good", f"{stream}:{name}", kind, f"{self.ns.name}/{stream}:{name}/{seed}")

    def fail(self, *, first: bool) -> None:
        """Have the platform try each tag, and fail: when the streams are made, and with `oc import-image` later."""
        for stream in IMPORTED:
            if first:
                more = [following(FOLLOWED[stream][1], FOLLOWED[stream][0])] if stream in FOLLOWED else []
                self.ns.create(stream, *self.tags(stream), *more)
            else:
                self.ns.import_images(stream, *self.tags(stream))

    def digests(self, stream: str, name: str) -> list[str]:
        """The Images that a heal of this tag makes: the newest image of the mirror, and, of a list, its parts."""
        (digest,) = self.history[stream, name][0]
        return [digest, *(part for part, owner in self._owners().items() if owner == digest and part != digest)]

    def _owners(self) -> dict[str, str]:
        """Every manifest that was ever in the mirror, and the image that it is, or is a part of."""
        owners: dict[str, str] = {}
        for (repository, digest), (_, data) in self.ns.cluster.registries.stores["good"].manifests.items():
            if repository.startswith(f"mirror-{self.ns.name}/"):
                owners.setdefault(digest, digest)
                owners |= {part["digest"]: digest for part in json.loads(data).get("manifests") or []}
        return owners

    def unused(self) -> set[str]:
        """Images of ours that there are and that no history names; a manifest list and its parts count as one."""
        owners = self._owners()
        there = {image["metadata"]["name"] for image in self.ns.client.get(f"{IMAGE_API}/images")["items"]}
        named = {
            item["image"]
            for stream in self.ns.streams()
            for status in (stream.get("status") or {}).get("tags") or []
            for item in status.get("items") or []
        }
        return {owners[digest] for digest in there & owners.keys()} - named

    def wait_healed(self) -> None:
        """Wait until every tag is well, with an image that was in the mirror, and once in its history for each import."""
        for (stream, name), imports in self.history.items():
            self.ns.wait_healed(stream, name)
            images = self._images(stream, name)
            assert len(images) == len(imports), f"{stream}:{name} has {images}, expected {imports}"
            assert all(image in expected for image, expected in zip(images, imports, strict=True)), f"{stream}:{name}"
        for stream, (followed, name) in FOLLOWED.items():
            assert self._images(stream, name) == self._images(stream, followed), f"{stream}:{name} follows"

    def _images(self, stream: str, name: str) -> list[str]:
        return [item["image"] for item in self.ns.tag_status(stream, name).get("items") or []]


@dataclass(frozen=True)
class Target:
    """The request that a kill is about: at one step of the heal of one tag, for one of its Images."""

    step: str
    stream: str
    name: str
    digest: str

    @staticmethod
    def choose(step: str, streams: Streams, luck: random.Random) -> "Target":
        """A request of some tag's next heal."""
        stream = luck.choice(list(IMPORTED))
        name = luck.choice(IMPORTED[stream])
        return Target(step, stream, name, luck.choice(streams.digests(stream, name)))

    def of(self, namespace: str) -> tuple[str, str]:
        """The verb, and what the path looks like."""
        path = f"/namespaces/{namespace}/imagestreams/{self.stream}"
        return {
            "dry run": ("create", f"/namespaces/{namespace}/imagestreamimports$"),
            "Image create": ("create", "/v1/images$"),
            "GET": ("get", f"{path}$"),
            "status PUT": ("update", f"{path}/status$"),
        }[self.step]

    def meant(self, exchange: Exchange) -> bool:
        """Whether it is this request, where the path does not say it."""
        if self.step == "dry run":
            body = exchange.json()
            tags = [image["to"]["name"] for image in body["spec"]["images"]]
            return body["metadata"]["name"] == self.stream and self.name in tags
        return self.step != "Image create" or bool(exchange.json()["metadata"]["name"] == self.digest)


def killed(program: Controller, target: Target, *, answered: bool) -> Action:
    """SIGKILL before the API server hears of the request, or after it has `answered` and before the program hears of that."""

    def act(exchange: Exchange) -> None:
        if not target.meant(exchange):
            exchange.pass_on()
            return
        if answered:
            exchange.read(exchange.forward())
        program.process.kill()
        raise Reset

    return act


@pytest.mark.fault(
    "Controller",
    "Killed with SIGKILL before a request of a heal reaches the API server, or after it was answered and before the controller"
    " hears of it, at random streams: several tags in one, manifest lists, tags that follow others; in half of the cases the mirror"
    " has another image at the restart",
    "After the restart every tag heals, with one entry in its history; no Image (with a manifest list: the list and its parts) is"
    " left without use but one that the mirror replaced in between, at most one per kill; no spec changes",
)
@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["dry run", "Image create", "GET", "status PUT"])
def test_a_kill_at_any_step(ns: Namespace, start: Start, between: Interceptor, saw: Saw, step: str, answered: bool) -> None:
    """A controller that is killed in the middle of a heal loses no tag and writes nothing twice."""
    luck, streams, kills = chance(), Streams(ns), often(20, 2)
    most = 0
    ns.digest_mirrors()
    program = start(program=between.kubeconfig)
    for number in range(kills):
        streams.push(number)
        target = Target.choose(step, streams, luck)
        print(f"kill {number}: {target}")
        with between.when(*target.of(ns.name), killed(program, target, answered=answered)):
            streams.fail(first=number == 0)
            ended = wait_for("the controller dies", lambda program=program: program.process.ended)  # type: ignore[misc]
        assert ended == -signal.SIGKILL
        most = max(most, len(streams.unused() - streams.replaced))
        if luck.random() < 0.5:
            streams.replace(target.stream, target.name, number)
        program = start(program=between.kubeconfig)
        streams.wait_healed()
        assert streams.unused() <= streams.replaced, "at most the one that the mirror has no more, for each kill"
    saw["kills"] = str(kills)
    saw["Images without use"] = f"at most {most} until the restart, {len(streams.unused())} at the end"
