"""A cluster for scenarios, whatever it is: the simulator, or a real one that a kubeconfig names."""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from mirrorstream.kube.client import ApiError, Client, load_client

from e2e.backends import EXISTING, SIMULATOR, Shared, Trusted
from e2e.contract.registries import Registries
from e2e.controlplane.arguments import OWN_NAMESPACE
from e2e.scenarios.audit import AuditLog, Request, RequestLog, SimulatorLog
from e2e.scenarios.installation import CONTROLLER, RBAC, Permission, without
from e2e.scenarios.roles import PULL, grant, group
from e2e.simulator.simulator import Simulator
from e2e.waiting import wait_for

Object = dict[str, Any]
IMAGE_API = "/apis/image.openshift.io/v1"
MIRROR_SETS = {
    "ImageContentSourcePolicy": ("operator.openshift.io/v1alpha1", "imagecontentsourcepolicies", "repositoryDigestMirrors"),
    "ImageDigestMirrorSet": ("config.openshift.io/v1", "imagedigestmirrorsets", "imageDigestMirrors"),
    "ImageTagMirrorSet": ("config.openshift.io/v1", "imagetagmirrorsets", "imageTagMirrors"),
}


def tag(name: str, source: str, **more: Any) -> Object:
    """A spec tag that imports `source`; `more` are further fields, in the API's names."""
    return {"name": name, "from": {"kind": "DockerImage", "name": source}, "referencePolicy": {"type": "Local"}, **more}


def following(name: str, followed: str) -> Object:
    """A spec tag that follows another of its stream."""
    return {"name": name, "from": {"kind": "ImageStreamTag", "name": followed}, "referencePolicy": {"type": "Local"}}


def without_generations(spec: Object) -> Object:
    """A stream's spec without the tags' generations, which the platform itself raises."""
    return {**spec, "tags": [{k: v for k, v in t.items() if k != "generation"} for t in spec.get("tags") or []]}


@dataclass
class Cluster:
    """A cluster, its registries, and what a user does on it. Everything that is made has a name of its own and is removed.

    `kubeconfig` is an administrator's, `program` what the controller runs with and `webhook` what the webhook does. `controls`
    is the simulator's own door, where there is one; `log` has mirrorstream's requests, where they can be seen.
    """

    backend: str
    kubeconfig: Path
    registries: Registries
    program: Path
    webhook: Path
    trusted: Trusted | None = None
    controls: Client | None = None
    log: RequestLog | None = None
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = load_client(str(self.kubeconfig), user_agent="test", in_cluster=False)

    @staticmethod
    def simulated(simulator: Simulator, kubeconfig: Path, registries: Registries) -> "Cluster":
        """A simulator of this process."""
        client = load_client(str(simulator.write_kubeconfig(kubeconfig)), user_agent="test", in_cluster=False)
        trusted = Trusted(kubeconfig.parent / "trusted")
        trusted.tell(client)
        return Cluster(SIMULATOR, kubeconfig, registries, kubeconfig, kubeconfig, trusted, client, SimulatorLog(client))

    @staticmethod
    def of(shared: Shared, registries: Registries) -> "Cluster":
        """A cluster that another process has started, or that existed before."""
        controls = load_client(shared.controls, user_agent="test", in_cluster=False) if shared.controls else None
        log = AuditLog(Path(shared.audit_log)) if shared.audit_log else None
        trusted = Trusted(Path(shared.trusted)) if shared.trusted else None
        program, webhook = Path(shared.program), Path(shared.webhook)
        return Cluster(shared.backend, Path(shared.kubeconfig), registries, program, webhook, trusted, controls, log)

    @property
    def is_ours(self) -> bool:
        """Whether its cluster-wide settings may be changed."""
        return self.backend != EXISTING

    def requests(self, mark: int) -> list[Request]:
        """Mirrorstream's requests from a mark of the log on."""
        assert self.log, "a fixture sees to it"
        return self.log.since(mark)

    def host(self, name: str) -> str:
        """`host:port` of a registry by its name, such as good, other or dead."""
        return self.registries.hosts[name]

    def put(self, registry: str, repository: str, name: str, kind: str = "docker", seed: str = "") -> str:
        """Put an image into a registry; its digest."""
        return self.registries.stores[registry].put(repository, name, kind, seed or f"{repository}:{name}")

    def control(self, path: str, body: Any = None, *, method: str = "POST") -> Any:
        """Ask the simulator for something."""
        assert self.controls, "a fixture sees to it"
        return self.controls.request(method, f"/simulator/{path}", body=body)

    def forbid(self, permission: Permission) -> Callable[[], Any]:
        """Take a permission away from mirrorstream, on a cluster that is the scenario's own; call the result to give it back."""
        if self.backend == SIMULATOR:
            path = f"{permission.group}/v1/{permission.resource}$"
            action = {"status": 403, "reason": "Forbidden", "message": f"{permission.resource} is forbidden"}
            self.control("faults", {"path": path, "verb": permission.verb, "userAgent": "^mirrorstream", "action": action})
            return lambda: self.control("faults", method="DELETE")
        path = f"{RBAC}/clusterroles/{CONTROLLER}-{OWN_NAMESPACE}"
        role = self.client.get(path)
        self.client.request("PUT", path, body={**role, "rules": without(role["rules"], permission)})
        unversioned = {**role, "metadata": {"name": role["metadata"]["name"]}}
        return lambda: self.client.request("PUT", path, body=unversioned)

    def change_image_config(self, change: Callable[[Object], Any]) -> None:
        """Change the spec of the Image config with `change(spec)`, until there is no conflict."""
        path = "/apis/config.openshift.io/v1/images/cluster"

        def attempt() -> bool:
            config = self.client.get(path)
            change(config["spec"])
            try:
                self.client.request("PUT", path, body=config)
            except ApiError as error:
                if error.status != 409:
                    raise
                return False
            return True

        wait_for("the Image config is written", attempt)

    @contextlib.contextmanager
    def namespace(self, prefix: str = "ms") -> Iterator["Namespace"]:
        """A namespace with a name of its own."""
        name = f"{prefix}-{uuid4().hex[:8]}"
        self.client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
        namespace = Namespace(self, name)
        try:
            yield namespace
        finally:
            namespace.remove_mirror_sets()
            for stream in namespace.streams():
                namespace.delete(stream["metadata"]["name"])
            self.client.request("DELETE", f"/api/v1/namespaces/{name}")


@dataclass
class Namespace:
    """A user's view of one namespace; repositories and mirror sets carry its name, so that scenarios do not meet."""

    cluster: Cluster
    name: str
    _made: dict[str, str] = field(default_factory=dict)
    _written: dict[str, Object] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        """The cluster's client."""
        return self.cluster.client

    def source(self, image: str, registry: str = "dead") -> str:
        """A reference below this namespace's prefix at a registry: `host/NAMESPACE/image`."""
        return f"{self.cluster.host(registry)}/{self.name}/{image}"

    def put(self, registry: str, image: str, kind: str = "docker", seed: str = "", prefix: str = "mirror") -> str:
        """Put `repo:tag` into a registry below `PREFIX-NAMESPACE`; its digest."""
        repository, _, name = image.partition(":")
        return self.cluster.put(registry, f"{prefix}-{self.name}/{repository}", name, kind, seed or f"{self.name}/{image}")

    def mirror(self, registry: str = "good", prefix: str = "mirror") -> str:
        """The mirror that `put` fills: `host/PREFIX-NAMESPACE`."""
        return f"{self.cluster.host(registry)}/{prefix}-{self.name}"

    # Pods.

    def make(self, path: str, body: Object, *, dry_run: bool = False) -> Object:
        """POST an object to `path` below the namespace's, as soon as the namespace has its service account."""
        group, _, plural = path.rpartition("/")
        where = f"/api/v1/namespaces/{self.name}/{plural}" if not group else f"/apis/{group}/namespaces/{self.name}/{plural}"
        params = {"dryRun": "All"} if dry_run else None

        def attempt() -> Object | None:
            try:
                made: Object = self.client.request("POST", where, params=params, body=body)
            except ApiError as error:
                if error.status != 403 or "serviceaccount" not in error.message:
                    raise
                return None
            return made

        return wait_for(f"{plural} can be made", attempt)

    def pod(self, name: str, *images: str, dry_run: bool = False, metadata: Object | None = None, **spec: Any) -> Object:
        """Create a pod with a container for each image (c0, c1 and so on)."""
        containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
        body = {"metadata": {"name": name, **(metadata or {})}, "spec": {"containers": containers, **spec}}
        return self.make("pods", body, dry_run=dry_run)

    def allow_pulls(self, *, everybody: bool = False) -> None:
        """Let the namespace's own service accounts pull from its streams, as the platform does in a project, or everybody's."""
        if self.cluster.backend != SIMULATOR:
            name = "system:authenticated" if everybody else f"system:serviceaccounts:{self.name}"
            grant(self.client, self.name, "image-puller", [PULL], group(name))

    def deny_pulls(self, account: str) -> None:
        """Keep an account (`namespace:name`) of a cluster without RBAC from pulling here; with RBAC nobody may by default."""
        if self.cluster.backend == SIMULATOR:
            body = {"metadata": {"name": "denied"}, "data": {"user": f"system:serviceaccount:{account}"}}
            self.client.request("POST", f"/api/v1/namespaces/{self.name}/configmaps", body=body)

    # Mirror sets.

    def mirror_set(self, kind: str, source: str, *mirrors: str, never: bool = False, name: str = "") -> str:
        """Create a mirror set with one entry; its name."""
        version, plural, entries = MIRROR_SETS[kind]
        name = name or f"{self.name}-{uuid4().hex[:4]}"
        entry: Object = {"source": source, "mirrors": list(mirrors)}
        if never:
            entry["mirrorSourcePolicy"] = "NeverContactSource"
        path = f"/apis/{version}/{plural}"
        body = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": {entries: [entry]}}
        self.client.request("POST", path, body=body)
        self._made[name] = f"{path}/{name}"
        return name

    def digest_mirrors(self, *mirrors: str, source: str = "", never: bool = False) -> str:
        """An ImageDigestMirrorSet for the namespace's prefix at the dead registry."""
        source = source or f"{self.cluster.host('dead')}/{self.name}"
        return self.mirror_set("ImageDigestMirrorSet", source, *(mirrors or (self.mirror(),)), never=never)

    def tag_mirrors(self, *mirrors: str, source: str = "", never: bool = False) -> str:
        """An ImageTagMirrorSet for the namespace's prefix at the dead registry."""
        source = source or f"{self.cluster.host('dead')}/{self.name}"
        return self.mirror_set("ImageTagMirrorSet", source, *(mirrors or (self.mirror(),)), never=never)

    def change_mirrors(self, name: str, *mirrors: str) -> None:
        """Replace the mirrors of a set."""
        path = self._made[name]
        item = self.client.get(path)
        for entries in item["spec"].values():
            entries[0]["mirrors"] = list(mirrors)
        self.client.request("PUT", path, body=item)

    def mirror_set_names(self) -> list[str]:
        """The names of the sets that there are."""
        return list(self._made)

    def remove_mirror_set(self, name: str) -> None:
        """Delete a mirror set."""
        self.client.request("DELETE", self._made.pop(name))

    def remove_mirror_sets(self) -> None:
        """Delete all of them."""
        for name in list(self._made):
            self.remove_mirror_set(name)

    # Streams.

    @property
    def _streams(self) -> str:
        return f"{IMAGE_API}/namespaces/{self.name}/imagestreams"

    def create(self, name: str, *tags: Object, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
        """Create a stream as a user does."""
        metadata: Object = {"name": name, "labels": {"made-by": "user"}, "annotations": annotations or {}}
        body = {
            "apiVersion": "image.openshift.io/v1",
            "kind": "ImageStream",
            "metadata": metadata,
            "spec": {"tags": list(tags), **spec},
        }
        return self._wrote(self.client.request("POST", self._streams, body=body))

    def change(self, name: str, change: Any) -> Object:
        """Change a stream's spec or metadata as a user does, with `change(stream)`, until there is no conflict."""

        def attempt() -> Object | None:
            stream = self.get(name)
            change(stream)
            try:
                answer: Object = self.client.request("PUT", f"{self._streams}/{name}", body=stream)
            except ApiError as error:
                if error.status != 409:
                    raise
                return None
            return answer

        return self._wrote(wait_for("a spec write without a conflict", attempt))

    def annotate(self, name: str, key: str, value: str) -> None:
        """Set an annotation of a stream."""
        self.change(name, lambda stream: stream["metadata"].setdefault("annotations", {}).update({key: value}))

    def wrote(self, name: str) -> None:
        """Take what a stream says now for what its user wrote: a tool of the user's has just written it."""
        self._wrote(self.get(name))

    def _wrote(self, stream: Object) -> Object:
        self._written[stream["metadata"]["name"]] = stream
        return stream

    def delete(self, name: str) -> None:
        """Delete a stream."""
        self._written.pop(name, None)
        self.client.request("DELETE", f"{self._streams}/{name}")

    def get(self, name: str) -> Object:
        """A stream as it is now."""
        stream: Object = self.client.get(f"{self._streams}/{name}")
        return stream

    def streams(self) -> list[Object]:
        """All streams."""
        items: list[Object] = self.client.get(self._streams).get("items") or []
        return items

    def import_image(self, name: str, tag_name: str, source: str, **policy: Any) -> Object:
        """`oc import-image`."""
        return self.import_images(name, tag(tag_name, source, importPolicy=policy))

    def import_images(self, name: str, *tags: Object) -> Object:
        """`oc import-image` of several tags at once, each as the spec has it."""
        images = [
            {
                "from": one["from"],
                "to": {"name": one["name"]},
                "importPolicy": one.get("importPolicy", {}),
                "referencePolicy": one["referencePolicy"],
            }
            for one in tags
        ]
        body = {"metadata": {"name": name}, "spec": {"import": True, "images": images}}
        path = f"{IMAGE_API}/namespaces/{self.name}/imagestreamimports"

        def attempt() -> Object | None:
            try:
                answer: Object = self.client.request("POST", path, body=body, timeout=90)
            except ApiError as error:
                if error.status != 409:
                    raise
                return None
            return answer

        return wait_for("an import without a conflict", attempt)

    def tag_status(self, name: str, tag_name: str) -> Object:
        """The status of a tag; empty if there is none."""
        tags = (self.get(name).get("status") or {}).get("tags") or []
        return next((t for t in tags if t["tag"] == tag_name), {})

    def spec_tag(self, name: str, tag_name: str) -> Object:
        """A tag of the spec."""
        found: Object = next(t for t in self.get(name)["spec"]["tags"] if t["name"] == tag_name)
        return found

    def failure(self, name: str, tag_name: str) -> Object | None:
        """The tag's ImportSuccess=False, if it has one."""
        conditions = self.tag_status(name, tag_name).get("conditions") or []
        return next((c for c in conditions if c["type"] == "ImportSuccess" and c["status"] == "False"), None)

    def wait_failed(self, name: str, tag_name: str, *, seconds: float = 30) -> Object:
        """Wait until the platform's import of a tag has failed; the condition."""
        return wait_for(f"{name}:{tag_name} fails", lambda: self.failure(name, tag_name), seconds=seconds)

    def healed(self, name: str, tag_name: str, digest: str = "") -> Object | None:
        """The tag's newest item if the tag is well: no failure, and at the spec tag's generation."""
        status = self.tag_status(name, tag_name)
        items = status.get("items") or []
        if not items or status.get("conditions") or (digest and items[0]["image"] != digest):
            return None
        generation = self.spec_tag(name, tag_name)["generation"] if self._is_importable(name, tag_name) else 0
        newest: Object = items[0]
        return newest if newest["generation"] >= generation else None

    def _is_importable(self, name: str, tag_name: str) -> bool:
        tags = self.get(name)["spec"].get("tags") or []
        return any(t["name"] == tag_name and t["from"]["kind"] == "DockerImage" for t in tags)

    def wait_healed(self, name: str, tag_name: str, digest: str = "", *, seconds: float = 20) -> Object:
        """Wait until a tag is well (and points to `digest`); its newest item."""
        try:
            return wait_for(f"{name}:{tag_name} heals", lambda: self.healed(name, tag_name, digest), seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(self.get(name), indent=1)}\n{self.events(name)}") from None

    def stays(self, what: str, condition: Any, *, seconds: float = 1.5) -> None:
        """Check that something remains true for a while."""
        stop = threading.Event()
        for _ in range(int(seconds / 0.1)):
            assert condition(), f"did not stay so: {what}"
            stop.wait(0.1)

    def events(self, name: str, reason: str = "") -> list[str]:
        """The messages of a stream's Events, as `reason: message`."""
        items = self.client.get(f"/api/v1/namespaces/{self.name}/events").get("items") or []
        return [
            f"{e['reason']}: {e['message']}"
            for e in items
            if e["involvedObject"]["name"] == name and (not reason or e["reason"] == reason)
        ]

    def wait_event(self, name: str, reason: str, pattern: str = "", *, seconds: float = 15) -> str:
        """Wait for an Event of a stream; its text."""

        def found() -> str | None:
            return next((text for text in self.events(name, reason) if re.search(pattern, text)), None)

        return wait_for(f"Event {reason} with {pattern!r} on {name}", found, seconds=seconds)

    def image(self, digest: str) -> Object:
        """An Image."""
        image: Object = self.client.get(f"{IMAGE_API}/images/{digest}")
        return image

    def check_untouched(self) -> None:
        """Check that every stream's spec, labels and annotations are what the user wrote."""
        for stream in self.streams():
            written = self._written.get(stream["metadata"]["name"])
            if written is None:
                continue
            assert without_generations(stream["spec"]) == without_generations(written["spec"])
            assert stream["metadata"].get("labels") == written["metadata"].get("labels")
            assert _users_annotations(stream) == _users_annotations(written)


def _users_annotations(stream: Object) -> dict[str, str]:
    annotations = stream["metadata"].get("annotations") or {}
    return {key: value for key, value in annotations.items() if key != "openshift.io/image.dockerRepositoryCheck"}
