"""What a start costs: both programs until they are ready on an empty cluster, and the commands that a shell waits for."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from mirrorstream.kube.client import Client, load_client

from e2e.bench.bed import PROJECT, cpu_seconds, wait_up
from e2e.bench.figures import Figure
from e2e.testbed.programs.pod_credentials import PodController, PodWebhook, write_credentials
from e2e.testbed.programs.program import PROGRAM, Controller, Program, Webhook
from e2e.testbed.support.kubeconfig import write_kubeconfig
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.processes import Process
from e2e.testbed.support.waiting import wait_for

STARTS = 5
POD_LIMIT, COMMAND_LIMIT = 0.7, 0.15
HOW = f"User and kernel time of the process; the median of {STARTS} starts."
COMMANDS = {
    "--version": ("--version",),
    "completion of a word": ("__complete", "status", "-"),
    "explain with a file": ("explain", "registry.example.com/app:v1", "--file", "FILE"),
}
MIRRORS = """\
kind: ImageDigestMirrorSet
metadata: {name: mirrors}
spec: {imageDigestMirrors: [{source: registry.example.com, mirrors: [mirror.example.com]}]}
"""


def measure(folder: Path) -> list[Figure]:
    """In turns with and without the kubernetes package, which reads kubeconfigs."""
    folder = folder / "start"
    folder.mkdir()
    with ExitStack() as stack:
        client, kubeconfig, authority = _cluster(stack, folder)
        pod = write_credentials(folder / "pod", client, authority)
        starts: dict[str, Callable[[], Program]] = {
            "controller in a pod": lambda: PodController(
                None, folder, {}, "--no-leader-election", log_level="info", environment=pod
            ),
            "controller with a kubeconfig": lambda: Controller(kubeconfig, folder, {}, "--no-leader-election", log_level="info"),
            "webhook in a pod": lambda: PodWebhook(None, folder, {}, log_level="info", environment=pod),
            "webhook with a kubeconfig": lambda: Webhook(kubeconfig, folder, {}, log_level="info"),
        }
        figures = [_program(name, start) for name, start in starts.items()]
    (folder / "mirrors.yaml").write_text(MIRRORS, encoding="utf-8")
    return [*figures, *(_command(name, arguments, folder / "mirrors.yaml") for name, arguments in COMMANDS.items())]


def _cluster(stack: ExitStack, folder: Path) -> tuple[Client, Path, Path]:
    """A simulated cluster that speaks TLS, as an API server does: a client, its kubeconfig, and its authority's certificate."""
    port = free_port()
    authority = folder / "ca" / "ca.crt"
    command = [sys.executable, "-m", "e2e.testbed.simulator", "--port", str(port), "--authority-out", str(authority.parent)]
    simulator = Process("simulator", command, folder / "simulator.log", folder=PROJECT)
    stack.callback(simulator.kill)
    wait_for("the simulator has a certificate", authority.exists)
    kubeconfig = write_kubeconfig(folder / "kubeconfig", f"https://127.0.0.1:{port}", authority=authority)
    client = load_client(str(kubeconfig), in_cluster=False, user_agent="bench")
    wait_up(client)
    return client, kubeconfig, authority


def _program(name: str, start: Callable[[], Program]) -> Figure:
    seconds = []
    for _ in range(STARTS):
        program = start()
        try:
            program.wait_ready()
            seconds.append(cpu_seconds(program.process.pid))
        finally:
            program.process.kill()
    limit = POD_LIMIT if name.endswith("in a pod") else None
    return Figure(f"{name}, empty cluster: CPU until it is ready", median(seconds), "s", limit, _spread(seconds), HOW)


def _command(name: str, arguments: tuple[str, ...], file: Path) -> Figure:
    seconds = [_cpu_of([str(PROGRAM), *(str(file) if word == "FILE" else word for word in arguments)]) for _ in range(STARTS)]
    limit = None if "file" in name else COMMAND_LIMIT
    return Figure(f"mirrorstream {name}: CPU", median(seconds), "s", limit, _spread(seconds), HOW)


def _cpu_of(command: list[str]) -> float:
    """The CPU seconds of a command, which must succeed."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    return used.ru_utime + used.ru_stime


def _spread(seconds: list[float]) -> str:
    return f"{min(seconds):.2f} to {max(seconds):.2f} s"
