"""The client: credentials as kubectl finds them, errors in one line, no wait without a limit."""

import base64
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from mirrorstream.kube.client import (
    CONNECT_TIMEOUT,
    ApiError,
    ApiTimeout,
    ApiUnreachable,
    Client,
    ConfigurationError,
    load_client,
)
from mirrorstream.kube.ratelimit import RateLimiter, prioritized
from mirrorstream.kube.rest_config import RestConfig

from e2e.testbed.support.certificates import Authority
from tests.kube.conftest import Request, Script, secured


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("a: [", "not valid YAML"),
        ("contexts: 7", "contexts: expected a list of mappings"),
        ("users: [7]", "users: expected a list of mappings"),
        ("- a", "expected a mapping at the top, found list"),
        ("apiVersion: v1\nkind: Config\ncontexts: []\nclusters: []\nusers: []", "kubeconfig"),
        ("apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: []\nclusters: []\nusers: []", "x"),
    ],
    ids=["missing", "broken", "no-list", "no-mappings", "not-a-mapping", "no-context", "unknown-context"],
)
def test_an_unusable_kubeconfig_is_one_clear_line(tmp_path: Path, content: str | None, says: str) -> None:
    """It names the file."""
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError) as error:
        load_client(str(path))
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_answer_is_decoded_into_the_type_that_is_asked_for(script: Script, client: Client) -> None:
    """And what it does not name is not kept."""

    class Thing(msgspec.Struct):
        name: str

    script.handle = lambda request: request.answer(200, {"name": "x", "more": 1})
    assert client.request("GET", "/thing", decode=msgspec.json.Decoder(Thing).decode) == Thing("x")
    assert client.get("/thing") == {"name": "x", "more": 1}


def test_an_error_answer_carries_its_status(script: Script, client: Client) -> None:
    """Callers tell a 404 from a 409."""
    script.handle = lambda request: request.fail(404, "NotFound", 'streams "x" not found')
    with pytest.raises(ApiError, match='streams "x" not found') as error:
        client.get("/x")
    assert (error.value.status, error.value.reason) == (404, "NotFound")


def test_an_answer_that_is_not_from_an_api_server_is_quoted(script: Script, client: Client) -> None:
    """A proxy's page, say."""
    script.handle = lambda request: request.answer(502, b"<html>bad gateway</html>")
    with pytest.raises(ApiError, match="HTTP status 502: <html>bad gateway"):
        client.get("/x")


def test_nobody_there_is_one_line_that_names_the_server(tmp_path: Path, script: Script) -> None:
    """Not a traceback of three libraries."""
    client = load_client(str(script.kubeconfig(tmp_path / "k")))
    script.server.shutdown()
    script.server.server_close()
    with pytest.raises(ApiUnreachable) as error:
        client.get("/x")
    assert script.url in str(error.value)
    assert "refused" in str(error.value)
    assert len(str(error.value)) < 200


def test_a_server_that_never_answers_is_given_up(script: Script, client: Client) -> None:
    """Every request has a limit, and it is told from a server that was not asked."""
    script.handle = lambda request: script.ended.wait(600) and None
    with pytest.raises(ApiTimeout, match="timed out"):
        client.request("GET", "/x", timeout=0.2)


def test_throttling_is_obeyed_a_bounded_number_of_times(script: Script, client: Client) -> None:
    """429 with Retry-After: wait, try again, and give up in the end."""
    slept: list[float] = []
    client._sleep = slept.append
    answers = iter([429, 429, 200])

    def handle(request: Request) -> None:
        code = next(answers, 429)
        request.answer(200, {}) if code == 200 else request.fail(429, "TooManyRequests", Retry_After="2")

    script.handle = handle
    client.get("/x")
    assert len(slept) == 2
    assert all(2 <= seconds <= 2.25 for seconds in slept)
    with pytest.raises(ApiError):
        client.get("/x")


def test_what_the_server_took_is_told_without_the_waits_before(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the limit of requests nor a Retry-After makes the server slow; each answer is told."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("mirrorstream.kube.client.time.monotonic", lambda: now[0])
    client._sleep = sleep
    client.limiter = RateLimiter(0.5, clock=lambda: now[0], sleep=sleep)
    codes = iter([429, 200])

    def handle(request: Request) -> None:
        now[0] += 3
        request.answer(200, {}) if next(codes) == 200 else request.fail(429, "TooManyRequests", Retry_After="1")

    script.handle = handle
    took: list[float] = []
    client.request("GET", "/x", answered=took.append)
    assert took == [3, 3]
    assert now[0] > 7


def test_a_rotated_token_is_read_again(script: Script, tmp_path: Path) -> None:
    """A bound token changes on disk; a 401 has the credentials read again, once."""
    token = tmp_path / "token"
    token.write_text("old")
    client = load_client(str(script.kubeconfig(tmp_path / "k", tokenFile=str(token))), in_cluster=False)
    seen: list[str] = []

    def handle(request: Request) -> None:
        seen.append(request.headers["Authorization"])
        request.answer(200, {}) if seen[-1] == "Bearer new" else request.fail(401, "Unauthorized")

    script.handle = handle
    token.write_text("new")
    client.get("/x")
    assert seen == ["Bearer old", "Bearer new"]
    token.write_text("wrong")
    client._reconnect(client._config)
    with pytest.raises(ApiError) as error:
        client.get("/x")
    assert error.value.status == 401


def test_an_exec_plugin_gives_the_token(script: Script, tmp_path: Path) -> None:
    """As kubectl's credential plugins do."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text('print(\'{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"t"}}\')')
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(plugin)],
            "interactiveMode": "Never",
        }
    }
    seen: list[Any] = []
    script.handle = lambda request: (seen.append(request.headers["Authorization"]), request.answer(200, {}))[1]
    load_client(str(script.kubeconfig(tmp_path / "k", **user)), in_cluster=False).get("/x")
    assert seen == ["Bearer t"]


def test_a_kubeconfigs_password_is_sent(script: Script, tmp_path: Path) -> None:
    """As basic authentication, which kubectl still knows."""
    seen: list[Any] = []
    script.handle = lambda request: (seen.append(request.headers["Authorization"]), request.answer(200, {}))[1]
    path = script.kubeconfig(tmp_path / "k", username="user", password="password")
    load_client(str(path), in_cluster=False).get("/x")
    assert seen == [f"Basic {base64.b64encode(b'user:password').decode()}"]


def limited(rate: float) -> tuple[RateLimiter, list[float]]:
    """A limiter whose clock goes on only while it sleeps, and how long it slept each time."""
    slept: list[float] = []
    return RateLimiter(rate, clock=lambda: sum(slept), sleep=slept.append), slept


def test_the_rate_is_limited_after_a_burst() -> None:
    """Three seconds' worth at once, then at the rate; the rate can change."""
    limiter, slept = limited(10)
    for _ in range(30):
        assert limiter.wait() == 0
    for _ in range(10):
        limiter.wait()
    assert sum(slept) == pytest.approx(1.0)
    limiter.rate = 1
    limiter.wait()
    assert 1 <= slept[-1] <= 2


def test_a_rate_below_one_in_three_seconds_lets_requests_through() -> None:
    """One after the other, however low it is: the bucket once held less than a request, and none was ever sent."""
    limiter, slept = limited(0.1)
    for _ in range(3):
        limiter.wait()
    assert sum(slept) == pytest.approx(20, abs=0.01)


def test_what_a_user_waits_for_goes_ahead_within_the_rate() -> None:
    """Of many requests that wait already; those are slowed down by it, and never stopped, and the rate holds for all together."""
    now, order = [0.0], []
    limiter: RateLimiter

    def sleep(seconds: float) -> None:
        if not order:  # others come while the first one waits
            order.append("waiting")
            with prioritized(True):
                for _ in range(40):
                    limiter.wait()
                    order.append(f"{now[0]:.2f}")
        now[0] += seconds

    limiter = RateLimiter(10, clock=lambda: now[0], sleep=sleep)
    for _ in range(30):
        limiter.wait()
    assert limiter.wait() == pytest.approx(0.1)
    assert order[1] == "0.10", "the first token that there is, though another request has waited for it"
    assert order[15] == "1.50"
    assert 4.0 <= now[0] <= 4.3, "40 tokens after the burst take four seconds, in whatever thread"


def test_an_api_server_of_another_authority_is_told_nothing(tmp_path: Path) -> None:
    """A machine in the middle gets no token: the connection ends before anything is sent."""
    ours, theirs = Authority(tmp_path / "ours", "ours"), Authority(tmp_path / "theirs", "theirs")
    script = secured(theirs)
    path = script.kubeconfig(tmp_path / "kubeconfig", token="secret")
    document = yaml.safe_load(path.read_text())
    cluster = document["clusters"][0]["cluster"]
    cluster["server"] = script.url.replace("http:", "https:")
    try:
        for authority, works in ((ours, False), (theirs, True)):
            cluster["certificate-authority"] = str(authority.certificate)
            path.write_text(yaml.safe_dump(document))
            client = load_client(str(path), in_cluster=False)
            if works:
                assert client.get("/x") == {}
            else:
                with pytest.raises(ApiUnreachable, match=r"(?i)certificate"):
                    client.get("/x")
                assert script.requests == []
            client.close()
    finally:
        script.ended.set()
        script.server.shutdown()
        script.server.server_close()


def test_a_hook_comes_before_every_write_and_no_read(script: Script, client: Client) -> None:
    """It may end the process instead; a copy without limits does not have it."""
    called: list[list[tuple[str, str]]] = []

    def before_write() -> float:
        called.append(list(script.requests))
        return 1.0

    guarded = Client(client._load, before_write=before_write)
    guarded.get("/x")
    guarded.request("PUT", "/x", body={})
    guarded.unlimited().request("PUT", "/x", body={})
    assert called == [[("GET", "/x")]]
    assert script.requests == [("GET", "/x"), ("PUT", "/x"), ("PUT", "/x")]


def test_a_write_waits_for_a_connection_only_as_long_as_the_hook_says(tmp_path: Path) -> None:
    """A leader's time may be over before the usual time limit. This server accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = RestConfig(f"https://127.0.0.1:{server.getsockname()[1]}", insecure=True)
        client = Client(lambda: config, before_write=lambda: 0.1)
        began = time.monotonic()
        with pytest.raises(ApiUnreachable, match="timed out") as error:
            client.request("PUT", "/x", body={})
    assert not isinstance(error.value, ApiTimeout), "nothing was asked"
    assert time.monotonic() - began < CONNECT_TIMEOUT


def test_an_authority_inside_the_kubeconfig_may_change(tmp_path: Path) -> None:
    """As in a Secret that another control plane renews: the next attempt reads it again; half a file is refused, too."""
    ours, theirs = Authority(tmp_path / "ours", "ours"), Authority(tmp_path / "theirs", "theirs")
    script = secured(theirs)
    path = script.kubeconfig(tmp_path / "kubeconfig", token="secret")
    document = yaml.safe_load(path.read_text())
    cluster = document["clusters"][0]["cluster"]
    cluster["server"] = script.url.replace("http:", "https:").replace("127.0.0.1", "localhost")

    def write(authority: Authority) -> None:
        cluster["certificate-authority-data"] = base64.b64encode(authority.certificate.read_bytes()).decode()
        path.write_text(yaml.safe_dump(document))

    try:
        write(ours)
        client = load_client(str(path), in_cluster=False)
        for content in ("", "clusters: ["):
            with pytest.raises(ApiUnreachable):
                client.get("/x")
            path.write_text(content)
        write(theirs)
        with pytest.raises(ApiUnreachable, match=r"(?i)certificate"):
            client.get("/x")
        assert client.get("/x") == {}
        client.close()
    finally:
        script.ended.set()
        script.server.shutdown()
        script.server.server_close()
