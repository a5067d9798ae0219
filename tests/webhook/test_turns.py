"""Which pod is next."""

from mirrorstream_webhook.pending_pods.turns import Turns

from tests.webhook.pending_loop import KEY


def test_namespaces_take_turns() -> None:
    """A tenant with a thousand pods delays the others by one pod each."""
    turns = Turns()
    for number in range(1000):
        turns.add(("many", f"pod-{number}"), 0.0)
    turns.add(("few", "pod"), 1.0)
    assert turns.take(0.5) == ("many", "pod-0")
    assert {turns.take(1.0), turns.take(1.0)} == {("many", "pod-1"), ("few", "pod")}
    left = []
    while key := turns.take(1.0):
        left.append(key)
    assert len(left) == len(set(left)) == 998
    assert turns.next(1.0) is None


def test_a_key_is_due_at_the_earliest_time_that_was_asked_for() -> None:
    """And once only; what was discarded does not come."""
    turns = Turns()
    turns.add(KEY, 10.0)
    turns.add(KEY, 5.0)
    turns.add(KEY, 20.0)
    assert (turns.take(4.9), turns.next(4.0)) == (None, 1.0)
    assert turns.take(5.0) == KEY
    assert turns.take(30.0) is None
    turns.add(KEY, 40.0)
    turns.discard(KEY)
    assert turns.take(50.0) is None
    assert len(turns) == 0


def test_what_was_replaced_or_discarded_takes_no_room() -> None:
    """Pods come and go for weeks, each with a time to come that is far away."""
    turns = Turns()
    turns.add(KEY, 1e9)
    for number in range(10_000):
        turns.add(("few", "pod"), 1e8 - number)
        turns.add(("many", f"pod-{number}"), 1e9)
        turns.discard(("many", f"pod-{number}"))
    assert len(turns) == 2
    assert turns.entries() < 200
    assert turns.take(1e8) == ("few", "pod")
    assert turns.take(1e9) == KEY
    assert turns.take(1e10) is None
