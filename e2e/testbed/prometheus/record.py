"""Records what the dashboard's panels show of five hours of a cluster, each of which takes a minute.

    python -m e2e.testbed.prometheus.record FILE

`docs/pictures.py` draws it. What happens: 30 streams have failed; after a quarter of an hour an administrator names the mirror.
Teams add streams all the time, and pods that name their images. In the second hour the mirror lacks some images for a while; in the
fourth the leader is killed. Mirrors have the name that the guide's examples have.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from e2e.testbed.prometheus.board import Query, queries
from e2e.testbed.prometheus.pace import FASTER, expression, rules
from e2e.testbed.prometheus.package import NoPrometheusError, program
from e2e.testbed.prometheus.server import Prometheus
from e2e.testbed.prometheus.sites import Life, Site
from e2e.testbed.simulator import server as simulated
from e2e.testbed.streams import tag
from e2e.testbed.support.kustomize import CONFIG

MINUTES = 5 * 60
"""Of the recorded time; a second each, or more on a machine that is busy."""
STEP = 2
BEFORE, LACKING, LATE = 30, 8, 5
"""Streams that are there before, that the mirror lacks for a while, and how many tags of another prefix no rule covers."""
LABEL = "mirrorstream"
MIRROR = "mirror.example.com:5000"


class Story:
    """What happens in which minute."""

    def __init__(self, site: Site) -> None:
        self.site, user = site, site.user
        for number in range(BEFORE):
            user.put("good", f"before-{number}:v1")
            user.create(f"before-{number}", tag("v1", user.source(f"before-{number}:v1")))
        for number in range(LATE):
            user.create(f"foreign-{number}", tag("v1", f"{site.cluster.host('dead')}/elsewhere/app-{number}:v1"))
        for _ in range(3):
            site.deploy_controller("--namespace", site.home)
        self._webhook = site.deploy_webhook()
        site.wait_ready()
        self._life: Life | None = None
        self._lacking = [f"lacking-{number}" for number in range(LACKING)]

    def minute(self, number: int) -> None:
        """What happens in a minute."""
        user = self.site.user
        if number == 15:
            self._life = Life(self.site, self._webhook)
        if self._life and number % 6 == 0:
            self._life.go_on()
        for pod in range(1 + number % 3):
            user.pod(f"pod-{pod}", user.source(f"before-{(number + pod) % BEFORE}:v1"), dry_run=True)
        if number == 80:
            for name in self._lacking:
                user.create(name, tag("v1", user.source(f"{name}:v1")))
        if number == 140:
            for name in self._lacking:
                user.put("good", f"{name}:v1")
        if number == 200:
            leader = next(one for one in self.site.programs if one.metric("mirrorstream_leader"))
            leader.process.kill()


def _number(text: str) -> float | None:
    value = float(text)
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _series(prometheus: Prometheus, query: Query, start: float, end: float) -> dict[str, Any]:
    """A query's series as they are drawn: the labels, and a number for each step; None where there was none."""
    steps = int((end - start) / STEP) + 1
    lines = []
    for series in prometheus.over(expression(query.expression), start, end, STEP):
        values: list[float | None] = [None] * steps
        for at, text in series["values"]:
            values[round((at - start) / STEP)] = _number(text)
        labels = {name: MIRROR if name == "mirror" else value for name, value in series["metric"].items()}
        lines.append({"labels": labels, "values": values})
    return {"panel": query.panel, "legend": query.legend, "series": lines}


def record() -> dict[str, Any]:
    """Run it; what all panels show. Raises NoPrometheusError."""
    found = program()
    simulated.BOOKMARK_SECONDS = 1.0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mirrorstream-record-")))
        site = Site(LABEL, folder / LABEL, stack)
        story = Story(site)
        spec = yaml.safe_load((CONFIG / "components" / "monitoring" / "prometheus_rule.yaml").read_text(encoding="utf-8"))["spec"]
        prometheus = stack.enter_context(Prometheus(found, folder / "prometheus", site.targets, rules(spec)))
        began, start = time.monotonic(), time.time()
        for minute in range(MINUTES):
            story.minute(minute)
            time.sleep(max(0.0, began + minute + 1 - time.monotonic()))
        end = time.time()
        shown = [_series(prometheus, query, start, end) for query in queries()]
    return {"minutesPerStep": STEP, "faster": FASTER, "queries": shown}


def main() -> int:
    """Record into a file."""
    parser = argparse.ArgumentParser(prog="python -m e2e.testbed.prometheus.record", description=__doc__)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    try:
        recorded = record()
    except NoPrometheusError as error:
        print(f"The dashboard is not recorded: {error}", file=sys.stderr)
        return 1
    args.file.write_text(json.dumps(recorded, separators=(",", ":")) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
