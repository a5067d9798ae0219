"""Which pod is next."""

from mirrorstream_webhook.pending_pods.namespace_queue import NamespaceQueue

from tests.webhook.pending_loop import KEY


def test_namespaces_take_turns() -> None:
    """A tenant with a thousand pods delays the others by one pod each."""
    queue = NamespaceQueue()
    for number in range(1000):
        queue.add(("many", f"pod-{number}"), 0.0)
    queue.add(("few", "pod"), 1.0)
    assert queue.take(0.5) == ("many", "pod-0")
    assert {queue.take(1.0), queue.take(1.0)} == {("many", "pod-1"), ("few", "pod")}
    left = []
    while key := queue.take(1.0):
        left.append(key)
    assert len(left) == len(set(left)) == 998
    assert queue.next(1.0) is None


def test_a_key_is_due_at_the_earliest_time_that_was_asked_for() -> None:
    """And once only; what was discarded does not come."""
    queue = NamespaceQueue()
    queue.add(KEY, 10.0)
    queue.add(KEY, 5.0)
    queue.add(KEY, 20.0)
    assert (queue.take(4.9), queue.next(4.0)) == (None, 1.0)
    assert queue.take(5.0) == KEY
    assert queue.take(30.0) is None
    queue.add(KEY, 40.0)
    queue.discard(KEY)
    assert queue.take(50.0) is None
    assert len(queue) == 0


def test_what_was_replaced_or_discarded_takes_no_room() -> None:
    """Pods come and go for weeks, each with a time to come that is far away."""
    queue = NamespaceQueue()
    queue.add(KEY, 1e9)
    for number in range(10_000):
        queue.add(("few", "pod"), 1e8 - number)
        queue.add(("many", f"pod-{number}"), 1e9)
        queue.discard(("many", f"pod-{number}"))
    assert len(queue) == 2
    assert queue.entries() < 200
    assert queue.take(1e8) == ("few", "pod")
    assert queue.take(1e9) == KEY
    assert queue.take(1e10) is None
