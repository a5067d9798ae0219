"""What the two programs really expose: their registries, taken from the programs as they are wired, with nothing behind them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirrorstream.runtime.settings import SettingsFile
from mirrorstream_controller.failing_tags import FailingState
from mirrorstream_controller.manager import Manager as ControllerManager
from mirrorstream_webhook.manager import Manager as WebhookManager
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from e2e.testbed.support.certificates import Authority
from e2e.testbed.support.kubeconfig import write_kubeconfig

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
PROGRAMS = ("controller", "webhook")


@dataclass
class Exposed:
    """A metric: who has it, and what Prometheus is told of it."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    programs: list[str] = field(default_factory=list)

    def series(self) -> Iterator[str]:
        """The names under which its samples are found."""
        for suffix in SUFFIXES[self.kind]:
            yield self.name.removesuffix("_total") + suffix


class Registries:
    """The registries of a leading controller and of a webhook, both serving over TLS."""

    def __init__(self, folder: Path) -> None:
        kubeconfig = str(write_kubeconfig(folder / "kubeconfig", "http://127.0.0.1:1"))
        pair = Authority(folder, "ca").issue("localhost", hosts=("localhost",))
        certificate, key = str(pair.certificate), str(pair.key)
        served: dict[str, Any] = {"metrics_port": 0, "metrics_certificate": certificate, "metrics_key": key}
        controller = ControllerManager(SettingsFile(None), kubeconfig=kubeconfig, **served)
        # As a leader that has one covered tag to heal: some gauges are the leader's, one is there only while a tag fails.
        controller._leading = True
        controller._reconciler.failing.put(("ns", "app"), [FailingState.FAILING], 1.0)
        webhook = WebhookManager(
            SettingsFile(None), kubeconfig=kubeconfig, port=0, certificate_file=certificate, key_file=key, **served
        )
        # As the replica that mends pending pods.
        webhook._pending_pods.election.leading = True
        self.controller, self.webhook = controller, webhook
        self.registries = {"controller": controller.metrics.registry, "webhook": webhook.metrics.registry}

    def close(self) -> None:
        """Give the ports back."""
        for manager in (self.controller, self.webhook):
            manager._health._server.server_close()
        self.webhook._server.stop()

    def text(self, program: str) -> str:
        """What a scrape of `program` gets."""
        return generate_latest(self.registries[program]).decode()

    def exposed(self) -> dict[str, Exposed]:
        """Every metric of ours, by name."""
        found: dict[str, Exposed] = {}
        for program, registry in self.registries.items():
            for metric in _metrics(registry):
                if metric.name.startswith("mirrorstream_"):
                    found.setdefault(metric.name, metric).programs.append(program)
        return dict(sorted(found.items()))


def _metrics(registry: CollectorRegistry) -> Iterator[Exposed]:
    for collector in list(registry._collector_to_names):
        for family in collector.collect():
            labels = collector._labelnames if isinstance(collector, MetricWrapperBase) else _labels(family)
            yield Exposed(
                family.name + ("_total" if family.type == "counter" else ""), family.type, family.documentation, tuple(labels)
            )


def _labels(family: Metric) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le"))


@contextmanager
def registries(folder: Path) -> Iterator[Registries]:
    """Both programs' registries, with files in `folder`."""
    found = Registries(folder)
    try:
        yield found
    finally:
        found.close()
