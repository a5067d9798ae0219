"""The machine-config operator's part: mirror sets and the Image config become the node's registries.conf and policy.json.

The node's annotation `CONFIGURED` says what CRI-O has taken over.
"""

import json
import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from mirrorstream.kube.client import MERGE_PATCH, Client, ClientError
from mirrorstream.kube.informer import Informer
from mirrorstream.kube.objects import json_objects
from mirrorstream.rules.source import PATHS

from e2e.testbed.node.registriesconf import FIELDS, policy, render
from e2e.testbed.node.view import CONFIGURED
from e2e.testbed.support.waiting import wait_for

log = structlog.get_logger(__name__)
AUTHORITIES = "/api/v1/namespaces/openshift-config/configmaps"
RELOADED = "Configuration reload completed"
AGAIN_SECONDS = 1.0


def versions(sets: list[tuple[str, dict[str, Any]]]) -> dict[str, int]:
    """What `CONFIGURED` says of objects."""
    return {f"{kind}/{item['metadata']['name']}": item["metadata"].get("generation", 0) for kind, item in sets}


def certificates(config_map: dict[str, Any]) -> dict[str, str]:
    """The CAs of registries by `host:port`, of the ConfigMap that additionalTrustedCA names: it has `host..port`."""
    return {name.replace("..", ":"): text for name, text in (config_map.get("data") or {}).items()}


class MachineConfig:
    """Keeps a node's files. `etc` is the node's /etc as this process sees it, `crio` its CRI-O's process ID here."""

    def __init__(self, client: Client, node: str, etc: Path, crio: int, crio_log: Path, own: tuple[str, ...]) -> None:
        self._client, self._node, self._etc, self._crio, self._crio_log, self._own = client, node, etc, crio, crio_log, own
        self._changed = threading.Event()
        self._stopped = threading.Event()
        self._trusted: set[str] = set()
        self._kinds = {
            kind: Informer(client, path, json_objects, lambda change: self._changed.set(), name=name)
            for name, (path, kind) in PATHS.items()
        }
        self._authorities = Informer(client, AUTHORITIES, json_objects, lambda change: self._changed.set(), name="configmaps")

    def run(self) -> None:
        """Work until the process ends."""
        informers = (*self._kinds.values(), self._authorities)
        for informer in informers:
            informer.start()
        for informer in informers:
            informer.synced.wait()
        self._changed.set()
        while True:
            self._changed.wait()
            self._changed.clear()
            try:
                self._apply()
            except (ClientError, AssertionError) as error:
                log.warning("the node could not be configured, trying again", error=str(error))
                self._stopped.wait(AGAIN_SECONDS)
                self._changed.set()

    def _apply(self) -> None:
        found = [(kind, item) for kind, informer in self._kinds.items() for item in informer.objects()]
        sets = [{**item, "kind": kind} for kind, item in found if kind in FIELDS]
        config = next((item for kind, item in found if kind == "Image" and item["metadata"]["name"] == "cluster"), {})
        spec = config.get("spec") or {}
        self._trust((spec.get("additionalTrustedCA") or {}).get("name", ""))
        containers = self._etc / "containers"
        files = {containers / "registries.conf": render(sets, spec), containers / "policy.json": policy(spec, self._own)}
        if any(path.read_text(encoding="utf-8") != text for path, text in files.items()):
            for path, text in files.items():
                temporary = path.with_name(f".{path.name}")
                temporary.write_text(text, encoding="utf-8")
                temporary.replace(path)
            before = self._reloads()
            os.kill(self._crio, signal.SIGHUP)
            wait_for("CRI-O has read its configuration", partial(self._reloaded, before), seconds=10)
        body = {"metadata": {"annotations": {CONFIGURED: json.dumps(versions(found))}}}
        self._client.request("PATCH", f"/api/v1/nodes/{self._node}", body=body, content_type=MERGE_PATCH)

    def _trust(self, name: str) -> None:
        """Lay out the CAs of a ConfigMap in openshift-config; CRI-O reads them with each pull."""
        found = certificates(self._authorities.get(("openshift-config", name)) or {})
        folder = self._etc / "docker" / "certs.d"
        for host in self._trusted - found.keys():
            (folder / host / "ca.crt").unlink(missing_ok=True)
        for host, text in found.items():
            (folder / host).mkdir(parents=True, exist_ok=True)
            (folder / host / "ca.crt").write_text(text, encoding="utf-8")
        self._trusted = set(found)

    def _reloads(self) -> int:
        return self._crio_log.read_text(encoding="utf-8", errors="replace").count(RELOADED)

    def _reloaded(self, before: int) -> bool:
        return self._reloads() > before
