"""A cluster for scenarios, whatever it is: the simulator, or a real one that a kubeconfig names."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from mirrorstream.kube.client import MERGE_PATCH, ApiError, Client, load_client

from e2e.testbed.audit import AuditLog, Request, RequestLog, SimulatorLog
from e2e.testbed.backends import EXISTING, SIMULATOR, Shared, Trusted
from e2e.testbed.controllers.pull_secrets import FILLED_AFTER, NAMED_AFTER, has_pull_secret
from e2e.testbed.controllers.scc import LABEL
from e2e.testbed.controlplane.arguments import OWN_NAMESPACE
from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.plane import ControlPlane, define
from e2e.testbed.installation import CONTROLLER, RBAC, Permission, with_token, without
from e2e.testbed.mirrorsets import ContentSources, MirrorSets, OwnObjects
from e2e.testbed.node.view import NodeView
from e2e.testbed.registries.internal import SERVICE_NAME, SERVING, set_state
from e2e.testbed.registries.recorded import Registries
from e2e.testbed.roles import PULL, account_with, grant, group
from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.streams import Object, Streams
from e2e.testbed.support.waiting import wait_for

IMAGE_CONFIG = "/apis/config.openshift.io/v1/images/cluster"
SIGNATURE_POLICIES = ("imagepolicies", "clusterimagepolicies")


def account_of(body: Object) -> str:
    """The service account of a pod, or of a workload's pods; empty for other objects."""
    spec = body.get("spec") or {}
    for part in ("jobTemplate", "template"):
        inner = (spec.get(part) or {}).get("spec")
        spec = inner or spec
    return (spec.get("serviceAccountName") or "default") if spec.get("containers") else ""


@dataclass
class Cluster:
    """A cluster, its registries, and what a user does on it. Everything that is made has a name of its own and is removed.

    `kubeconfig` is an administrator's, `program` what the controller runs with and `webhook` what the webhook does. `controls`
    is the simulator's own door, where there is one; `log` has mirrorstream's requests, where they can be seen; `node` tells of the
    node, where there is one. `platform` is the account that writes the mirror rules of a hosted cluster (`hosted.py`). `plane` is
    the control plane, where it is the scenario's own.
    """

    backend: str
    kubeconfig: Path
    registries: Registries
    program: Path
    webhook: Path
    trusted: Trusted | None = None
    controls: Client | None = None
    log: RequestLog | None = None
    node: NodeView | None = None
    platform: Client | None = None
    plane: ControlPlane | None = None
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
        platform = load_client(shared.platform, user_agent="platform", in_cluster=False) if shared.platform else None
        files = Path(shared.kubeconfig), registries, Path(shared.program), Path(shared.webhook)
        return Cluster(shared.backend, *files, trusted, controls, log, shared.node, platform)

    @property
    def is_ours(self) -> bool:
        """Whether its cluster-wide settings may be changed."""
        return self.backend != EXISTING

    def mirror_sets(self) -> MirrorSets:
        """How a scenario makes mirror rules here."""
        return ContentSources(self.platform) if self.platform else OwnObjects(self.client)

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

    def back_up(self) -> None:
        """Back up everything that the cluster stores."""
        self.control("back-up")
        if self.plane:
            self.plane.back_up()

    def restore(self, *, outage: float = 0) -> None:
        """Go back to the backup: all watches end. The API server is away for so many seconds, or for as long as it takes it."""
        if not self.plane:
            self.control("outage", {"seconds": outage, "restore": True})
            return
        self.control("restore")
        self.plane.restore()

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

    def serve_signature_policies(self, version: str) -> None:
        """Have ImagePolicy and ClusterImagePolicy served, in that version only, by a cluster that was made without them."""
        if self.backend == SIMULATOR:
            self.control("signature-policies", {"version": version})
        else:
            define(self.client, [components() / f"{plural}.yaml" for plural in SIGNATURE_POLICIES], version)

    def change_image_config(self, change: Callable[[Object], Any]) -> None:
        """Change the spec of the Image config with `change(spec)`, until there is no conflict."""
        self._change_image_config("spec", change)

    @property
    def registry_host(self) -> str:
        """The internal registry's name, as the Image config says it; empty without one."""
        return str((self.client.get(IMAGE_CONFIG).get("status") or {}).get("internalRegistryHostname") or "")

    def set_registry_host(self, host: str) -> None:
        """Say in the Image config where the internal registry is, as its operator does; empty: there is none."""
        name = "internalRegistryHostname"
        self._change_image_config("status", lambda status: status.update({name: host}) if host else status.pop(name, None))

    def registry_here(self, reference: str) -> str:
        """A reference at the internal registry as this machine reaches it: its service's name is the cluster's only."""
        return reference.replace(f"{SERVICE_NAME}:", "localhost:", 1)

    @contextlib.contextmanager
    def registry_state(self, state: str) -> Iterator[None]:
        """The internal registry's program `absent` or `hanging`, for as long as the context lasts. It holds for all scenarios.

        The cluster still says that there is a registry.
        """
        set_state(self.client, state)
        try:
            yield
        finally:
            set_state(self.client, SERVING)

    @contextlib.contextmanager
    def registry_absent(self) -> Iterator[None]:
        """A cluster without an internal registry, for as long as the context lasts. It holds for all scenarios on the cluster."""
        host = self.registry_host
        self.set_registry_host("")
        try:
            yield
        finally:
            self.set_registry_host(host)

    def _change_image_config(self, part: str, change: Callable[[Object], Any]) -> None:
        path = IMAGE_CONFIG + ("/status" if part == "status" else "")
        client = self.platform or self.client

        def attempt() -> bool:
            config = client.get(IMAGE_CONFIG)
            change(config.setdefault(part, {}))
            try:
                client.request("PUT", path, body=config)
            except ApiError as error:
                if error.status != 409:
                    raise
                return False
            return True

        wait_for("the Image config is written", attempt)

    @contextlib.contextmanager
    def namespace(
        self, prefix: str = "ms", *, secrets_after: tuple[float, float] | None = None, scc: bool = False
    ) -> Iterator["Namespace"]:
        """A namespace with a name of its own.

        `secrets_after`: how many seconds it takes until an account names its pull secret, and from then on until the secret has
        its token. On OpenShift's own components this takes as long as it takes.
        `scc`: its pods pass SecurityContextConstraints admission, at each change of their spec, too (`controllers/scc.py`).
        """
        name = f"{prefix}-{uuid4().hex[:8]}"
        metadata: Object = {"name": name, "labels": LABEL if scc else {}}
        if secrets_after:
            metadata["annotations"] = dict(zip((NAMED_AFTER, FILLED_AFTER), map(str, secrets_after), strict=True))
        self.client.request("POST", "/api/v1/namespaces", body={"metadata": metadata})
        namespace = Namespace(self, name)
        try:
            yield namespace
        finally:
            namespace.remove_mirror_sets()
            for stream in namespace.streams():
                namespace.delete(stream["metadata"]["name"])
            self.client.request("DELETE", f"/api/v1/namespaces/{name}")


@dataclass
class Namespace(Streams):
    """A user's view of one namespace; repositories and mirror sets carry its name, so that scenarios do not meet."""

    cluster: Cluster
    name: str
    _with_secret: set[str] = field(default_factory=set)
    _written: dict[str, Object] = field(default_factory=dict)
    _sets: MirrorSets = field(init=False)

    def __post_init__(self) -> None:
        self._sets = self.cluster.mirror_sets()

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

    def make(self, path: str, body: Object, *, dry_run: bool = False, early: bool = False) -> Object:
        """POST an object to `path` below the namespace's, as soon as the namespace has its service account.

        A workload waits for its account's pull secret, too, unless it is `early`: admission gives a pod what the account has then.
        """
        group, _, plural = path.rpartition("/")
        where = f"/api/v1/namespaces/{self.name}/{plural}" if not group else f"/apis/{group}/namespaces/{self.name}/{plural}"
        params = {"dryRun": "All"} if dry_run else None
        if not early and (account := account_of(body)):
            self.wait_pull_secret(account)

        def attempt() -> Object | None:
            try:
                made: Object = self.client.request("POST", where, params=params, body=body)
            except ApiError as error:
                if error.status != 403 or "serviceaccount" not in error.message:
                    raise
                return None
            return made

        return wait_for(f"{plural} can be made", attempt)

    def pod(
        self, name: str, *images: str, dry_run: bool = False, early: bool = False, metadata: Object | None = None, **spec: Any
    ) -> Object:
        """Create a pod with a container for each image (c0, c1 and so on); `early` as for `make`."""
        containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
        body = {"metadata": {"name": name, **(metadata or {})}, "spec": {"containers": containers, **spec}}
        return self.make("pods", body, dry_run=dry_run, early=early)

    def wait_pull_secret(self, account: str = "default") -> None:
        """Wait until a service account has its filled pull secret; a cluster without an internal registry makes none."""
        if account in self._with_secret or not self.cluster.registry_host:
            return
        wait_for(f"the pull secret of {self.name}/{account}", lambda: has_pull_secret(self.client, self.name, account))
        self._with_secret.add(account)

    def image_of(self, pod: str, container: int = 0) -> str:
        """The image of a pod's container as it is now."""
        found = self.client.get(f"/api/v1/namespaces/{self.name}/pods/{pod}")
        return str(found["spec"]["containers"][container]["image"])

    def hangs(self, pod: str, *, reason: str = "ImagePullBackOff") -> None:
        """Have a pod's containers wait for their images, as a kubelet would say."""
        path = f"/api/v1/namespaces/{self.name}/pods/{pod}"
        containers = self.client.get(path)["spec"]["containers"]

        def waiting(container: Object) -> Object:
            message = f'Back-off pulling image "{container["image"]}"' if reason == "ImagePullBackOff" else "connection refused"
            state = {"waiting": {"reason": reason, "message": message}}
            return {"name": container["name"], "image": container["image"], "imageID": "", "ready": False, "restartCount": 0} | {
                "state": state
            }

        status = {"phase": "Pending", "containerStatuses": [waiting(container) for container in containers]}
        self.client.request("PATCH", f"{path}/status", body={"status": status}, content_type=MERGE_PATCH)

    def allow_pulls(self, *, everybody: bool = False, anonymous: bool = False) -> None:
        """Let the namespace's own service accounts pull from its streams, as the platform does in a project.

        `everybody`: those of other namespaces, too; `anonymous`: without any account.
        """
        if self.cluster.backend != SIMULATOR:
            name = "system:authenticated" if everybody else f"system:serviceaccounts:{self.name}"
            grant(self.client, self.name, "image-puller", [PULL], group("system:unauthenticated" if anonymous else name))
        elif anonymous:
            body = {"metadata": {"name": "allowed"}, "data": {"user": "system:anonymous"}}
            self.client.request("POST", f"/api/v1/namespaces/{self.name}/configmaps", body=body)

    def puller(self, name: str = "puller", *streams: str) -> str:
        """Make a service account that may pull from `streams`, or from all here; its token."""
        return self._token(name, [{**PULL, "resourceNames": list(streams)} if streams else PULL])

    def account(self, name: str, rules: list[Object], folder: Path) -> Client:
        """Make a service account with these rights here; a client that uses it. Without RBAC it may do everything."""
        file = with_token(folder / f"{name}.kubeconfig", self.cluster.kubeconfig, self._token(name, rules))
        return load_client(str(file), user_agent="test", in_cluster=False)

    def _token(self, name: str, rules: list[Object]) -> str:
        if self.cluster.backend != SIMULATOR:
            return account_with(self.client, self.name, name, rules)
        accounts = f"/api/v1/namespaces/{self.name}/serviceaccounts"
        self.client.request("POST", accounts, body={"metadata": {"name": name}})
        return str(self.client.request("POST", f"{accounts}/{name}/token", body={"spec": {}})["status"]["token"])

    def deny_pulls(self, account: str) -> None:
        """Keep an account (`namespace:name`) of a cluster without RBAC from pulling here; with RBAC nobody may by default."""
        if self.cluster.backend == SIMULATOR:
            body = {"metadata": {"name": "denied"}, "data": {"user": f"system:serviceaccount:{account}"}}
            self.client.request("POST", f"/api/v1/namespaces/{self.name}/configmaps", body=body)

    # Mirror sets.

    def mirror_set(self, kind: str, source: str, *mirrors: str, never: bool = False, name: str = "") -> str:
        """Create a mirror set with one entry; its name. On a hosted cluster the platform adds the entry to its own."""
        name = name or f"{self.name}-{uuid4().hex[:4]}"
        self._wait_configured(self._sets.create(name, kind, source, list(mirrors), never=never))
        return name

    def _wait_configured(self, mirror_set: Object) -> None:
        """Wait until the node, if there is one, pulls by this version of a mirror set."""
        if node := self.cluster.node:
            name, generation = f"{mirror_set['kind']}/{mirror_set['metadata']['name']}", mirror_set["metadata"]["generation"]
            wait_for(f"the node knows {name}", lambda: node.configured(self.client).get(name, 0) >= generation)

    def digest_mirrors(self, *mirrors: str, source: str = "", never: bool = False) -> str:
        """An ImageDigestMirrorSet for the namespace's prefix at the dead registry."""
        source = source or f"{self.cluster.host('dead')}/{self.name}"
        return self.mirror_set("ImageDigestMirrorSet", source, *(mirrors or (self.mirror(),)), never=never)

    def tag_mirrors(self, *mirrors: str, source: str = "") -> str:
        """An ImageTagMirrorSet for the namespace's prefix at the dead registry."""
        source = source or f"{self.cluster.host('dead')}/{self.name}"
        return self.mirror_set("ImageTagMirrorSet", source, *(mirrors or (self.mirror(),)))

    def change_mirrors(self, name: str, *mirrors: str) -> None:
        """Replace the mirrors of a set."""
        self._wait_configured(self._sets.change(name, list(mirrors)))

    def mirror_set_names(self) -> list[str]:
        """The names of the sets that there are."""
        return self._sets.names()

    def remove_mirror_set(self, name: str) -> None:
        """Delete a mirror set."""
        self._sets.remove(name)

    def remove_mirror_sets(self) -> None:
        """Delete all of them."""
        for name in self._sets.names():
            self._sets.remove(name)
