"""A small kubelet for back ends without a node: it pulls, and says in pods' statuses what came of it, as the kubelet does.

A pull is a request for the manifest, made as the node would make it: from the internal registry with what the pod's pull secrets
hold at that moment, from others through the mirrors that registries.conf would name. Nothing runs: a container whose image can be
pulled is said to run, an init container to have ended well. Image volumes and ephemeral containers are left out.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from mirrorstream.kube.client import MERGE_PATCH, ApiError, Client, ClientError
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import ReferenceError, parse_reference

from e2e.testbed.controllers.scheduler import Scheduler
from e2e.testbed.controllers.watching import Watcher
from e2e.testbed.kubelet.pod_status import BackOff, PodState, Pull, containers, images, status
from e2e.testbed.simulator import errors
from e2e.testbed.simulator.foreign import ReadThroughStore
from e2e.testbed.simulator.images.fetch import Access, Fetcher
from e2e.testbed.simulator.images.importer import IMAGE_CONFIG, MIRROR_SETS
from e2e.testbed.simulator.images.registry_errors import RegistryError

Object = dict[str, Any]
WORKERS = 8
TIMEOUT = 5.0
"""How long a registry may take to answer, in seconds."""


class Node:
    """What can be pulled now, by whom. Raises nothing: a Pull says what came of it."""

    def __init__(self, client: Client, seconds: float = TIMEOUT) -> None:
        self._client, self._store = client, ReadThroughStore(client)
        self._fetcher = Fetcher(seconds)
        self._present: set[str] = set()
        """What has been pulled before, by reference."""

    def pull(self, pod: Object, container: Object) -> Pull:
        """Pull a container's image."""
        image = str(container.get("image") or "")
        try:
            parse_reference(image)
        except ReferenceError as error:
            return Pull(reason="InvalidImageName", message=f'Failed to apply default image tag "{image}": {error}')
        if container.get("imagePullPolicy") == "Never" and image not in self._present:
            return Pull(reason="ErrImageNeverPull", message=f'Container image "{image}" is not present with pull policy of Never')
        pulled = self._pull(pod, image)
        if pulled.digest:
            self._present.add(image)
        return pulled

    def _pull(self, pod: Object, image: str) -> Pull:
        """From the first place that has it; the error of the last place otherwise."""
        error = RegistryError("blocked")
        for host, path, wanted, access in self._places(pod, image):
            try:
                return Pull(digest=self._fetcher.manifest(host, path, wanted, access).digest)
            except RegistryError as failed:
                error = failed
        reason = "RegistryUnavailable" if "connection refused" in str(error) else "ErrImagePull"
        return Pull(reason=reason, message=f"reading manifest of {image}: {error}")

    def _places(self, pod: Object, image: str) -> Iterator[tuple[str, str, str, Access]]:
        try:
            config = self._store.get(IMAGE_CONFIG, "", "cluster")
            objects = [{**item, "kind": kind.kind} for kind in MIRROR_SETS for item in self._store.list(kind)[1]]
        except errors.StatusError:
            return  # the pod was deleted, or the API server is away: no source is known
        internal = (config.get("status") or {}).get("internalRegistryHostname")
        credentials = self._credentials(pod)
        for source in MirrorPolicy.from_objects([*objects, {**config, "kind": "Image"}]).pull_sources(image):
            if source.blocked:
                continue
            found = parse_reference(source.reference)
            # The node trusts the internal registry's authority, which this machine need not have.
            access = Access(source.insecure or found.host == internal, credentials.get(found.host))
            yield found.host, found.path, found.digest or found.tag, access

    def _credentials(self, pod: Object) -> dict[str, tuple[str, str]]:
        """What the pod's pull secrets hold now, by registry; a secret that is missing or empty holds nothing."""
        found: dict[str, tuple[str, str]] = {}
        namespace = pod["metadata"]["namespace"]
        for entry in reversed(pod["spec"].get("imagePullSecrets") or []):
            try:
                data = self._client.get(f"/api/v1/namespaces/{namespace}/secrets/{entry['name']}").get("data") or {}
            except ClientError:
                continue
            if ".dockerconfigjson" in data:
                auths = json.loads(base64.b64decode(data[".dockerconfigjson"])).get("auths") or {}
            else:
                auths = json.loads(base64.b64decode(data.get(".dockercfg", "e30=")))
            for host, auth in auths.items():
                user, _, password = base64.b64decode(auth["auth"]).decode().partition(":")
                found[host] = (user, password)
        return found


class Pulls:
    """A context manager: threads that do it for the pods of some namespaces, or of all.

    `back_off`: the first wait after a failed pull in seconds; the kubelet has 10, and doubles it at each failure.
    """

    def __init__(self, client: Client, namespaces: Sequence[str] = (), *, back_off: float = 10.0) -> None:
        self._client, self._node, self._back_off = client, Node(client), back_off
        paths = [f"/api/v1/namespaces/{namespace}/pods" for namespace in namespaces] or ["/api/v1/pods"]
        self._watchers = [Watcher(client, path, self._event) for path in paths]
        self._workers = [Scheduler(f"pulls-{number}") for number in range(WORKERS)]
        self._pods: dict[str, Object] = {}
        self._states: dict[str, PodState] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        for worker in self._workers:
            worker.start()
        for watcher in self._watchers:
            watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for watcher in self._watchers:
            watcher.stop()
        for worker in self._workers:
            worker.stop()

    def _event(self, kind: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            before = self._pods.get(uid)
            if kind == "DELETED":
                self._pods.pop(uid, None)
                self._states.pop(uid, None)
                return
            self._pods[uid] = pod
            if before is None:
                self._states[uid] = PodState()
        if (pod["spec"].get("os") or {}).get("name") == "windows":
            return  # no node for it
        if before is None or images(before) != images(pod):
            self._later(uid, 0)

    def _later(self, uid: str, seconds: float) -> None:
        """A pod has always the same worker, so that nothing happens to it twice at once."""
        self._workers[hash(uid) % WORKERS].later(seconds, lambda: self._sync(uid))

    def _sync(self, uid: str) -> None:
        """Do for a pod what is due, and write its status."""
        with self._lock:
            pod, state = self._pods.get(uid), self._states.get(uid)
        if pod is None or state is None:
            return
        for container in containers(pod, state):
            known = state.back_offs.get(container["image"])
            if known and time.monotonic() < known.until:
                known.shown = time.monotonic() >= known.shown_from
                state.failed.add(container["name"])
                continue
            pulled = self._node.pull(pod, container)
            if pulled.digest:
                state.start(container, pulled.digest)
            else:
                state.failed.add(container["name"])
                state.back_offs[container["image"]] = BackOff.after(known, pulled, self._back_off)
        if (found := status(pod, state)) != state.written:
            self._write(pod, found)
            state.written = found
        if wait := state.next_look():
            self._later(uid, wait)

    def _write(self, pod: Object, found: Object) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        body = {"metadata": {"uid": metadata["uid"]}, "status": found}
        try:
            self._client.request("PATCH", path, body=body, content_type=MERGE_PATCH)
        except ApiError as error:
            if error.status != 409:  # another pod of this name by now
                raise
