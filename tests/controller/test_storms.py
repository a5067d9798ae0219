"""Much at once, at the level of decisions: how often streams are looked at and mirrors asked, and whose turn comes when."""

from collections import Counter
from typing import Any

from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream_controller.reconciler import SPREAD_PER_SECOND

from tests.controller.bed import FAILED, NO_RULES, Bed, asked

STREAMS = 500
SECONDS = 40


def rules(number: int) -> MirrorPolicy:
    """Rules whose mirror is another one each time."""
    mirrors = [{"source": "src.io", "mirrors": [f"m.io/x{number}"]}]
    return MirrorPolicy.from_objects(
        [{"kind": "ImageDigestMirrorSet", "metadata": {"name": "m"}, "spec": {"imageDigestMirrors": mirrors}}]
    )


class Mirrors:
    """An API server whose importer finds nothing in any mirror."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def request(self, method: str, path: str, *, body: Any, **more: Any) -> Any:
        """A dry run."""
        self.asked.append(body["spec"]["images"][0]["from"]["name"])
        more["answered"](0.0)
        return {"status": {"images": [{"status": {"status": "Failure", "reason": "NotFound", "message": "not found"}}]}}


def busy() -> Bed:
    """A cluster with 500 failing streams in 40 namespaces that no rule covers yet."""
    bed = Bed()
    bed.reconciler.on_policy(NO_RULES)
    for number in range(STREAMS):
        bed.see((f"ns{number % 40}", f"app{number}"), FAILED)
    bed.work()
    return bed


def test_rules_that_change_every_second_make_no_storm() -> None:
    """50 streams a second are looked at for that reason, as after a single change, and each of them has its turn."""
    bed = busy()
    looks: Counter[tuple[str, str]] = Counter()
    for second in range(SECONDS):
        bed.reconciler.on_policy(rules(second))
        found = bed.work()
        # What was imported in vain is looked at for that, and is tried again after its back-off: no mirror is asked here.
        bed.pool.imports.clear()
        looks.update(found)
        assert len(found) <= SPREAD_PER_SECOND + 1, second
        bed.time += 1
    assert len(looks) == STREAMS, "all of them"
    assert max(looks.values()) <= SECONDS * SPREAD_PER_SECOND / STREAMS + 1, "in turn"
    for _ in range(STREAMS // SPREAD_PER_SECOND + 1):
        bed.work()
        bed.time += 1
    assert bed.work() == [], "and when the rules stay, that comes to its end"


def test_everybody_has_the_latest_rules_in_the_time_of_one_change() -> None:
    """However often they changed before: 500 streams take 10 seconds."""
    bed = busy()
    for second in range(30):
        bed.reconciler.on_policy(rules(second))
        bed.work()
        bed.time += 1
    bed.reconciler.on_policy(rules(1000))
    bed.pool.imports.clear()
    for _ in range(STREAMS // SPREAD_PER_SECOND + 1):
        bed.work()
        bed.time += 1
    asked_for: Any = Mirrors()
    bed.reconciler._worker._importer._client = asked_for
    bed.pool.run()
    assert Counter(reference.split("/")[1] for reference in asked_for.asked) == {"x1000": STREAMS}


def test_a_retry_comes_before_a_storm() -> None:
    """It is the next that a worker looks at, and the storm goes on."""
    bed = busy()
    bed.reconciler.on_policy(rules(0))
    bed.time += 1000
    for number in range(STREAMS):
        bed.see((f"ns{number % 40}", f"app{number}"), FAILED)
    bed.see(("mine", "app"), FAILED)
    bed.see(("mine", "app"), asked("now"))
    assert bed.waiting().index(("mine", "app")) == 0
