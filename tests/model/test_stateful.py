"""Random histories of a whole cluster: users, registries, rules, restarts and time in any order, on the simulator.

MIRRORSTREAM_SOAK=1 (`make soak`) runs many and longer ones, random each time.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from mirrorstream.imagestream.outcomes import HELD
from mirrorstream.rules.references import parse_reference
from mirrorstream_controller.stream_state import NEXT_PHASES, Phase

from tests.model import SOAK
from tests.model.cluster import IMAGES, Bed, Cluster, Object, entries, has_failed, is_pending, main_tag, source_of

NAMES = st.sampled_from(["a", "b"])
STREAMS = ("a", "b")
SOURCE_STATES = st.sampled_from(["down", "missing", "one", "two"])
MIRROR_STATES = st.sampled_from(["down", "missing", "one", "two"])
KINDS = ("digest", "tag")
PROFILE: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": False,
}
EXAMPLES = 60
BOUNDED = settings(**PROFILE, derandomize=True, max_examples=EXAMPLES, stateful_step_count=30)
LONG = settings(**PROFILE, max_examples=1500, stateful_step_count=50)
ROUNDS = 12
"""In so many looks, hours apart, everything must be well."""
BUMPED = 3
"""After so many, none has an image of a source that it had before: nothing is held of that."""
DISABLED = "mirrorstream.github.io/import"
RETRY = "mirrorstream.github.io/retry"


class Machine(RuleBasedStateMachine):
    """Everything that may happen to two streams."""

    cluster: Cluster

    def __init__(self) -> None:
        super().__init__()
        self.bed = Bed(self.cluster)
        self.source = dict.fromkeys(STREAMS, "down")
        self.said: dict[tuple[str, str], str] = {}
        """What the source answered last to the platform, by stream and source."""
        self.rules: frozenset[str] = frozenset()
        self.blocked = False
        self.retries = 0
        self.came_from: dict[str, str] = {}
        """The source that each stream's newest item came from."""
        self.heard_from: dict[str, str] = {}
        """The same, of the items that the controller's watch brought."""
        for name in STREAMS:
            self.bed.put_source(name, "down")
            for kind in KINDS:
                self.bed.put_mirror(kind, name, "missing")

    # Users.

    @initialize()
    def begin(self) -> None:
        """Most of what is interesting needs a rule and a stream."""
        self.change_rules(frozenset({"digest"}))
        self.create("a", scheduled=False)

    @rule(name=NAMES, scheduled=st.booleans())
    def create(self, name: str, scheduled: bool) -> None:
        """Create a stream, if there is none, with a tag that imports and one that follows it."""
        if self.bed.stream(name):
            return
        tags: list[Object] = [
            {"name": "latest", "from": {"kind": "ImageStreamTag", "name": "main"}},
            {"name": "main", "from": self._from(name, "v1"), "importPolicy": {"scheduled": scheduled}},
        ]
        collection = self.bed.path(name).rpartition("/")[0]
        self.bed.client.request("POST", collection, body={"metadata": {"name": name}, "spec": {"tags": tags}})

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        """Delete a stream."""
        if self.bed.stream(name):
            self.bed.client.request("DELETE", self.bed.path(name))
            self._forget(name)
            self.came_from.pop(name, None)

    @rule(name=NAMES, tag=st.sampled_from(["v1", "v2"]))
    def change_source(self, name: str, tag: str) -> None:
        """Edit what the tag imports."""
        self._edit(name, lambda main: main.update({"from": self._from(name, tag)}))

    @rule(name=NAMES, mode=st.sampled_from(["Legacy", "PreserveOriginal"]))
    def change_import_mode(self, name: str, mode: str) -> None:
        """Edit how the tag is imported: its generation rises."""
        self._edit(name, lambda main: main["importPolicy"].update({"importMode": mode}))

    @rule(name=NAMES)
    def upstream_is_lost(self, name: str) -> None:
        """The platform had an image, and the next import fails: what mirrors may not undo at once."""
        self.change_upstream(name, "one")
        self.platform_imports(name, scheduled=False)
        self.change_upstream(name, "down")
        self.import_image(name)

    @rule(name=NAMES, tag=st.sampled_from(["v1", "v2"]), heard=st.booleans())
    def version_is_bumped(self, name: str, tag: str, heard: bool) -> None:
        """The same with a change of the source, of whose time before the controller heard, or did not."""
        self.change_upstream(name, "one")
        self.platform_imports(name, scheduled=False)
        if heard:
            self.watch_delivers()
        self.change_upstream(name, "down")
        self.change_source(name, tag)
        self.platform_imports(name, scheduled=False)

    @rule(name=NAMES)
    def import_image(self, name: str) -> None:
        """What `oc import-image` does."""
        if stream := self.bed.stream(name):
            main = main_tag(stream)
            image = {"from": main["from"], "to": {"name": "main"}, "importPolicy": main["importPolicy"]}
            body = {"metadata": {"name": name}, "spec": {"import": True, "images": [image]}}
            self._hear(name)
            self.bed.client.request("POST", f"{IMAGES}/namespaces/{self.bed.namespace}/imagestreamimports", body=body)
            self.every_item_has_a_source()

    @rule(name=NAMES)
    def retry(self, name: str) -> None:
        """What `mirrorstream retry` does besides."""
        self.retries += 1
        self._annotate(name, RETRY, str(self.retries))

    @rule(name=NAMES)
    def retry_what_is_held(self, name: str) -> None:
        """A user does not wait for the end of the hour; a mirror may have another image by now."""
        self._lose_upstream_and_mirror_another(name)
        self._round()
        self.retry(name)
        self._round()

    @rule(name=NAMES, value=st.sampled_from(["disabled", "enabled"]))
    def opt_out(self, name: str, value: str) -> None:
        """Opt out, or in again."""
        self._annotate(name, DISABLED, value)

    # Registries and rules.

    @rule(name=NAMES, state=SOURCE_STATES)
    def change_upstream(self, name: str, state: str) -> None:
        """The source goes down, comes up, loses the image or gets another one."""
        self.source[name] = state
        self.bed.put_source(name, state)

    @rule(name=NAMES, kind=st.sampled_from(KINDS), state=MIRROR_STATES)
    def change_mirror(self, name: str, kind: str, state: str) -> None:
        """A mirror goes down, comes up, lacks the image, has an old or a new one."""
        self.bed.put_mirror(kind, name, state)

    @rule(kinds=st.sampled_from([frozenset(), frozenset({"digest"}), frozenset({"tag"}), frozenset(KINDS)]))
    def change_rules(self, kinds: frozenset[str]) -> None:
        """Rules come and go."""
        self.rules = kinds
        self.bed.set_rules(kinds)

    @rule(blocked=st.booleans())
    def block(self, blocked: bool) -> None:
        """The source is blocked, or allowed again."""
        self.blocked = blocked
        self.bed.set_blocked(blocked=blocked)

    # The platform and the controller.

    @rule(name=NAMES, scheduled=st.booleans())
    def platform_imports(self, name: str, scheduled: bool) -> None:
        """The platform's import controller looks at a stream, or does what it does every quarter of an hour."""
        stream = self.bed.stream(name)
        if stream and (is_pending(stream) or (scheduled and main_tag(stream)["importPolicy"].get("scheduled"))):
            self._hear(name)
        self.bed.platform_imports(name, scheduled=scheduled)
        self.every_item_has_a_source()

    @rule()
    def watch_delivers(self) -> None:
        """The controller hears what became of the streams."""
        self._deliver()

    @rule()
    def rules_are_delivered(self) -> None:
        """The controller hears of changed rules."""
        self.bed.deliver_rules()

    @rule()
    def controller_works(self) -> None:
        """Workers look at what is due."""
        self._watched(self.bed.work)

    @precondition(lambda self: self.bed.pool.jobs)
    @rule()
    def import_runs(self) -> None:
        """A mirror answers."""
        self._watched(self.bed.run_import)

    @rule(name=NAMES, answered=st.booleans())
    def rules_go_during_an_import(self, name: str, answered: bool) -> None:
        """What a mirror served, or is about to serve, is not wanted any more."""
        self._lose_upstream_and_mirror_another(name)
        self.bed.deliver_rules()
        self._deliver()
        self.controller_works()
        while answered and self.bed.pool.jobs:
            self.import_runs()
        self.change_rules(frozenset())
        self.rules_are_delivered()
        self.controller_works()

    @rule()
    def everything_moves(self) -> None:
        """What a second brings, when nothing is in the way."""
        self._round()

    @rule(seconds=st.sampled_from([1.0, 10.0, 200.0, 4000.0]))
    def time_passes(self, seconds: float) -> None:
        """Nothing else happens."""
        self.bed.time += seconds

    @rule()
    def restart(self) -> None:
        """The controller is killed, and another one started."""
        self.bed.start_controller()
        self.heard_from = dict(self.came_from)

    # What must hold.

    @invariant()
    def every_item_has_its_image(self) -> None:
        """An item without its Image cannot be pulled."""
        for name in STREAMS:
            for entry in entries(self.bed.stream(name)).values():
                for item in (entry.get("items") or [])[:1]:
                    self.bed.client.get(f"{IMAGES}/images/{item['image']}")

    @invariant()
    def every_item_has_a_source(self) -> None:
        """An item that is as young as its tag came from the tag's present source."""
        for name in STREAMS:
            stream = self.bed.stream(name)
            items = entries(stream).get("main", {}).get("items") or []
            if stream and items and items[0]["generation"] >= main_tag(stream)["generation"]:
                self.came_from[name] = source_of(stream)

    def _deliver(self) -> None:
        self.every_item_has_a_source()
        self.bed.deliver()
        self.heard_from = dict(self.came_from)

    def _watched(self, step: Any) -> None:
        """Let the controller act, and hold it to what it may do."""
        told = len(self.bed.events)
        self._watch_writes(step)
        self.every_item_has_a_source()
        for reason, _, involved, attempt in self.bed.events[told:]:
            if reason == HELD:
                assert attempt.source == self.heard_from[involved.name], "what came from another source is not held"

    def _watch_writes(self, step: Any) -> None:
        before = {name: self.bed.stream(name) for name in STREAMS}
        written = Counter(self.bed.counting.writes)
        looks = step()
        for name in STREAMS:
            after, count = self.bed.stream(name), (self.bed.counting.writes - written)[f"{self.bed.path(name)}/status"]
            assert count <= (looks or Counter())[self.bed.namespace, name], "one write a look"
            if count == 0:
                assert after == before[name], "only the status, and only what is counted"
                continue
            old = before[name]
            assert old
            assert after
            assert after["spec"] == old["spec"]
            assert {**after["metadata"], "resourceVersion": ""} == {**old["metadata"], "resourceVersion": ""}
            if after["status"] == old["status"]:
                continue
            self._allowed(name, old)
        assert all(path.endswith("/status") or path.startswith(f"{IMAGES}/images/") for path in self.bed.counting.writes)

    def _allowed(self, name: str, old: Object) -> None:
        """Whether the controller may have written into `old`."""
        assert (old["metadata"].get("annotations") or {}).get(DISABLED) != "disabled", "opted out"
        source = source_of(old)
        assert self.said.get((name, source)) not in ("missing", "blocked"), "the source said no"
        policy = self.bed.policy
        assert policy
        assert policy.resolve(parse_reference(source)).refusal is None, "forbidden, and the controller knows"
        assert policy.import_candidates(source), "no rule asks for it, and the controller knows"
        assert is_pending(old) or has_failed(old), "there was nothing to heal"

    def teardown(self) -> None:
        """Everything that can be served is put up: every tag is served soon, and then nothing is written any more."""
        self.change_rules(frozenset(KINDS))
        self.block(blocked=False)
        for name in STREAMS:
            self.change_upstream(name, "down")
            for kind in KINDS:
                self.change_mirror(name, kind, "two")
            self.opt_out(name, "enabled")
            stream = self.bed.stream(name)
            if stream and self.said.get((name, source_of(stream))) in ("missing", "blocked"):
                # The source had the last word; the user has to ask again.
                self.import_image(name)
        for number in range(ROUNDS):
            self._round()
            self.bed.time += 400
            if number == BUMPED:
                for name in filter(self.bed.stream, STREAMS):
                    assert self.came_from[name] == source_of(self.bed.stream(name) or {}), "another version"
        for name in STREAMS:
            stream = self.bed.stream(name)
            if stream:
                assert not is_pending(stream), stream
                assert not has_failed(stream), (stream, self.bed.events)
                assert {tag for tag, entry in entries(stream).items() if entry.get("items")} == {"latest", "main"}
        written = Counter(self.bed.counting.writes)
        for _ in range(4):
            self._round()
            self.bed.time += 4000
        assert self.bed.counting.writes == written, "what is well is left alone"

    def _round(self) -> None:
        """Everything that is due, until nothing is."""
        self.bed.deliver_rules()
        for name in STREAMS:
            self.platform_imports(name, scheduled=False)
        self._deliver()
        for _ in range(10):
            self._watched(self.bed.work)
            if not self.bed.pool.jobs:
                break
            while self.bed.pool.jobs:
                self._watched(self.bed.run_import)
        self._deliver()

    # Helpers.

    def _lose_upstream_and_mirror_another(self, name: str) -> None:
        self.create(name, scheduled=False)
        self.change_rules(frozenset({"digest"}))
        self.change_mirror(name, "digest", "two")
        self.upstream_is_lost(name)

    def _from(self, name: str, tag: str) -> Object:
        return {"kind": "DockerImage", "name": self.bed.reference(name, tag)}

    def _edit(self, name: str, change: Any) -> None:
        if stream := self.bed.stream(name):
            before = source_of(stream)
            self.bed.edit(name, lambda stream: change(main_tag(stream)))
            after = self.bed.stream(name)
            if after and source_of(after) != before:
                self._forget(name)

    def _annotate(self, name: str, annotation: str, value: str) -> None:
        if self.bed.stream(name):
            self.bed.edit(name, lambda stream: stream["metadata"].setdefault("annotations", {}).update({annotation: value}))

    def _hear(self, name: str) -> None:
        """The source is about to answer the platform."""
        stream = self.bed.stream(name)
        assert stream
        self.said[name, source_of(stream)] = "blocked" if self.blocked else self.source[name]

    def _forget(self, name: str) -> None:
        self.said = {key: said for key, said in self.said.items() if key[0] != name}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster for all examples."""
    found = Cluster(tmp_path)
    found.start()
    yield found
    found.stop()


@pytest.mark.timeout(3600)
def test_any_history(cluster: Cluster) -> None:
    """No spec change, no forbidden image, one write a reconcile, every transition of a tag; in the end all is served."""
    machine = type("Machine", (Machine,), {"cluster": cluster})
    run_state_machine_as_test(machine, settings=LONG if SOAK else BOUNDED)
    assert set(cluster.told) >= {"ImportedFromMirror", "MirrorImportFailed", "MirrorImportHeld", "MirrorImportRefused"}
    expected = {(before, then) for before, following in NEXT_PHASES.items() for then in following}
    # New settings during a status write take a second thread: test_stream_state.py has that transition.
    assert {*cluster.transitions, (Phase.IDLE, Phase.BACKING_OFF)} == expected
