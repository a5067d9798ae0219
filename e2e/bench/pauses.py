"""How long a review waits while the mirror rules change: the longest one, against as long a time in which they do not."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from mirrorstream.kube.client import Client, load_client

from e2e.bench.figures import Figure
from e2e.bench.needs import needs_go
from e2e.bench.reviews import REFERENCES, REGISTRY, SOURCE, reviews, streams
from e2e.load import Load, Outcome, program
from e2e.scenarios.program import Webhook
from e2e.simulator.images.streams import STREAMS
from e2e.simulator.settings import Settings
from e2e.simulator.simulator import Simulator
from e2e.waiting import wait_for

Object = dict[str, Any]
SETS, RULES = 100, 100
PATH = "/apis/config.openshift.io/v1/imagedigestmirrorsets"
CONNECTIONS, EVERY = 4, 0.004
"""A steady stream, not as many as can be: a review that waits has waited for the rules, not for another review."""
ROUNDS, CHANGES, APART = 4, 4, 0.6
"""Rounds of each kind in turns; a change every so many seconds, of which each is a new policy."""


@needs_go
def measure(folder: Path) -> list[Figure]:
    """The longest wait of a review, above what it is without changes, while one rule changes and while all are made anew."""
    program()  # before everything that would be in vain without it
    folder = folder / "pauses"
    folder.mkdir()
    with ExitStack() as stack:
        client, webhook = _bed(stack, folder)
        changes = {"nothing": _change_nothing, "one rule": _change_rule, "all rules": _change_image_config}
        found: dict[str, list[_Round]] = {what: [] for what in changes}
        for number in range(ROUNDS):
            for what, change in changes.items():
                found[what].append(_round(folder, webhook, partial(change, client, number)))
        policies, wanted = len(webhook.lines("mirror rules")), 2 * ROUNDS * CHANGES + 1
        assert policies == wanted, f"{policies} policies, not {wanted}, of all changes and a beginning"
    return [_figure(what, found[what], found["nothing"]) for what in ("one rule", "all rules")]


@dataclass(frozen=True)
class _Round:
    """What the client saw, and the webhook's CPU seconds meanwhile."""

    outcome: Outcome
    cpu: float


def _figure(what: str, changing: list[_Round], quiet: list[_Round]) -> Figure:
    longest, usual = (max(found.outcome.longest for found in rounds) * 1e3 for rounds in (changing, quiet))
    cpu = (median(found.cpu for found in changing) - median(found.cpu for found in quiet)) / CHANGES
    told = (
        f"longest review {longest:.1f} ms, without changes {usual:.1f} ms; p99 {_p99(changing):.1f} and {_p99(quiet):.1f} ms; "
        f"{ROUNDS * CHANGES} changes, {cpu * 1e3:.0f} ms of CPU each"
    )
    return Figure(f"pause of reviews by a change of {what} of {SETS * RULES:,}", max(0.0, longest - usual), "ms", 20.0, told)


def _p99(rounds: list[_Round]) -> float:
    return max(found.outcome.p99 for found in rounds) * 1e3


def _bed(stack: ExitStack, folder: Path) -> tuple[Client, Webhook]:
    """A cluster with so many streams and rules, and a webhook that has read them."""
    simulator = Simulator(Settings(internal_registry=REGISTRY))
    for document in streams(REFERENCES):
        simulator.store.create(STREAMS, document["metadata"]["namespace"], document)
    stack.enter_context(simulator)
    kubeconfig = simulator.write_kubeconfig(folder / "kubeconfig")
    client = load_client(str(kubeconfig), in_cluster=False, user_agent="bench")
    for number in range(SETS):
        client.request("POST", PATH, body=_mirror_set(number, 0))
    webhook = Webhook(kubeconfig, folder, {}, log_level="info")
    stack.callback(webhook.process.kill)
    webhook.wait_ready()
    wait_for("the index is complete", lambda: webhook.metric("mirrorstream_webhook_references") == REFERENCES, seconds=60)
    return client, webhook


def _mirror_set(number: int, change: int) -> Object:
    """Rules for a hundred repositories; those of the reviewed pods are in the first set."""
    names = [f"registry{number}.example.com/namespace-{rule}" for rule in range(RULES)]
    if number == 0:
        names[0] = SOURCE
    entries = [{"source": name, "mirrors": [f"a.corp/{name}", f"b.corp/{name}"]} for name in names]
    entries[-1]["mirrors"] = [f"c.corp/change-{change}"]
    return {"metadata": {"name": f"set-{number}"}, "spec": {"imageDigestMirrors": entries}}


def _change_nothing(client: Client, number: int, change: int) -> None:
    """What the others are compared with."""


def _change_rule(client: Client, number: int, change: int) -> None:
    """Change one rule of another set each time."""
    change += number * CHANGES
    path = f"{PATH}/set-{change % SETS}"
    client.request("PUT", path, body={**client.get(path), "spec": _mirror_set(change % SETS, change + 1)["spec"]})


def _change_image_config(client: Client, number: int, change: int) -> None:
    """Change what is insecure, which may mean something to every rule: all of them are made anew."""
    path = "/apis/config.openshift.io/v1/images/cluster"
    sources = {"insecureRegistries": [f"insecure-{number * CHANGES + change}.example.com"]}
    client.request("PUT", path, body={**client.get(path), "spec": {"registrySources": sources}})


def _round(folder: Path, webhook: Webhook, change: Callable[[int], None]) -> _Round:
    """Reviews for as long as so many changes take."""
    began = _cpu(webhook)
    load = Load(webhook.url, reviews(1), folder, ca=webhook.authority.certificate, connections=CONNECTIONS, every=EVERY)
    for number in range(CHANGES):
        time.sleep(APART)
        change(number)
    time.sleep(APART)
    outcome = load.outcome()
    assert not outcome.failures, outcome.failures
    assert outcome.patched == outcome.reviews, "every pod is rewritten"
    return _Round(outcome, _cpu(webhook) - began)


def _cpu(webhook: Webhook) -> float:
    """CPU seconds of the webhook's process."""
    fields = Path(f"/proc/{webhook.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
