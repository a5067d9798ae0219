"""A pod's own credentials: read from its files, read again when they change, and one clear line for each that is unusable."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mirrorstream.kube import service_account
from mirrorstream.kube.client import ApiUnreachable, ConfigurationError, load_client
from mirrorstream.kube.credentials import default_namespace, find_credentials, own_namespace
from mirrorstream.kube.proxy import Proxy
from structlog.testing import capture_logs

from e2e.testbed.support.certificates import Authority
from tests.kube.conftest import Request, Script, secured


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kubelet puts into a pod, and the pod's environment."""
    found = tmp_path / "serviceaccount"
    found.mkdir()
    (found / "token").write_text("secret\n")
    (found / "ca.crt").write_text("authority")
    (found / "namespace").write_text("team")
    monkeypatch.setattr(service_account, "FOLDER", found)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return found


@pytest.fixture
def server(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """The API server of the pod's cluster."""
    authority = Authority(tmp_path / "cluster", "cluster")
    found = secured(authority)
    (folder / "ca.crt").write_bytes(authority.certificate.read_bytes())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(found.server.server_address[1]))
    yield found
    found.ended.set()
    found.server.shutdown()
    found.server.server_close()


def test_the_files_of_a_pod_are_its_credentials(server: Script) -> None:
    """The address is in the environment; the server's certificate must be of the authority in the file."""
    seen: list[str] = []

    def handle(request: Request) -> None:
        seen.append(request.headers["Authorization"])
        request.answer(200, {"kind": "Thing"})

    server.handle = handle
    assert load_client().get("/x") == {"kind": "Thing"}
    assert seen == ["Bearer secret"]


def test_another_cluster_gets_no_token(server: Script, folder: Path, tmp_path: Path) -> None:
    """A server whose certificate another authority has issued is sent nothing."""
    other = Authority(tmp_path / "other", "other")
    (folder / "ca.crt").write_bytes(other.certificate.read_bytes())
    with pytest.raises(ApiUnreachable, match=r"(?i)certificate"):
        load_client().get("/x")
    assert server.requests == []


def test_a_rotated_token_is_read_after_a_refusal(server: Script, folder: Path) -> None:
    """A 401 does not wait for the minute."""
    seen: list[str] = []

    def handle(request: Request) -> None:
        seen.append(request.headers["Authorization"])
        request.answer(200, {}) if seen[-1] == "Bearer new" else request.fail(401, "Unauthorized")

    server.handle = handle
    client = load_client()
    (folder / "token").write_text("new")
    client.get("/x")
    assert seen == ["Bearer secret", "Bearer new"]


def test_a_token_is_read_again_each_minute(folder: Path) -> None:
    """The kubelet replaces it before it expires; while the file is unusable the last token stays."""
    now = [0.0]
    token = service_account.TokenFile(folder / "token", clock=lambda: now[0])
    (folder / "token").write_text("new")
    now[0] = 59.0
    assert token.authorization() == "Bearer secret"
    now[0] = 60.0
    assert token.authorization() == "Bearer new"
    (folder / "token").write_text("")
    now[0] = 120.0
    with capture_logs() as logged:
        assert token.authorization() == "Bearer new"
    assert [line["event"] for line in logged] == ["cannot read the service account token, using the previous one"]
    (folder / "token").write_text("newer")
    assert token.authorization() == "Bearer new", "an unusable file is not read for each request"
    now[0] = 180.0
    assert token.authorization() == "Bearer newer"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        pytest.param("token", "", "empty", id="empty-token"),
        pytest.param("token", " \n", "empty", id="blank-token"),
        pytest.param("ca.crt", None, "No such file or directory", id="no-authority"),
        pytest.param("ca.crt", "", "empty", id="empty-authority"),
        pytest.param("ca.crt", b"\xff\xfe", "not text", id="authority-not-text"),
    ],
)
def test_an_unusable_file_is_one_clear_line(folder: Path, name: str, content: str | bytes | None, says: str) -> None:
    """It names the file."""
    path = folder / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError) as error:
        load_client()
    assert str(error.value).startswith(f"in-cluster credentials: {path}: {says}")
    assert "\n" not in str(error.value)


def test_a_port_that_is_not_set_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes sets both variables, or neither."""
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT")
    with pytest.raises(ConfigurationError, match=r"^in-cluster credentials: KUBERNETES_SERVICE_PORT is not set$"):
        load_client()


@pytest.mark.parametrize("missing", ["host", "token"])
def test_outside_of_a_pod_a_kubeconfig_is_used(missing: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the address or without a token there is no service account; what is missing then is the kubeconfig."""
    if missing == "host":
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    else:
        (folder / "token").unlink()
    path = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(ConfigurationError, match=rf"^kubeconfig {path}: no such file$"):
        load_client()


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("10.0.0.1", "https://10.0.0.1:443"),
        ("fd00::1", "https://[fd00::1]:443"),
        ("api.example.com", "https://api.example.com:443"),
    ],
)
def test_an_address_of_either_family_is_a_url(address: str, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster may have IPv6 alone."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", address)
    assert find_credentials(None, None, in_cluster=True)().host == url


def test_the_proxy_of_the_environment_is_used_unless_it_is_excepted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OLM sets these variables on every pod of a cluster with a proxy."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    assert service_account.load().proxy == Proxy("http", "proxy.example.com", 3128)
    monkeypatch.setenv("NO_PROXY", "172.30.0.0/16,10.0.0.1")
    assert service_account.load().proxy is None


def test_a_pod_knows_its_namespace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its variable, else by the service account's file."""
    assert (own_namespace(), default_namespace(None, None)) == ("team", "team")
    monkeypatch.setenv("POD_NAMESPACE", "other")
    assert own_namespace() == "other"
    monkeypatch.delenv("POD_NAMESPACE")
    (folder / "namespace").unlink()
    assert own_namespace() == "mirrorstream"
