"""Debian's docker-registry as a mirror, over TLS and with a password, filled as any client fills a registry."""

import json
import shutil
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

import bcrypt
import urllib3
import yaml

from e2e.testbed.registries.store import Store, digest_of
from e2e.testbed.support.certificates import Pair
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.processes import Process

PROGRAM = shutil.which("docker-registry")
Credentials = tuple[str, str]


class DockerRegistry:
    """A context manager that serves on a port of localhost; `host` is where."""

    def __init__(self, folder: Path, serving: Pair, authority: Path, credentials: Credentials) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host = f"localhost:{free_port()}"
        self._folder = folder
        user, password = credentials
        (folder / "htpasswd").write_bytes(f"{user}:".encode() + bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)) + b"\n")
        configuration = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": self.host, "tls": {"certificate": str(serving.certificate), "key": str(serving.key)}},
            "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
        }
        (folder / "config.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
        self._pool = urllib3.PoolManager(
            headers=urllib3.make_headers(basic_auth=":".join(credentials)),
            ssl_context=ssl.create_default_context(cafile=str(authority)),
            retries=False,
            timeout=10,
        )

    def __enter__(self) -> Self:
        assert PROGRAM, "the fixture sees to it"
        self._process = Process("docker-registry", [PROGRAM, "serve", self._folder / "config.yml"], self._folder / "log")
        self._process.wait_until("it serves", self._serves)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def put(self, repository: str, tag: str, kind: str = "docker", seed: str = "") -> str:
        """Push an image, made as the small registry makes it; its digest. See `Store.put`."""
        image = Store()
        digest = image.put(repository, tag, kind, seed)
        for blob in image.blobs.values():
            self._upload(repository, blob)
        # What a list points to has to be there before the list.
        manifests = sorted(image.manifests.items(), key=lambda item: b'"manifests"' in item[1][1])
        for (_, own_digest), (media, data) in manifests:
            name = tag if own_digest == digest else own_digest
            self._request("PUT", f"/v2/{repository}/manifests/{name}", data, media, expected=201)
        return digest

    def _upload(self, repository: str, blob: bytes) -> None:
        begun = self._request("POST", f"/v2/{repository}/blobs/uploads/", b"", "", expected=202)
        location = begun.headers["Location"].removeprefix(f"https://{self.host}")
        self._request("PUT", f"{location}&digest={digest_of(blob)}", blob, "application/octet-stream", expected=201)

    def _request(self, method: str, path: str, body: bytes, media: str, *, expected: int) -> urllib3.BaseHTTPResponse:
        headers = {**self._pool.headers, **({"Content-Type": media} if media else {})}
        answer = self._pool.request(method, f"https://{self.host}{path}", body=body, headers=headers)
        assert answer.status == expected, f"{method} {path}: {answer.status} {json.loads(answer.data or b'{}')}"
        return answer

    def _serves(self) -> bool:
        try:
            return self._pool.request("GET", f"https://{self.host}/v2/").status == 200
        except urllib3.exceptions.HTTPError:
            return False
