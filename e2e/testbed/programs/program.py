"""mirrorstream as a process of its own, as it runs in a cluster."""

import contextlib
import http.client
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from e2e.testbed.support.certificates import Authority, Pair
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.processes import Process
from e2e.testbed.support.waiting import wait_for

Running = TypeVar("Running", bound="Program")
PROGRAM = Path(sys.executable).parent / "mirrorstream"
RELEASED = Path(__file__).parent / "released"
"""On a program's PYTHONPATH, it hides what only tests need."""


class Program:
    """A running `mirrorstream COMMAND`; `port` is that of its metrics. Without a kubeconfig it has a pod's credentials."""

    executable: tuple[str, ...] = (str(PROGRAM),)

    def __init__(
        self,
        name: str,
        kubeconfig: Path | None,
        folder: Path,
        configuration: dict[str, Any],
        *arguments: str,
        log_level: str = "debug",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = free_port()
        self.log_file = folder / f"{name}-{self.port}.log"
        self.config_file = folder / f"config-{self.port}.yaml"
        self.configure(configuration)
        command = [*self.executable, name, *(["--kubeconfig", str(kubeconfig)] if kubeconfig else [])]
        command += [
            "--config",
            str(self.config_file),
            "--metrics-port",
            str(self.port),
            "--log-level",
            log_level,
            "--log-format",
            "json",
        ]
        variables = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "PYTHONPATH": str(RELEASED), **(environment or {})}
        self.process = Process(name, [*command, *arguments], self.log_file, environment=variables)

    def configure(self, configuration: dict[str, Any]) -> None:
        """Write the configuration file; a running program reloads it."""
        self.config_file.write_text(yaml.safe_dump(configuration), encoding="utf-8")

    def get(self, path: str, *, seconds: float = 30) -> tuple[int, str]:
        """GET from the metrics port, waiting so long for an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ready(self) -> bool:
        """Whether it says that it is ready. Raises AssertionError when it has ended."""
        assert self.process.ended is None, f"the {self.name} ended with {self.process.ended}:\n{self.log()}"
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def wait_ready(self) -> None:
        """Wait until it is ready."""
        wait_for(f"the {self.name} is ready", self.ready)

    def threads(self) -> int:
        """How many threads it has."""
        return self._status("Threads")

    def memory(self) -> float:
        """The memory that it has resident, in MiB."""
        return self._status("VmRSS") / 1024

    def peak_memory(self) -> int:
        """The most memory that it has had resident, in MiB."""
        return self._status("VmHWM") // 1024

    def forget_peak(self) -> int:
        """Start the measurement again with the memory that it has now, in MiB."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")
        return self.peak_memory()

    def _status(self, name: str) -> int:
        """A number that the kernel has about it."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:"))

    def log(self) -> str:
        """Everything that it has logged."""
        return self.process.log()

    def lines(self, message: str) -> list[dict[str, Any]]:
        """The log lines with a message."""
        whole = self.log().rpartition("\n")[0]  # the last one may still be being written
        parsed = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in parsed if line.get("message") == message]

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric, summed over the labels that are not named."""
        wanted = [f'{key}="{label}"' for key, label in labels.items()]
        return sum(value for series, value in self.series(name).items() if all(label in series for label in wanted))

    def series(self, name: str) -> dict[str, float]:
        """A metric's values at one moment, by name and labels as they are exposed."""
        lines = [line.rpartition(" ") for line in self.get("/metrics")[1].splitlines()]
        return {series: float(value) for series, _, value in lines if series.partition("{")[0] == name}

    def stop(self) -> int:
        """SIGTERM; the exit status. Raises when it does not end."""
        return self.process.stop()


class Controller(Program):
    """A running `mirrorstream controller`."""

    def __init__(
        self,
        kubeconfig: Path | None,
        folder: Path,
        configuration: dict[str, Any],
        *arguments: str,
        log_level: str = "debug",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("controller", kubeconfig, folder, configuration, *arguments, log_level=log_level, environment=environment)


class Webhook(Program):
    """A running `mirrorstream webhook`, with a certificate for localhost, or other `hosts`, of an authority of its own."""

    def __init__(
        self,
        kubeconfig: Path | None,
        folder: Path,
        configuration: dict[str, Any],
        *arguments: str,
        log_level: str = "debug",
        authority: Authority | None = None,
        hosts: tuple[str, ...] = ("localhost",),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.admission_port = free_port()
        self._hosts = hosts
        self.authority = authority or Authority(folder / f"webhook-{self.admission_port}", "webhook-authority")
        pair = self.renew()
        files = ("--tls-cert-file", str(pair.certificate), "--tls-key-file", str(pair.key))
        port = ("--port", str(self.admission_port))
        chosen = (*port, *files, *arguments)
        super().__init__("webhook", kubeconfig, folder, configuration, *chosen, log_level=log_level, environment=environment)

    def renew(self) -> Pair:
        """Put a new certificate into its files."""
        return self.authority.issue(f"webhook-{self.admission_port}", hosts=self._hosts)

    @property
    def url(self) -> str:
        """Where reviews are posted to."""
        return f"https://localhost:{self.admission_port}/mutate-pods"

    def stop(self) -> int:
        """SIGINT, which does not drain; the exit status."""
        self.process.send(signal.SIGINT)
        return self.process.wait(10)


@contextlib.contextmanager
def running(program: Running) -> Iterator[Running]:
    """A program that is ready; it must end with 0 when it is told to, and may not have failed inside."""
    try:
        program.wait_ready()
        yield program
        if program.process.ended is None:
            status = program.stop()
            assert status == 0, f"exit status {status}:\n{program.log()}"
        assert "Traceback" not in program.log(), program.log()
        assert '"exception"' not in program.log(), program.log()
    finally:
        program.process.kill()
