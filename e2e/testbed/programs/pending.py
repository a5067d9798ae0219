"""A namespace with pods that hang, and the programs that mend them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.testbed.audit import Request
from e2e.testbed.backends import SIMULATOR
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.installation import PENDING_PODS, WEBHOOK, Installation, Permission
from e2e.testbed.programs.hooks import registered, wait_asked
from e2e.testbed.programs.program import Webhook
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import PATIENCE, wait_for

STEP_SECONDS = 10


@dataclass
class Home:
    """Where mirrorstream is installed, a user's namespace, and the webhook's programs."""

    cluster: Cluster
    ns: Namespace
    name: str
    kubeconfig: Path
    user: str
    folder: Path

    def program(self, **webhook: Any) -> Webhook:
        """A replica."""
        environment = {"POD_NAMESPACE": self.name}
        return Webhook(self.kubeconfig, self.folder, {"webhook": webhook} if webhook else {}, environment=environment)

    def requests(self, mark: int) -> list[Request]:
        """What the account asked for."""
        return [request for request in self.cluster.requests(mark) if request.user == self.user]


@contextmanager
def home_on(cluster: Cluster, folder: Path, without: Permission | None = None) -> Iterator[Home]:
    """Install the webhook's account, and make a user's namespace."""
    with ExitStack() as stack:
        home, ns = (stack.enter_context(cluster.namespace()) for _ in range(2))
        ns.allow_pulls()
        if cluster.backend == SIMULATOR:
            yield Home(cluster, ns, home.name, cluster.webhook, "", folder)
            return
        installation = stack.enter_context(Installation(cluster.client, home.name, without, WEBHOOK, (PENDING_PODS,)))
        installation.wait_effective()
        kubeconfig = installation.kubeconfig(folder / "own.kubeconfig", cluster.kubeconfig)
        yield Home(cluster, ns, home.name, kubeconfig, installation.user, folder)


@contextmanager
def running(program: Webhook, ns: Namespace) -> Iterator[Webhook]:
    """A replica that is asked about the namespace's pods."""
    try:
        program.wait_ready()
        with registered(program, ns.client, [ns.name]):
            wait_asked(program, ns)
            yield program
        if program.process.ended is None:
            assert program.stop() == 0, program.log()
        assert "Traceback" not in program.log(), program.log()
    finally:
        program.process.kill()


def heal(ns: Namespace) -> str:
    """A tag that the platform imports, and a digest mirror for its source; what pods of the namespace get."""
    digest = ns.cluster.put("good", f"{ns.name}/app", "v1")
    source = ns.source("app:v1", "good")
    ns.mirror_set("ImageDigestMirrorSet", source.rpartition(":")[0], f"{ns.mirror()}/app")
    ns.create("app", tag("v1", source))
    ns.wait_healed("app", "v1")
    return f"{ns.cluster.registry_host}/{ns.name}/app@{digest}"


def hanging(ns: Namespace, name: str = "hanging", **more: Any) -> str:
    """A pod that hangs on an image that no stream has yet; the reference."""
    source = ns.source("app:v1", "good")
    ns.pod(name, source, **more)
    ns.hangs(name)
    return source


def wait_image(ns: Namespace, name: str, image: str, seconds: float = PATIENCE) -> None:
    """Wait until a pod has an image."""
    wait_for(f"{name} has {image}", lambda: ns.image_of(name) == image, seconds=seconds)
