"""Asking mirrors for many images: many at once, fair between mirrors, at a bounded rate, and stopped at any time."""

import threading
from collections import Counter
from typing import Any

import pytest
from mirrorstream.diagnose.check import Fate, checks_of
from mirrorstream.diagnose.tag_status import ControllerView
from mirrorstream.imagestream.model import imagestream_from
from mirrorstream.kube.client import ApiError, ApiUnreachable
from mirrorstream.kube.ratelimit import BURST_SECONDS, RateLimiter
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream_cli.asking import AHEAD, CONCURRENCY, Asking

from e2e.testbed.support.waiting import wait_for
from tests.diagnose.builders import DIGEST, Object


class Mirrors:
    """An API server whose mirrors answer when they are let; it counts the dry runs under way at each."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.condition = threading.Condition()
        self.busy: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.open: set[str] = set()

    def let(self, host: str) -> None:
        """Let a mirror answer."""
        with self.condition:
            self.open.add(host)
            self.condition.notify_all()

    def request(self, _method: str, _path: str, *, body: Object, timeout: float, **_: Any) -> Object:
        """A dry run."""
        assert timeout > 15, "the platform's own limit for a registry that drops packets"
        if self.error:
            raise self.error
        host = body["spec"]["images"][0]["from"]["name"].partition("/")[0]
        with self.condition:
            self.busy[host] += 1
            self.most[host] = max(self.most[host], self.busy[host])
            self.most["all"] = max(self.most["all"], self.busy.total())
            self.condition.notify_all()
            self.condition.wait_for(lambda: host in self.open, timeout=30)
            self.busy[host] -= 1
            self.done[host] += 1
            self.condition.notify_all()
        return {"status": {"images": [{"status": {"status": "Success"}, "image": {"metadata": {"name": DIGEST}}}]}}


def many(number: int) -> list[Any]:
    """Checks of many tags, half of them at each of two mirrors."""
    rules = [{"source": f"{name}.io", "mirrors": [f"m-{name}.io"]} for name in ("slow", "fast")]
    policy = MirrorPolicy.from_objects(
        [{"kind": "ImageDigestMirrorSet", "metadata": {"name": "m"}, "spec": {"imageDigestMirrors": rules}}]
    )
    tags = [
        {"name": f"{name}-{n}", "from": {"kind": "DockerImage", "name": f"{name}.io/app:{n}"}}
        for n in range(number)
        for name in ("slow", "fast")
    ]
    stream = imagestream_from({"metadata": {"name": "app", "namespace": "ns"}, "spec": {"tags": tags}})
    return list(checks_of(stream, policy, ControllerView()))


def test_a_slow_mirror_delays_nobody_else() -> None:
    """It gets half of the dry runs at most, and the others' tags are all known while it has not answered once."""
    mirrors, shown = Mirrors(), list[int]()
    mirrors.let("m-fast.io")
    asking = Asking(mirrors, shown.append, RateLimiter(1000))  # type: ignore[arg-type]  what it needs of a client
    checks = many(30)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(asking.ask(checks)))
    thread.start()
    wait_for("the fast mirror's answers", lambda: mirrors.done["m-fast.io"] == 30)
    assert mirrors.done["m-slow.io"] == 0
    mirrors.let("m-slow.io")
    thread.join(30)
    assert [check.tag for check in found] == [check.tag for check in checks]
    assert {check.fate for check in found} == {Fate.SURVIVES}
    assert mirrors.most["m-slow.io"] == CONCURRENCY // 2
    assert mirrors.most["all"] <= CONCURRENCY
    assert shown[-1] == 60
    assert shown == sorted(shown)


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        pytest.param(ApiUnreachable("gone"), Fate.UNKNOWN, id="unreachable"),
        pytest.param(ApiError(403, "Forbidden", "no"), Fate.UNKNOWN, id="forbidden"),
    ],
)
def test_an_api_server_that_does_not_ask_leaves_it_unknown(error: Exception, fate: Fate) -> None:
    """For every tag; nobody waits without end."""
    found = Asking(Mirrors(error), lambda count: None, RateLimiter(1000)).ask(many(3))  # type: ignore[arg-type]
    assert {check.fate for check in found} == {fate}


def test_a_bug_ends_the_command() -> None:
    """It is raised where the command waits."""
    with pytest.raises(ZeroDivisionError):
        Asking(Mirrors(ZeroDivisionError()), lambda count: None, RateLimiter(1000)).ask(many(3))  # type: ignore[arg-type]


def test_the_api_server_does_not_feel_it() -> None:
    """Ten thousand tags take as long as the rate says, on a clock that only the limiter moves."""
    lock, time = threading.Lock(), [0.0]

    def sleep(seconds: float) -> None:
        with lock:
            time[0] += seconds / CONCURRENCY  # so many sleep at once

    mirrors = Mirrors()
    mirrors.let("m-fast.io")
    mirrors.let("m-slow.io")
    checks = many(500)
    limiter = RateLimiter(40, clock=lambda: time[0], sleep=sleep)
    found = Asking(mirrors, lambda count: None, limiter).ask(checks)  # type: ignore[arg-type]
    assert len(found) == mirrors.done.total() == len(checks)
    assert time[0] >= len(checks) / 40 - BURST_SECONDS - 0.001


def test_ctrl_c_keeps_what_is_known() -> None:
    """Little more than what is asked for at once is lost, and what is known is in the order of the tags."""

    def progress(count: int) -> None:
        if count >= 100:
            raise KeyboardInterrupt

    mirrors = Mirrors()
    mirrors.let("m-fast.io")
    mirrors.let("m-slow.io")
    checks = many(500)
    found = Asking(mirrors, progress, RateLimiter(1000)).ask(checks)  # type: ignore[arg-type]
    names = [check.name for check in checks]
    positions = [names.index(check.name) for check in found]
    assert positions == sorted(positions)
    assert 100 <= len(found) < len(checks)
    assert positions[-1] - len(found) < AHEAD


def test_ctrl_c_before_anything_is_known_ends_it() -> None:
    """There is nothing to tell."""

    def progress(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Asking(Mirrors(), progress, RateLimiter(1000)).ask(many(3))  # type: ignore[arg-type]
