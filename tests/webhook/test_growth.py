"""What the webhook keeps goes with what it is about: pods, accounts, streams and policies come and go for months."""

from typing import Any

import pytest
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_or_none
from mirrorstream_webhook import guards
from mirrorstream_webhook.access import STALE_SECONDS, SWEEP_SECONDS, Access
from mirrorstream_webhook.cache import MAX_ENTRIES, ReviewCache, review_outcome
from mirrorstream_webhook.claims import REMEMBERED, Stream, _remembered, parse_again
from mirrorstream_webhook.guards import Guards, SignaturePolicies, signature_policy_from
from mirrorstream_webhook.index import Index
from mirrorstream_webhook.patch import Rewriting

from e2e.testbed.support.waiting import wait_for
from tests.webhook.access_reviews import Clock, Server
from tests.webhook.builders import MIRROR_SET, SOURCE, digest, imported, stream, tag


@pytest.mark.parametrize("answers", [True, False], ids=["answered", "not-answered"])
def test_rights_of_accounts_that_are_gone_are_forgotten(answers: bool) -> None:
    """A pipeline may have a namespace and an account of its own for each run; what counts no more goes after minutes."""
    clock, server = Clock(), Server()
    server.answer = server.answer if answers else None
    client: Any = server
    access = Access(client, clock=clock)
    access.start()
    try:
        most = 0
        for number in range(1000):
            entry = access._ask(("shared", "app", f"run-{number}", "default"))
            wait_for("it is told", entry.told.done, step=0.001)
            clock.now += 10
            most = max(most, len(access._entries))
        assert most <= (STALE_SECONDS + SWEEP_SECONDS) / 10 + 2
        if answers:
            asked = len(server.bodies)
            assert access.allowed("shared", "app", "run-999", "default") is True
            assert len(server.bodies) == asked, "what counts is kept"
    finally:
        access.stop()


def test_answers_that_count_no_more_do_not_stay() -> None:
    """They are for the moment of a rollout; after it there is hardly one."""
    now = [0.0]
    outcomes = ReviewCache(lambda: now[0])
    answer = review_outcome(Rewriting())
    for number in range(5 * MAX_ENTRIES):
        outcomes.put(number, 1, answer)
        now[0] += 0.5
        assert outcomes.get(number, 1) is answer
    assert len(outcomes._kept) <= 4


def test_one_that_is_kept_anew_keeps_no_older_one() -> None:
    """Their order is that in which they end, also where one is put again."""
    now = [0.0]
    outcomes = ReviewCache(lambda: now[0])
    answer = review_outcome(Rewriting())
    for number in range(1000):
        outcomes.put("always", number, answer)
        outcomes.put(number, number, answer)
        now[0] += 0.4
    assert len(outcomes._kept) <= 6


def test_of_streams_that_are_gone_the_index_has_nothing() -> None:
    """Neither references, nor their namespaces, nor what is not known of their items."""
    index = Index()
    streams = [
        stream(f"app{number}", tag("v1", f"{SOURCE}:v1", imported(number)), tag("v2", None), namespace=f"ns{number % 7}")
        for number in range(50)
    ]
    streams += [stream("empty", namespace="nothing"), stream("changed", tag("v1", f"{SOURCE}:v1", imported(1), generation=2))]
    for found in streams:
        index.apply(None, found)
    for found in streams:
        index.apply(found, found)
    assert index.references()
    for found in streams:
        index.apply(found, None)
    assert (index.references(), index._namespaces, index._unsettled) == (0, {}, {})


def test_of_signature_policies_that_are_gone_nothing_is_left() -> None:
    """In whatever order they go."""
    signatures = SignaturePolicies()
    policies = [
        signature_policy_from(
            {"metadata": {"name": f"p{n}", "namespace": f"ns{n % 3}"}, "spec": {"scopes": [f"r{n % 5}.io", "all.io"]}}
        )
        for n in range(30)
    ]
    for policy in policies:
        signatures.apply(None, policy)
    for policy in reversed(policies):
        signatures.apply(policy, None)
    assert signatures._scopes == {}


def test_what_pods_name_is_remembered_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods' creators choose the names; answers for the present rules, and parsed references, are bounded."""
    monkeypatch.setattr(guards, "REMEMBERED", 100)
    found = Guards(MirrorPolicy.from_objects([MIRROR_SET]), SignaturePolicies(), respect=True)
    for number in range(1000):
        text = f"{SOURCE}{number}:v1"
        reference = parse_or_none(text)
        assert reference
        found.problem(reference, text, f"ns{number}")
        found.covered(reference.name)
        found.repository(Stream("ns", f"app{number}"), f"ns{number}")
        found.digest_target(reference.name, reference.name, "", digest(number))
    assert max(len(found._problems), len(found._covered), len(found._repositories), len(found._digests)) <= 100
    for number in range(REMEMBERED + 500):
        parse_again(f"{SOURCE}:{number}")
    assert _remembered.cache_info().currsize <= REMEMBERED
