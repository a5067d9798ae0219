"""A Prometheus that scrapes and evaluates once a second, and what it says."""

import json
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.testbed.support.ports import free_port
from e2e.testbed.support.processes import Process
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """What is scraped: `host:port`, and the labels that it would have through a ServiceMonitor.

    `tls` is Prometheus' own tls_config, for HTTPS. With `own_labels` its series' labels win, as kube-state-metrics' do. It is
    scraped once in so many `seconds`.
    """

    address: str
    labels: dict[str, str]
    tls: Object | None = None
    own_labels: bool = False
    seconds: int = 1


class Prometheus:
    """A running one; a context manager that ends it. Its data is in `folder`."""

    def __init__(self, program: Path, folder: Path, targets: list[Target], rules: Object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
        config = {
            "global": {"evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [_scraped(number, target) for number, target in enumerate(targets)],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self._targets = len(targets)
        self.url = f"http://127.0.0.1:{free_port()}"
        command: list[str | Path] = [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--log.level=warn",
        ]
        self.process = Process("prometheus", command, folder / "prometheus.log")

    def __enter__(self) -> "Prometheus":
        self.process.wait_until("it is ready", lambda: bool(self._read("/-/ready")))
        # What has not been scraped before it is counted up is not seen to rise.
        wait_for("every target has been scraped", lambda: len(self.query("up")) == self._targets)
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()

    def _read(self, path: str, **params: str) -> bytes:
        query = f"?{urllib.parse.urlencode(params)}" if params else ""
        with urllib.request.urlopen(f"{self.url}{path}{query}", timeout=30) as answer:
            return bytes(answer.read())

    def ask(self, path: str, **params: str) -> Any:
        """The data that the HTTP API answers with. Raises URLError, also for a query that cannot be read."""
        return json.loads(self._read(f"/api/v1/{path}", **params))["data"]

    def query(self, expression: str) -> list[Object]:
        """The series that an expression has now: `metric` is its labels, `value` a time and a text."""
        found: list[Object] = self.ask("query", query=expression)["result"]
        return found

    def over(self, expression: str, start: float, end: float, step: float) -> list[Object]:
        """The series of an expression from `start` to `end` (Unix times): `values` is a list of times and texts."""
        params = {"query": expression, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        found: list[Object] = self.ask("query_range", **params)["result"]
        return found

    def alerts(self, state: str = "firing") -> list[Object]:
        """The alerts that are in a state now, with their labels and annotations."""
        return [alert for alert in self.ask("alerts")["alerts"] if alert["state"] == state]


def _scraped(number: int, target: Target) -> Object:
    tls = {"scheme": "https", "tls_config": target.tls} if target.tls else {}
    often = {"scrape_interval": f"{target.seconds}s", "scrape_timeout": f"{target.seconds}s"}
    where = {"targets": [target.address], "labels": target.labels}
    return {"job_name": f"target-{number}", "honor_labels": target.own_labels, "static_configs": [where], **often, **tls}
