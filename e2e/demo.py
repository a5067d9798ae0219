"""`make demo`: watch ImageStreams fail on a cluster that cannot reach its upstream, heal through the mirrors, and serve pods.

Everything is real but the cluster: controller and webhook are the real programs in processes of their own, the registries are
registries.
In a terminal a live table shows every tag; elsewhere each change is a line.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mirrorstream.imagestream.failures import classify
from mirrorstream.kube.client import ApiError, Client, load_client
from mirrorstream.text.terminal import Style
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from e2e.testbed.controllers.pull_secrets import has_pull_secret
from e2e.testbed.programs.hooks import registered
from e2e.testbed.programs.program import PROGRAM, Controller, Webhook
from e2e.testbed.registries.registry import DeadPort, Registry
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.streams import without_generations
from e2e.testbed.support.kubeconfig import write_kubeconfig
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
NAMESPACE = "openshift"
STREAMS = f"/apis/image.openshift.io/v1/namespaces/{NAMESPACE}/imagestreams"
MIRROR_SETS = "/apis/config.openshift.io/v1/imagedigestmirrorsets"
INTERNAL = "image-registry.openshift-image-registry.svc:5000"
LIMIT_SECONDS = 180.0
JENKINS = "ocp-tools-4/jenkins-rhel8:v4.13.0-1686682222"
AGENT = "ocp-tools-4/jenkins-agent-base-rhel8:v4.13.0-1686682227"
SAMPLES: dict[str, dict[str, str]] = {
    "httpd": {"2.4-ubi9": "ubi9/httpd-24:latest", "2.4-el8": "rhel8/httpd-24:latest", "latest": "->2.4-ubi9"},
    "nodejs": {"20-ubi9": "ubi9/nodejs-20:latest", "18-ubi8": "ubi8/nodejs-18:latest", "latest": "->20-ubi9"},
    "postgresql": {"15-el9": "rhel9/postgresql-15:latest", "13-el8": "rhel8/postgresql-13:latest", "latest": "->15-el9"},
    "ruby": {"3.3-ubi9": "ubi9/ruby-33:latest", "latest": "->3.3-ubi9"},
    "jenkins-agent-base": {"latest": AGENT},
}
"""Streams of the shape of the shipped samples: tags that import, and tags that follow."""
BAD, WARNING, GOOD, QUIET = (
    f"color({style.removeprefix('38;5;')})" for style in (Style.BAD, Style.WARNING, Style.GOOD, Style.QUIET)
)
"""The commands' colours, as rich names them."""


@dataclass(frozen=True)
class Row:
    """A tag as the table shows it."""

    name: str
    state: str
    detail: str


class Demo:
    """The cluster of the demo, and the eyes on it."""

    def __init__(self, folder: Path, console: Console, stack: ExitStack) -> None:
        self.folder, self.console = folder, console
        self.upstream = stack.enter_context(DeadPort()).host
        self.mirror, self.second = stack.enter_context(Registry()), stack.enter_context(Registry())
        insecure = {"registrySources": {"insecureRegistries": [self.mirror.host, self.second.host]}}
        self.simulator = stack.enter_context(
            Simulator(Settings(image_config=insecure, scheduled_interval=60, internal_registry=INTERNAL), pull_secrets=True)
        )
        self.kubeconfig = write_kubeconfig(folder / "kubeconfig", self.simulator.url, namespace=NAMESPACE)
        self.client: Client = load_client(str(self.kubeconfig), in_cluster=False, user_agent="demo")
        self.client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": NAMESPACE}})
        self.started = time.monotonic()
        self._written: dict[str, Object] = {}
        self._images: dict[str, str] = {}
        self._printed: dict[str, tuple[str, str]] = {}

    # The cluster.

    def put(self, registry: Registry, image: str) -> None:
        """Put an image into a mirror."""
        repository, _, tag = image.partition(":")
        registry.put(f"redhat/{repository}", tag, seed=image)

    def create(self, name: str, tags: dict[str, str], scheduled: tuple[str, ...] = ()) -> None:
        """Create a stream; `->TAG` follows another tag."""
        spec = []
        for tag, image in tags.items():
            follows = image.startswith("->")
            source = (
                {"kind": "ImageStreamTag", "name": image[2:]} if follows else {"kind": "DockerImage", "name": self.source(image)}
            )
            policy = {"scheduled": True} if tag in scheduled else {}
            spec.append({"name": tag, "from": source, "importPolicy": policy, "referencePolicy": {"type": "Local"}})
        body = {"apiVersion": "image.openshift.io/v1", "kind": "ImageStream", "metadata": {"name": name}, "spec": {"tags": spec}}
        made = self.client.request("POST", STREAMS, body=body)
        self._written[name] = without_generations(made["spec"])

    def untouched(self) -> bool:
        """Whether every stream's spec is what was written."""
        streams = self.client.get(STREAMS)["items"]
        return all(without_generations(s["spec"]) == self._written[s["metadata"]["name"]] for s in streams)

    def source(self, image: str) -> str:
        """An image at the upstream that cannot be reached."""
        return f"{self.upstream}/{image}"

    def mirror_set(self, *mirrors: str) -> None:
        """Create the ImageDigestMirrorSet, or change its mirrors."""
        entry = {"source": self.upstream, "mirrors": [f"{mirror}/redhat" for mirror in mirrors]}
        version = "config.openshift.io/v1"
        body = {
            "apiVersion": version,
            "kind": "ImageDigestMirrorSet",
            "metadata": {"name": "redhat"},
            "spec": {"imageDigestMirrors": [entry]},
        }
        try:
            self.client.request("POST", MIRROR_SETS, body=body)
        except ApiError as error:
            if error.status != 409:
                raise
            self.client.request("PUT", f"{MIRROR_SETS}/redhat", body=body)

    def why(self, source: str, namespace: str) -> str:
        """The webhook's reason, as `mirrorstream explain --as-pod` tells it."""
        command = [str(PROGRAM), "explain", source, "--as-pod", "-n", namespace, "--kubeconfig", str(self.kubeconfig), "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_SECONDS)
        found = json.loads(done.stdout)["pod"]
        return f"{found['reason']} ({found['result']}{', ' + found['stream'] if found['stream'] else ''})"

    def import_image(self, stream: str, tag: str, image: str) -> None:
        """`oc import-image`."""
        item = {
            "from": {"kind": "DockerImage", "name": self.source(image)},
            "to": {"name": tag},
            "referencePolicy": {"type": "Local"},
        }
        body = {"metadata": {"name": stream}, "spec": {"import": True, "images": [item]}}
        self.client.request("POST", f"/apis/image.openshift.io/v1/namespaces/{NAMESPACE}/imagestreamimports", body=body)

    # The eyes.

    def rows(self) -> list[Row]:
        """Every tag as it is now."""
        found = []
        for stream in self.client.get(STREAMS).get("items") or []:
            status = {tag["tag"]: tag for tag in (stream.get("status") or {}).get("tags") or []}
            name = stream["metadata"]["name"]
            found += [self._row(name, tag, status.get(tag["name"], {})) for tag in stream["spec"]["tags"]]
        return found

    def _row(self, stream: str, tag: Object, status: Object) -> Row:
        name = f"{stream}:{tag['name']}"
        conditions, items = status.get("conditions") or [], status.get("items") or []
        if conditions:
            kind = classify(conditions[0]["reason"], conditions[0]["message"]).kind
            cause = conditions[0]["message"].rpartition(f"{tag['from']['name']}: ")[2]
            return Row(name, "failed", f"{kind}: {cause}")
        if not items:
            followed = tag["from"]["kind"] == "ImageStreamTag"
            return Row(name, "waiting", f"follows {tag['from']['name']}" if followed else "the platform imports …")
        digest = items[0]["image"]
        if tag["from"]["kind"] == "ImageStreamTag":
            return Row(name, "healed", f"follows {tag['from']['name']}: {digest[:19]}…")
        return Row(name, "healed", f"through {self._through(digest)}")

    def _through(self, digest: str) -> str:
        if digest not in self._images:
            image = self.client.get(f"/apis/image.openshift.io/v1/images/{digest}")
            annotations = image["metadata"].get("annotations") or {}
            self._images[digest] = annotations.get("mirrorstream.github.io/imported-through", "the source itself")
        return self._images[digest]

    def table(self, rows: list[Row]) -> Table:
        """The live table."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for title in ("TAG", "STATE"):
            table.add_column(title, no_wrap=True)
        # Where the terminal is narrow, this is cut, and not a tag's state: of columns that may wrap rich takes first.
        table.add_column("", ratio=1)
        styles = {"failed": BAD, "healed": GOOD, "waiting": WARNING}
        for row in rows:
            table.add_row(row.name, Text(row.state, styles[row.state]), Text(row.detail, no_wrap=True, overflow="ellipsis"))
        return table

    def watch(self, done: Callable[[list[Row]], bool]) -> list[Row]:
        """Show what happens until `done`, or until the limit; the rows at the end."""
        end = time.monotonic() + LIMIT_SECONDS
        pause = threading.Event()
        with self._shown() as show:
            while True:
                rows = self.rows()
                show(rows)
                if done(rows) or time.monotonic() > end:
                    return rows
                pause.wait(0.1)

    @contextmanager
    def _shown(self) -> Iterator[Callable[[list[Row]], None]]:
        if not self.console.is_terminal:
            yield self._print_changes
            return
        with Live(console=self.console, refresh_per_second=10) as live:
            yield lambda rows: live.update(self.table(rows))

    def _print_changes(self, rows: list[Row]) -> None:
        for row in rows:
            if row.state != "waiting" and self._printed.get(row.name) != (row.state, row.detail):
                self._printed[row.name] = (row.state, row.detail)
                seconds = time.monotonic() - self.started
                self.console.print(f"{seconds:5.1f} s  {row.name:<36} {row.state:<7} {row.detail}", highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A heading."""
        self.console.print(f"\n{text}", style="bold", highlight=False, soft_wrap=True)


def all_are(state: str, *but: str) -> Callable[[list[Row]], bool]:
    """Whether all tags that import are in a state, `but` those of some streams."""
    return lambda rows: bool(rows) and all(row.state == state for row in rows if row.name.partition(":")[0] not in but)


def failing(rows: list[Row]) -> bool:
    """Whether nothing is left to wait for without mirrorstream: all has failed, and what follows waits."""
    return all(row.state != "waiting" or row.detail.startswith("follows") for row in rows)


def run(demo: Demo, stack: ExitStack) -> list[Row]:
    """The story; the rows at its end."""
    for image in (JENKINS, AGENT, *(i for tags in SAMPLES.values() for i in tags.values() if not i.startswith("->"))):
        demo.put(demo.mirror, image)
    demo.put(demo.second, "ubi9/python-312:latest")
    demo.put(demo.mirror, "ubi9/php-83:latest")
    console = demo.console
    console.print(
        f"  upstream  {demo.upstream}  (nothing listens there: the cluster is disconnected)", highlight=False, soft_wrap=True
    )
    console.print(f"  mirror    {demo.mirror.host}/redhat, named by ImageDigestMirrorSet/redhat", highlight=False, soft_wrap=True)

    demo.say("1. Without mirrorstream: the platform does not use digest mirrors for tags")
    demo.mirror_set(demo.mirror.host)
    for name, tags in SAMPLES.items():
        demo.create(name, tags)
    jenkins = {"2": JENKINS, "latest": "->2", "ocp-upgrade-redeploy": "->2", "scheduled-upgrade-redeploy": JENKINS}
    demo.create("jenkins", jenkins, scheduled=("scheduled-upgrade-redeploy",))
    demo.create("python", {"3.12-ubi9": "ubi9/python-312:latest"})
    rows = demo.watch(failing)
    importing = [row for row in rows if not row.detail.startswith("follows")]
    console.print(f"\n  0 of {len(importing)} tags imported.", style=BAD, highlight=False, soft_wrap=True)

    demo.say("2. The controller starts: what the mirror has, heals")
    controller = Controller(demo.kubeconfig, demo.folder, {"controller": {"retry": {"initialSeconds": 1}}}, "--no-leader-election")
    stack.callback(controller.stop)
    began = time.monotonic()
    controller.wait_ready()
    rows = demo.watch(all_are("healed", "python"))
    healed = sum(row.state == "healed" for row in rows)
    console.print(
        f"\n  {healed} of {len(rows)} tags in {time.monotonic() - began:.1f} s. Not in this mirror: python.",
        style=GOOD,
        highlight=False,
    )

    demo.say(f"3. The rule changes: a second mirror, {demo.second.host}/redhat, has python")
    demo.mirror_set(demo.mirror.host, demo.second.host)
    demo.watch(all_are("healed"))

    demo.say("4. A new stream, and `oc import-image jenkins:2`: both fail, and heal at once")
    demo.create("php", {"8.3-ubi9": "ubi9/php-83:latest", "latest": "->8.3-ubi9"})
    before = _generation(demo, "jenkins", "2")
    demo.import_image("jenkins", "2", JENKINS)
    return demo.watch(lambda rows: all_are("healed")(rows) and _generation(demo, "jenkins", "2") > before)


def show_pods(demo: Demo, stack: ExitStack) -> bool:
    """The webhook starts, and pods are made; whether each came back as it should."""
    demo.say("5. The webhook starts: pods get the internal registry's reference")
    webhook = Webhook(demo.kubeconfig, demo.folder, {})
    stack.callback(webhook.stop)
    webhook.wait_ready()
    stack.enter_context(registered(webhook, demo.client, ["web", "guests"]))
    for namespace in ("web", "guests"):
        demo.client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
        wait_for(f"{namespace} has its account's pull secret", partial(has_pull_secret, demo.client, namespace))
    # Everybody else may pull from the shared namespace, as on OpenShift.
    denied = {"metadata": {"name": "denied"}, "data": {"user": "system:serviceaccount:guests:default"}}
    demo.client.request("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", body=denied)
    made: list[tuple[str, str, str]] = []
    for namespace, image in (("web", JENKINS), ("web", "ubi9/php-83:latest"), ("web", "team/unknown:v1"), ("guests", JENKINS)):
        source = demo.source(image)
        pod = {"metadata": {"name": f"pod-{len(made)}"}, "spec": {"containers": [{"name": "app", "image": source}]}}
        answer = demo.client.request("POST", f"/api/v1/namespaces/{namespace}/pods", body=pod)
        made.append((namespace, source, answer["spec"]["containers"][0]["image"]))
    with ThreadPoolExecutor() as pool:
        reasons = list(pool.map(lambda row: demo.why(row[1], row[0]), made))
    for (namespace, source, image), why in zip(made, reasons, strict=True):
        style, text = (GOOD, f"becomes {image}") if image != source else (WARNING, "stays as it is")
        demo.console.print(f"  {namespace:<7} {source}", highlight=False, soft_wrap=True)
        demo.console.print(f"          {text}", style=style, highlight=False, soft_wrap=True)
        demo.console.print(f"          {why}", style=QUIET, highlight=False, soft_wrap=True)
    return [image != source for _, source, image in made] == [True, True, False, False]


def _generation(demo: Demo, stream: str, tag: str) -> int:
    tags = demo.client.get(f"{STREAMS}/{stream}")["status"]["tags"]
    items = next(t for t in tags if t["tag"] == tag)["items"] or [{}]
    return int(items[0].get("generation", 0))


def summary(demo: Demo, rows: list[Row], *, pods: bool, keep: bool) -> bool:
    """Print how it ended and what to look at; whether everything healed."""
    failed = [row for row in rows if row.state != "healed"]
    seconds = time.monotonic() - demo.started
    console = demo.console
    if failed:
        console.print(
            f"\n{len(failed)} of {len(rows)} tags did not heal in {seconds:.0f} s:",
            style=f"bold {BAD}",
            highlight=False,
            soft_wrap=True,
        )
        console.print(demo.table(failed))
    else:
        console.print(
            f"\nAll {len(rows)} tags healed, {seconds:.0f} s from the first stream.",
            style=f"bold {GOOD}",
            highlight=False,
            soft_wrap=True,
        )
    untouched = demo.untouched()
    if untouched:
        console.print("Their specs are as they were written; only the status changed.", highlight=False, soft_wrap=True)
    else:
        console.print("A spec is not as it was written!", style=f"bold {BAD}", highlight=False, soft_wrap=True)
    if not pods:
        console.print("A pod did not come back as it should!", style=f"bold {BAD}", highlight=False, soft_wrap=True)
    demo.say("Look further" if keep else "Look further: `make demo KEEP=1` leaves the cluster up for")
    for command in (
        *([f"export KUBECONFIG={demo.kubeconfig}"] if keep else []),
        ".venv/bin/mirrorstream status            # the context's namespace",
        ".venv/bin/mirrorstream missing -A        # what no mirror has: nothing by now",
        ".venv/bin/mirrorstream retry jenkins:2   # import it again",
        f".venv/bin/mirrorstream explain {NAMESPACE}/jenkins:2",
        f".venv/bin/mirrorstream explain {demo.source(JENKINS)} --as-pod -n guests",
        "kubectl get imagestream jenkins -o yaml",
    ):
        console.print(f"  {command}", highlight=False, soft_wrap=True)
    return untouched and not failed and pods


def main() -> int:
    """Run the demo; 0 if everything healed."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the cluster up until Ctrl-C")
    args = parser.parse_args()
    width = shutil.get_terminal_size().columns
    console = Console(width=width if sys.stdout.isatty() else None)
    console.print(
        "mirrorstream demo: ImageStreams and pods on a cluster without its upstream registry",
        style="bold",
        highlight=False,
        soft_wrap=True,
    )
    with tempfile.TemporaryDirectory(prefix="mirrorstream-demo-") as folder, ExitStack() as stack:
        demo = Demo(Path(folder), console, stack)
        rows = run(demo, stack)
        pods = show_pods(demo, stack)
        good = summary(demo, rows, pods=pods, keep=args.keep)
        if args.keep:
            console.print(
                "\nThe cluster, the controller and the webhook stay up; Ctrl-C ends them.", highlight=False, soft_wrap=True
            )
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                console.print("Ending.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
