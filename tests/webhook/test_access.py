"""The right to pull: asked once, remembered briefly, and never waited for long."""

import threading
from collections.abc import Iterator

import pytest
from mirrorstream_webhook import access
from mirrorstream_webhook.access import ANONYMOUS, Access

from e2e.testbed.support.waiting import wait_for
from tests.webhook.access_reviews import ALLOWED, Clock, Server

DENIED = b'{"status": {"allowed": false}}'


@pytest.fixture
def server() -> Server:
    """The API server."""
    return Server()


@pytest.fixture
def clock() -> Clock:
    """The clock."""
    return Clock()


@pytest.fixture
def asked(server: Server, clock: Clock) -> Iterator[Access]:
    """An Access on them."""
    running = Access(server, clock=clock)  # type: ignore[arg-type]
    running.start()
    yield running
    server.gate.set()
    running.stop()


def test_the_review_is_that_of_the_registry(asked: Access, server: Server) -> None:
    """Get imagestreams/layers, as the service account with its groups: what the internal registry asks before it serves."""
    assert asked.allowed("openshift", "app", "team", "builder") is True
    (body,) = server.bodies
    assert body["spec"]["user"] == "system:serviceaccount:team:builder"
    assert body["spec"]["groups"] == ["system:serviceaccounts", "system:serviceaccounts:team", "system:authenticated"]
    attributes = body["spec"]["resourceAttributes"]
    assert attributes.pop("namespace") == "openshift"
    of_the_stream = {"group": "image.openshift.io", "resource": "imagestreams", "subresource": "layers", "name": "app"}
    assert attributes == {"verb": "get", **of_the_stream}


def test_a_pull_without_login_is_a_question_of_its_own(asked: Access, server: Server) -> None:
    """As the registry asks it: the anonymous user, in no other group."""
    assert asked.allowed("openshift", "app", *ANONYMOUS) is True
    assert [server.bodies[0]["spec"][key] for key in ("user", "groups")] == ["system:anonymous", ["system:unauthenticated"]]
    server.answer = DENIED
    assert asked.allowed("openshift", "app", "team", "default") is False


def test_a_right_to_one_stream_is_none_to_another(asked: Access, server: Server) -> None:
    """A role may name streams: each is asked by its name."""
    assert asked.allowed("openshift", "app", "team", "default") is True
    server.answer = DENIED
    assert asked.allowed("openshift", "other", "team", "default") is False
    assert [body["spec"]["resourceAttributes"]["name"] for body in server.bodies] == ["app", "other"]


def test_answers_are_remembered_briefly(asked: Access, server: Server, clock: Clock) -> None:
    """A refusal is forgotten sooner than a permission; each account and namespace is a question of its own."""
    for _ in range(3):
        assert asked.allowed("openshift", "app", "team", "default") is True
    assert len(server.bodies) == 1
    server.answer = DENIED
    assert asked.allowed("openshift", "app", "team", "other") is False
    assert asked.allowed("golden", "app", "team", "default") is False
    server.answer = ALLOWED
    assert asked.allowed("golden", "app", "team", "default") is False
    clock.now += 6
    assert asked.allowed("golden", "app", "team", "default") is True
    assert asked.allowed("openshift", "app", "team", "default") is True
    assert len(server.bodies) == 4


def test_a_right_that_was_taken_away_is_noticed(asked: Access, server: Server, clock: Clock) -> None:
    """Within a minute at the latest."""
    assert asked.allowed("openshift", "app", "team", "default") is True
    server.answer = DENIED
    clock.now += 61
    assert asked.allowed("openshift", "app", "team", "default") is False


def test_without_an_api_server_the_last_answer_counts_for_a_while(asked: Access, server: Server, clock: Clock) -> None:
    """And what was never answered is unknown."""
    assert asked.allowed("openshift", "app", "team", "default") is True
    server.answer = None
    clock.now += 120
    assert asked.allowed("openshift", "app", "team", "default") is True
    assert asked.allowed("openshift", "app", "team", "new") is None
    clock.now += 600
    assert asked.allowed("openshift", "app", "team", "default") is None


def test_an_api_server_that_hangs_holds_up_nobody_for_long_and_piles_up_nothing(
    asked: Access, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many reviews at once: each is through in time, one question is one request, and threads are bounded."""
    monkeypatch.setattr(access, "WAIT_SECONDS", 0.2)
    server.gate.clear()
    before = threading.active_count()
    through: list[int] = []

    def review(number: int) -> None:
        assert asked.allowed("openshift", "app", f"team-{number % 4}", "default") is None
        through.append(number)

    threads = [threading.Thread(target=review, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(through) == 100, "though no answer has come"
    assert len(server.bodies) == 4
    assert threading.active_count() <= before
    # Nobody waits again before an answer has come: this would be for an hour.
    monkeypatch.setattr(access, "WAIT_SECONDS", 3600)
    assert asked.allowed("openshift", "app", "another-team", "default") is None
    server.gate.set()
    wait_for("an answer has come", lambda: asked.allowed("openshift", "app", "team-1", "default"))
    assert asked.allowed("openshift", "app", "one-more-team", "default") is True


def test_after_a_failure_nobody_waits_again_at_once(asked: Access, server: Server, clock: Clock) -> None:
    """The question is asked again a moment later, and is answered then."""
    server.answer = None
    assert asked.allowed("openshift", "app", "team", "default") is None
    server.answer = ALLOWED
    assert asked.allowed("openshift", "app", "team", "default") is None
    assert len(server.bodies) == 1
    clock.now += access.FAILED_SECONDS + 0.1
    assert asked.allowed("openshift", "app", "team", "default") is True


def test_one_slow_answer_is_no_api_server_that_hangs(asked: Access, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An authorizer may be slow about one account, again and again: the questions of others are waited for."""
    monkeypatch.setattr(access, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(access, "FAILED_SECONDS", 0.0)
    monkeypatch.setattr(access, "REQUEST_SECONDS", 0.3)
    server.slow = "system:serviceaccount:team:slow"
    server.gate.clear()
    for number in range(6):
        assert asked.allowed("openshift", "app", "team", "slow") is None
        assert asked.allowed("openshift", "app", "team", f"other-{number}") is True
    server.gate.set()
    wait_for("the slow answer has come", lambda: asked.allowed("openshift", "app", "team", "slow"))


def test_slow_answers_about_one_account_are_counted_once(asked: Access, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody else asks, too."""
    monkeypatch.setattr(access, "WAIT_SECONDS", 0.05)
    server.gate.clear()
    for _ in range(2 * access.HANGS_FROM):
        assert asked.allowed("openshift", "app", "team", "slow") is None
    server.gate.set()
    assert asked.allowed("openshift", "app", "team", "other") is True
