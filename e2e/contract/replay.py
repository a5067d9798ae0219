"""Replaying a recorded scenario on a server, and comparing what it answers with what the real API answered.

A recording is one JSON object a line: {id, why, images, objects, steps}. Steps are requests ({call, path, body} or {base, patch}),
waits until a stream has settled ({settle: path}) and watches ({watch: path, seconds}); `save` keeps parts of an answer for later
steps, and `status` and `response` are what the real API answered. A different `message` is no mismatch: texts may improve.
"""

import http.client
import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from mirrorstream.kube.rest_config import RestConfig

from e2e.testbed.registries.recorded import Registries
from e2e.testbed.simulator.patches import json_patch

IMAGES = "/apis/image.openshift.io/v1/images"
MIRROR_SETS = {
    "ImageContentSourcePolicy": "/apis/operator.openshift.io/v1alpha1/imagecontentsourcepolicies",
    "ImageDigestMirrorSet": "/apis/config.openshift.io/v1/imagedigestmirrorsets",
    "ImageTagMirrorSet": "/apis/config.openshift.io/v1/imagetagmirrorsets",
}
QUIET_SECONDS, SETTLE_LIMIT = 1.5, 180.0
_NOT_COMPARED = {
    "uid",
    "managedFields",
    "resourceVersion",
    "creationTimestamp",
    "selfLink",
    "generateName",
    "continue",
    "remainingItemCount",
}
_TIMES = {"created", "lastTransitionTime", "deletionTimestamp"}
_SOFT = {"message", "dockerImageManifest"}

Answer = tuple[int, Any]


class Server:
    """An API server, asked as `config` says."""

    def __init__(self, config: RestConfig) -> None:
        self._url = urlsplit(config.host)
        self._headers = {"Accept": "application/json"}
        if authorization := config.authorization():
            self._headers["Authorization"] = authorization
        self._context: ssl.SSLContext | None = None
        if self._url.scheme == "https":
            self._context = ssl.create_default_context(cafile=config.ca_file)
            if config.cert_file:
                self._context.load_cert_chain(config.cert_file, config.key_file)

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._context:
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=timeout)

    def send(self, method: str, path: str, body: Any = None, media: str = "application/json") -> Answer:
        """One request; its status and JSON."""
        connection = self._connect(90)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {**self._headers, "Content-Type": media})
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content.startswith((b"{", b"[")) else content.decode()
        finally:
            connection.close()

    def watch(self, path: str, seconds: float) -> Answer:
        """The events of a watch that arrive within `seconds`."""
        connection = self._connect(seconds)
        events: list[Any] = []
        end = time.monotonic() + seconds
        try:
            connection.request("GET", path, headers=self._headers)
            answer = connection.getresponse()
            rest = b""
            while (left := end - time.monotonic()) > 0:
                if connection.sock:
                    connection.sock.settimeout(left)
                try:
                    chunk = answer.read1(65536)
                except TimeoutError:
                    break
                if not chunk:
                    break
                *lines, rest = (rest + chunk).split(b"\n")
                events += [json.loads(line) for line in lines if line.strip()]
            return answer.status, events
        finally:
            connection.close()


@dataclass(frozen=True)
class Mismatch:
    """One difference from the recording."""

    step: int
    path: str
    got: Any
    recorded: Any

    def __str__(self) -> str:
        return f"step {self.step} {self.path}: {json.dumps(self.got)[:300]}, recorded {json.dumps(self.recorded)[:300]}"


def replay(server: Server, registries: Registries, scenario: Mapping[str, Any]) -> Iterator[Mismatch]:
    """Run a scenario in a namespace of its own, yielding every difference that counts."""
    namespace = f"c-{scenario['id']}-{uuid4().hex[:6]}"
    variables: dict[str, Any] = {**registries.hosts, "ns": namespace}
    for image in scenario.get("images", []):
        digest = registries.stores[image["registry"]].put(
            image["repo"], image.get("tag"), image.get("kind", "docker"), f"{scenario['id']}/{image.get('seed', '')}"
        )
        variables["digest_" + image.get("name", "image")] = digest
    server.send("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    made = []
    for item in _filled(scenario.get("objects", []), variables):
        item["metadata"]["name"] = namespace  # many scenarios may run at once, and no answer shows the name
        status, answer = server.send("POST", MIRROR_SETS[item["kind"]], item)
        assert status == 201, answer
        made.append(f"{MIRROR_SETS[item['kind']]}/{item['metadata']['name']}")
    created: list[str] = []
    try:
        for number, step in enumerate(scenario["steps"]):
            status, answer = _run(server, step, variables)
            if step.get("path") == IMAGES and status == 201:
                created.append(f"{IMAGES}/{answer['metadata']['name']}")
            for name, path in step.get("save", {}).items():
                variables[name] = _dig(answer, path)
            if status != step["status"]:
                yield Mismatch(number, "status", [status, answer], step["status"])
            normal = _normalised(answer, namespace, registries.hosts)
            for path, got, recorded in _differences(step["response"], normal, ""):
                yield Mismatch(number, path, got, recorded)
    finally:
        for path in [*made, *created, f"/api/v1/namespaces/{namespace}"]:
            server.send("DELETE", path)


def _run(server: Server, step: Mapping[str, Any], variables: Mapping[str, Any]) -> Answer:
    live = _filled({k: v for k, v in step.items() if k not in ("response", "status", "save")}, variables)
    time.sleep(live.get("pause", 0))  # part of the recording: how long the platform had
    if "settle" in live:
        return _settle(server, live["settle"])
    if "watch" in live:
        return server.watch(live["watch"], live["seconds"])
    body = live.get("body")
    if "base" in live:
        body = json_patch(server.send("GET", live["base"])[1], live["patch"])
    return server.send(live["call"], live["path"], body, live.get("media", "application/json"))


def _settle(server: Server, path: str) -> Answer:
    """Wait until every importable tag was dealt with and nothing has changed for a while."""
    end = time.monotonic() + SETTLE_LIMIT
    last, since = "", time.monotonic()
    while True:
        status, stream = server.send("GET", path)
        mark = json.dumps(stream, sort_keys=True)
        if mark != last:
            last, since = mark, time.monotonic()
        if time.monotonic() > end or ((status != 200 or _settled(stream)) and time.monotonic() - since >= QUIET_SECONDS):
            return status, stream
        time.sleep(0.1)


def _settled(stream: Any) -> bool:
    tags = {tag["tag"]: tag for tag in (stream.get("status") or {}).get("tags") or []}
    for tag in (stream.get("spec") or {}).get("tags") or []:
        if (tag.get("from") or {}).get("kind") != "DockerImage" or tag.get("reference"):
            continue
        seen = tags.get(tag["name"], {})
        generations = [item.get("generation", 0) for item in (seen.get("items") or [])[:1]]
        generations += [condition.get("generation", 0) for condition in seen.get("conditions") or []]
        if max(generations, default=-1) < (tag.get("generation") or 0):
            return False
    return True


def _filled(value: Any, variables: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$var"}:
            return variables[value["$var"]]
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(?:var:)?(\w+)\}", lambda match: str(variables[match[1]]), value)
    return value


def _dig(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def _normalised(value: Any, namespace: str, hosts: Mapping[str, str], key: str = "") -> Any:
    """An answer with what differs from run to run taken out, as it was when it was recorded."""
    if isinstance(value, dict):
        out = {}
        for name, item in value.items():
            if name in _NOT_COMPARED:
                continue
            is_time = name in _TIMES or name.endswith("dockerRepositoryCheck")
            if (is_time or (name == "Created" and not str(item).startswith("2026-01-01"))) and item:
                out[name] = "<time>"
            else:
                out[name] = _normalised(item, namespace, hosts, name)
        return out
    if isinstance(value, list):
        return [_normalised(item, namespace, hosts, key) for item in value]
    if isinstance(value, str):
        for name, host in hosts.items():
            for spelling in (host, host.replace("localhost", "127.0.0.1"), host.replace("localhost", "[::1]")):
                value = value.replace(spelling, f"${{{name}}}")
        return value.replace(namespace, "${ns}")
    return value


def _differences(recorded: Any, got: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """(path, got, recorded) of every difference that counts; nothing, an empty list and an empty mapping are the same."""
    empty: tuple[Any, ...] = (None, {}, [], "")
    if isinstance(recorded, dict) and isinstance(got, dict):
        for key in sorted(set(recorded) | set(got)):
            yield from _differences(recorded.get(key), got.get(key), f"{path}.{key}")
    elif isinstance(recorded, list) and isinstance(got, list) and len(recorded) == len(got):
        for index, (one, other) in enumerate(zip(recorded, got, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif recorded != got and not (recorded in empty and got in empty) and path.rpartition(".")[2] not in _SOFT:
        yield path, got, recorded
