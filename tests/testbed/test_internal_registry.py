"""The test bed's internal registry answers as the platform's: who may pull what, by tag and digest, through mirrors."""

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3
from mirrorstream.kube.client import Client

from e2e.testbed.registries.internal import ABSENT, HANGING, SERVING, InternalRegistry, set_state
from e2e.testbed.registries.registry import DeadPort, Registry
from e2e.testbed.registries.store import digest_of
from e2e.testbed.simulator.settings import ImporterSettings, Settings
from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
STREAMS = "/apis/image.openshift.io/v1/namespaces/team/imagestreams"


@dataclass
class Bed:
    """A cluster with a mirror, a dead upstream, and the registry; what a client with a token asks there."""

    client: Client
    mirror: Registry
    dead: str
    registry: InternalRegistry
    pool: urllib3.PoolManager

    def token(self, name: str) -> str:
        """A token of a new account in namespace team."""
        path = "/api/v1/namespaces/team/serviceaccounts"
        self.client.request("POST", path, body={"metadata": {"name": name}})
        return str(self.client.request("POST", f"{path}/{name}/token", body={"spec": {}})["status"]["token"])

    def get(self, path: str, token: str = "", *, basic: bool = False) -> urllib3.BaseHTTPResponse:
        """GET, as a user of that token."""
        headers = urllib3.make_headers(basic_auth=f"unused:{token}") if basic else {"Authorization": f"Bearer {token}"}
        return self.pool.request("GET", f"https://{self.registry.host}{path}", headers=headers if token else {}, timeout=5)

    def healed(self, kind: str = "docker", seed: str = "") -> str:
        """A stream `app` whose tag v1 has an image that only the mirror has, as mirrorstream records it; its digest."""
        digest = self.mirror.put("mirrored/app", "v1", kind, seed)
        source = f"{self.dead}/app"
        mirrors = {"source": self.dead, "mirrors": [f"{self.mirror.host}/mirrored"]}
        body = {"metadata": {"name": "m"}, "spec": {"imageDigestMirrors": [mirrors]}}
        self.client.request("POST", "/apis/config.openshift.io/v1/imagedigestmirrorsets", body=body)
        tag = {"name": "v1", "from": {"kind": "DockerImage", "name": f"{source}@{digest}"}}
        tag |= {"importPolicy": {"importMode": "PreserveOriginal"}, "referencePolicy": {"type": "Local"}}
        self.client.request("POST", STREAMS, body={"metadata": {"name": "app"}, "spec": {"tags": [tag]}})
        wait_for("it is imported", lambda: (self.client.get(f"{STREAMS}/app")["status"].get("tags") or [{}])[0].get("items"))
        return digest


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    """All of it."""
    with DeadPort() as dead, Registry() as mirror:
        insecure = {"registrySources": {"insecureRegistries": [mirror.host, dead.host]}}
        settings = Settings(insecure, f"localhost:{free_port()}", importer=ImporterSettings(timeout_seconds=3))
        with Simulator(settings) as simulator:
            client = simulator.client("test")
            with InternalRegistry(client, settings.internal_registry, tmp_path, seconds=3) as registry:
                context = ssl.create_default_context(cafile=str(registry.authority))
                with urllib3.PoolManager(ssl_context=context, retries=False) as pool:
                    yield Bed(client, mirror, dead.host, registry, pool)


def code(answer: urllib3.BaseHTTPResponse) -> tuple[int, str]:
    """Status and error code."""
    return answer.status, str(json.loads(answer.data)["errors"][0]["code"])


def is_denied(answer: urllib3.BaseHTTPResponse) -> bool:
    """Whether this is the platform's answer to a token that it does not know, or whose account may not pull."""
    challenge = answer.headers["Www-Authenticate"]
    return code(answer) == (401, "UNAUTHORIZED") and challenge == 'Basic realm=openshift,error="access denied"'


@pytest.mark.parametrize("kind", ["docker", "oci", "index"])
def test_it_pulls_through_from_the_mirror(bed: Bed, kind: str) -> None:
    """By tag and by digest, each part of a list, and every blob; it never has anything itself."""
    digest = bed.healed(kind)
    token = bed.token("puller")
    for reference in ("v1", digest):
        answer = bed.get(f"/v2/team/app/manifests/{reference}", token)
        assert (answer.status, answer.headers["Docker-Content-Digest"]) == (200, digest)
        assert digest_of(answer.data) == digest
    content = json.loads(answer.data)
    for part in content.get("manifests", []):
        sub = bed.get(f"/v2/team/app/manifests/{part['digest']}", token)
        assert (sub.status, digest_of(sub.data)) == (200, part["digest"])
        content = json.loads(sub.data)
    for blob in (content["config"]["digest"], content["layers"][0]["digest"]):
        answer = bed.get(f"/v2/team/app/blobs/{blob}", token)
        assert (answer.status, digest_of(answer.data)) == (200, blob)
    bed.mirror.store.clear()
    assert code(bed.get("/v2/team/app/manifests/v1", token))[0] in (404, 500)


def test_what_it_does_not_know(bed: Bed) -> None:
    """As the distribution API says it; a digest that the mirror has and the stream has not is unknown, too."""
    bed.healed()
    token = bed.token("puller")
    other = bed.mirror.put("mirrored/app", "v2", seed="other")
    for path, expected in (
        ("/v2/team/other/manifests/v1", (404, "NAME_UNKNOWN")),
        ("/v2/team/app/manifests/v2", (404, "MANIFEST_UNKNOWN")),
        (f"/v2/team/app/manifests/{other}", (404, "MANIFEST_UNKNOWN")),
        (f"/v2/team/app/blobs/sha256:{'0' * 64}", (404, "BLOB_UNKNOWN")),  # the dead upstream was asked last
    ):
        assert code(bed.get(path, token)) == expected


def test_a_token_is_asked_for_and_its_account_must_be_allowed(bed: Bed) -> None:
    """401 tells where to get one; Basic and Bearer count alike; who is denied gets 401, too; nobody is system:anonymous."""
    bed.healed()
    path = "/v2/team/app/manifests/v1"
    asked = bed.get(path)
    assert code(asked) == (401, "UNAUTHORIZED")
    assert asked.headers["Www-Authenticate"] == f'Bearer realm="https://{bed.registry.host}/openshift/token"'
    assert is_denied(bed.get(path, "no-token"))
    token = bed.token("puller")
    assert json.loads(bed.get("/openshift/token", token, basic=True).data)["token"] == token
    assert bed.get("/openshift/token", "no-token", basic=True).status == 401
    assert bed.get(path, token).status == bed.get(path, token, basic=True).status == 200
    nobody = json.loads(bed.get("/openshift/token").data)["token"]
    assert is_denied(bed.get(path, nobody))
    config_maps = "/api/v1/namespaces/team/configmaps"
    bed.client.request("POST", config_maps, body={"metadata": {"name": "allowed"}, "data": {"user": "system:anonymous"}})
    assert bed.get(path, nobody).status == 200
    denied = {"metadata": {"name": "denied"}, "data": {"user": "system:serviceaccount:team:puller"}}
    bed.client.request("POST", config_maps, body=denied)
    assert is_denied(bed.get(path, token))


def test_it_goes_hangs_and_comes_back(bed: Bed) -> None:
    """Absent: the connection is refused. Hanging: it is accepted, and nothing follows, not even a handshake."""
    assert bed.get("/healthz").status == 200
    set_state(bed.client, ABSENT)
    wait_for("it is absent", lambda: bed.registry.state == ABSENT)
    with pytest.raises(urllib3.exceptions.NewConnectionError, match="refused"):
        bed.get("/healthz")
    set_state(bed.client, HANGING)
    wait_for("it hangs", lambda: bed.registry.state == HANGING)
    with pytest.raises((urllib3.exceptions.TimeoutError, urllib3.exceptions.ProtocolError)):
        bed.pool.request("GET", f"https://{bed.registry.host}/healthz", timeout=0.5)
    set_state(bed.client, SERVING)
    wait_for("it serves", lambda: bed.registry.state == SERVING)
    assert bed.get("/healthz").status == 200
