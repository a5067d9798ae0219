"""Installations that a Prometheus scrapes: one that is well, and others with faults, each on a simulated cluster of its own.

An installation is a namespace's name in the labels of what is scraped. `FAULTY` has a function for each, which starts its programs
and gives back what is to happen once they are ready.
"""

import datetime
import http.server
import json
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from e2e.testbed.backends import SIMULATOR, Choice
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.faults.actions import hang, refuse, watch_lines
from e2e.testbed.installation import share_policies
from e2e.testbed.interceptor import Interceptor, intercepted
from e2e.testbed.owncluster import new_cluster
from e2e.testbed.programs.hooks import registered
from e2e.testbed.programs.program import Controller, Program, Webhook
from e2e.testbed.prometheus.pace import FASTER
from e2e.testbed.prometheus.server import Target
from e2e.testbed.streams import IMAGE_API, tag
from e2e.testbed.support.certificates import DAYS, Authority
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.serving import EndableServer
from e2e.testbed.support.waiting import wait_for

CONTROLLER, WEBHOOK = "mirrorstream-controller", "mirrorstream-webhook"
ALONE = "--no-leader-election"
WORKERS = 8
"""Streams that a controller reconciles at once."""
LONG_AGO = 3000 / FASTER
"""Seconds since which a tag has failed, so that nobody waits for it: 50 minutes at the pace of `pace.py`."""
NEARLY_OVER = datetime.timedelta(days=DAYS) - datetime.timedelta(days=5) / FASTER
"""How old a certificate is that has five of its days left, at the pace of `pace.py`."""
_BROKEN = """
import sys
from mirrorstream_webhook.decider import Decider
def fail(*arguments, **options):
    raise RuntimeError("a bug, on command")
Decider.pod = fail
from mirrorstream_cli.main import main
sys.exit(main())
"""
Then = Callable[[], object]


class BrokenWebhook(Webhook):
    """A webhook with a bug in every review."""

    executable = (sys.executable, "-c", _BROKEN)


class SecureController(Controller):
    """A controller that serves its metrics over TLS."""

    def get(self, path: str, *, seconds: float = 30) -> tuple[int, str]:
        """GET from the metrics port, without a look at the certificate: Prometheus checks it."""
        url = f"https://localhost:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=seconds, context=ssl._create_unverified_context()) as answer:  # noqa: S323, SLF001
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@dataclass
class Site:
    """An installation: its label, a user's namespace, its own, and what stands between its programs and the API server."""

    label: str
    folder: Path
    stack: ExitStack
    cluster: Cluster = field(init=False)
    user: Namespace = field(init=False)
    home: str = field(init=False)
    between: Interceptor = field(init=False)
    programs: list[Program] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    deployments: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.cluster = new_cluster(self.stack, Choice(SIMULATOR), self.folder)
        self.user = self.stack.enter_context(self.cluster.namespace())
        self.user.allow_pulls()
        self.home = self.stack.enter_context(self.cluster.namespace()).name
        self.between = self.stack.enter_context(intercepted(self.cluster.kubeconfig, self.folder))

    def runs(self, program: Program, service: str, tls: dict[str, Any] | None = None) -> None:
        """Have a program scraped as a pod of a Service's."""
        self.stack.callback(program.process.kill)
        self.programs.append(program)
        self._scraped(f"localhost:{program.port}", service, tls)

    def _scraped(self, address: str, service: str, tls: dict[str, Any] | None = None) -> None:
        number = len(self.targets) + 1
        labels = {"namespace": self.label, "service": service, "pod": f"{service}-{number}", "container": "manager"}
        self.targets.append(Target(address, labels, tls))
        if service not in self.deployments:
            self.deployments.append(service)

    def gone(self, service: str) -> None:
        """Have a pod scraped that does not answer."""
        self._scraped(f"localhost:{free_port()}", service)

    def controller(self, *arguments: str, kind: type[Controller] = Controller, **sections: Any) -> Controller:
        """Start a controller."""
        retry = {"retry": {"initialSeconds": 1, "maximumSeconds": 5}}
        settings = {"controller": {**retry, **sections.pop("controller", {})}, **sections}
        return kind(self.between.kubeconfig, self.folder, settings, *(arguments or (ALONE,)), log_level="info")

    def deploy_controller(self, *arguments: str, **sections: Any) -> Controller:
        """Start a controller that is scraped."""
        program = self.controller(*arguments, **sections)
        self.runs(program, CONTROLLER)
        return program

    def secure_controller(self, *arguments: str) -> None:
        """Start a controller whose metrics are scraped over TLS, with a check of its certificate."""
        authority = Authority(self.folder / "metrics", "metrics")
        pair = authority.issue(CONTROLLER, hosts=("localhost",))
        files = ("--metrics-tls-cert-file", str(pair.certificate), "--metrics-tls-key-file", str(pair.key))
        program = self.controller(*arguments, *files, kind=SecureController)
        self.runs(program, CONTROLLER, {"ca_file": str(authority.certificate), "server_name": "localhost"})

    def deploy_webhook(self, kind: type[Webhook] = Webhook, old: datetime.timedelta = datetime.timedelta()) -> Webhook:
        """Start a webhook that is scraped, with a certificate that is so old."""
        authority = Authority(self.folder / "authority", "webhook-authority", old=old)
        environment = {"POD_NAMESPACE": self.home}
        program = kind(self.between.kubeconfig, self.folder, {}, log_level="info", authority=authority, environment=environment)
        self.runs(program, WEBHOOK)
        return program

    def register(self, webhook: Webhook) -> None:
        """Have the API server ask it about the user's pods."""
        self.stack.enter_context(registered(webhook, self.user.client, [self.user.name]))

    def wait_ready(self) -> None:
        """Wait until every program is ready, or, if it may not lead, serves."""
        for program in self.programs:
            program.wait_ready()

    def fails(self, name: str) -> None:
        """A stream whose tag no mirror has; the platform's import has failed long ago."""
        self.user.create(name, tag("v1", self.user.source(f"{name}:v1")))
        self.user.wait_failed(name, "v1")
        path = f"{IMAGE_API}/namespaces/{self.user.name}/imagestreams/{name}"
        stream = self.user.client.get(path)
        (condition,) = stream["status"]["tags"][0]["conditions"]
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=LONG_AGO)
        condition["lastTransitionTime"] = since.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.user.client.request("PUT", f"{path}/status", body=stream)


class Life:
    """What users do on the cluster of the installation that is well: `go_on` is called again and again."""

    def __init__(self, site: Site, webhook: Webhook) -> None:
        self.site, self._webhook, self._turn = site, webhook, 0
        user = site.user
        user.digest_mirrors()
        site.register(webhook)
        # It hangs, since nothing serves its image yet, until the stream is there.
        user.pod("hanging", user.source("app-1:v1"))
        user.hangs("hanging")

    def go_on(self) -> None:
        """Another stream that heals, and a pod that names its image."""
        self._turn += 1
        user, name = self.site.user, f"app-{self._turn}"
        if self._turn <= 20:
            user.put("good", f"{name}:v1")
            user.create(name, tag("v1", user.source(f"{name}:v1")))
        else:
            name = f"app-{self._turn % 20 + 1}"
        user.pod("made", user.source(f"{name}:v1"), dry_run=True)
        if self._turn == 10:
            self._webhook.renew()


def healthy(site: Site) -> Callable[[], Life]:
    """Two controllers, of which one leads and one serves its metrics over TLS, and a webhook."""
    site.secure_controller("--namespace", site.home)
    site.deploy_controller("--namespace", site.home)
    share_policies(site.cluster.client)
    webhook = site.deploy_webhook()
    return lambda: Life(site, webhook)


def spoiled(site: Site) -> Then:
    """A webhook whose certificate is not renewed, whose configuration is invalid, and that has a bug."""
    webhook = site.deploy_webhook(BrokenWebhook, NEARLY_OVER)

    def then() -> None:
        # No API server accepts such a mirror since it checks them; sets from before are stored as they are.
        site.user.mirror_set("ImageDigestMirrorSet", site.user.source("app"), "not a mirror")
        webhook.configure({"webhook": {"scope": "nothing"}})
        review(webhook)
        post(webhook, b"no review")

    return then


def post(webhook: Webhook, body: bytes) -> int:
    """POST something to a webhook; the status of the answer."""
    request = urllib.request.Request(webhook.url, data=body, headers={"Content-Type": "application/json"})
    context = ssl.create_default_context(cafile=str(webhook.authority.certificate))
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def review(webhook: Webhook) -> int:
    """Have a webhook review a pod; the status of the answer."""
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "example.com/app"}]}}
    request = {"uid": "u", "kind": {"kind": "Pod"}, "namespace": "default", "operation": "CREATE", "object": pod}
    return post(webhook, json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode())


def several(site: Site) -> Then:
    """Two controllers without an election, a replica that is gone, and a tag that no mirror has."""
    site.user.digest_mirrors()
    site.fails("app")
    for _ in range(2):
        site.deploy_controller()
    site.gone(CONTROLLER)
    return lambda: None


def _silence(lines: Iterator[bytes]) -> tuple[bytes, ...]:
    for _ in lines:
        pass
    return ()


def stuck(site: Site) -> Then:
    """A controller whose status writes hang, and which hears nothing of mirror sets."""
    user = site.user
    site.stack.enter_context(site.between.when("watch", "/imagedigestmirrorsets$", watch_lines(_silence)))
    site.stack.enter_context(site.between.when("update", "/imagestreams/[^/]+/status$", hang))
    user.digest_mirrors()
    site.deploy_controller()

    def then() -> None:
        for number in range(WORKERS + 4):
            user.put("good", f"app-{number}:v1")
            user.create(f"app-{number}", tag("v1", user.source(f"app-{number}:v1")))
        wait_for("the writes hang", lambda: site.between.count("update", "/status$") >= WORKERS)

    return then


def leaderless(site: Site) -> Then:
    """A controller that is refused the Lease."""
    site.stack.enter_context(site.between.when("*", "/leases", refuse(403, "Forbidden", "leases is forbidden")))
    site.deploy_controller("--namespace", site.home)
    return lambda: None


def gone(site: Site) -> Then:
    """A Deployment no pod of which answers."""
    site.gone(CONTROLLER)
    return lambda: None


FAULTY: dict[str, tuple[Callable[[Site], Then], frozenset[str]]] = {
    "spoiled": (
        spoiled,
        frozenset(
            {
                "MirrorstreamCertificateExpiring",
                "MirrorstreamConfigurationRejected",
                "MirrorstreamWebhookReviewsFailing",
                "MirrorstreamMirrorRuleWarnings",
            }
        ),
    ),
    "several": (several, frozenset({"MirrorstreamSeveralLeaders", "MirrorstreamTagsFailing", "MirrorstreamReplicaDown"})),
    "stuck": (stuck, frozenset({"MirrorstreamQueueStuck", "MirrorstreamInformerStale"})),
    "leaderless": (leaderless, frozenset({"MirrorstreamNoLeader"})),
    "gone": (gone, frozenset({"MirrorstreamDown"})),
}
"""The installations with faults by their labels, and the alerts that fire of each and of no other."""


@contextmanager
def kube_state(sites: Iterable[Site]) -> Iterator[Target]:
    """What kube-state-metrics would say of the Deployments."""
    lines = [
        f'kube_deployment_spec_replicas{{namespace="{site.label}",deployment="{name}"}} 2\n'
        for site in sites
        for name in site.deployments
    ]
    text = "".join(lines).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments: object) -> None:
            pass

    server = EndableServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Target(f"127.0.0.1:{server.server_address[1]}", {"service": "kube-state-metrics"}, own_labels=True)
    finally:
        server.shutdown()
        server.end()
        thread.join()


def api_server(kubeconfig: Path) -> Target:
    """The API servers' own metrics, with an administrator's certificate."""
    document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    tls = {"ca_file": cluster["certificate-authority"], "cert_file": user["client-certificate"], "key_file": user["client-key"]}
    address = str(cluster["server"]).removeprefix("https://").rstrip("/")
    return Target(address, {"namespace": "default", "service": "kubernetes"}, tls, seconds=2)  # it has 2 MB of them
