"""What a Prometheus would have scraped of the day, and whether an alert would have fired: promtool evaluates the rules over it."""

import subprocess
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from e2e.testbed.support.kustomize import CONFIG
from tests.day.clock import START

RULE = CONFIG / "components" / "monitoring" / "prometheus_rule.yaml"
CHECKED_MINUTES = 5
"""How often it is asked whether an alert fires: each has to hold for at least so long."""


class Recording:
    """The controller's metrics, scraped once in every step of so many minutes; promtool's time begins with the day."""

    def __init__(self, step: int) -> None:
        self._step, self._scrapes = step, 0
        self._series: dict[str, dict[int, float]] = {}

    def scrape(self, registry: CollectorRegistry, replica: int) -> None:
        """Take what the controller exposes now; `replica` tells one that was restarted from the one before."""
        target = {"namespace": "mirrorstream", "service": "mirrorstream-controller", "pod": f"controller-{replica}"}
        self._put("up", target, 1.0)
        for metric in registry.collect():
            for sample in metric.samples:
                if sample.name.startswith("mirrorstream_"):
                    value = sample.value - START if "timestamp" in sample.name else sample.value
                    self._put(sample.name, {**target, **sample.labels}, value)
        self._scrapes += 1

    def _put(self, name: str, labels: dict[str, str], value: float) -> None:
        written = ", ".join(f'{key}="{label}"' for key, label in labels.items())
        self._series.setdefault(f"{name}{{{written}}}", {})[self._scrapes] = value

    def _values(self, samples: dict[int, float]) -> str:
        """In promtool's notation: what is not there any more is stale at once."""
        return " ".join(
            f"{samples[scrape]:.6f}" if scrape in samples else "stale" if scrape - 1 in samples else "_"
            for scrape in range(self._scrapes)
        )

    def fired(self, promtool: str, folder: Path) -> str:
        """What promtool says of alerts that fired in the day, and of rules that it cannot read; empty if there are none."""
        spec = yaml.safe_load(RULE.read_text(encoding="utf-8"))["spec"]
        (folder / "rules.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
        names = [rule["alert"] for group in spec["groups"] for rule in group["rules"]]
        times = range(0, self._scrapes * self._step, CHECKED_MINUTES)
        asked = [{"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []} for name in names for minute in times]
        test: dict[str, Any] = {
            "interval": f"{self._step}m",
            "input_series": [{"series": name, "values": self._values(samples)} for name, samples in self._series.items()],
            "alert_rule_test": asked,
        }
        document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
        (folder / "day.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        done = subprocess.run([promtool, "test", "rules", "day.yaml"], cwd=folder, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr
