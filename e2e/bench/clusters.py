"""`status --all-contexts` of many clusters: how long somebody waits for it."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import yaml
from mirrorstream.kube.client import Client, load_client

from e2e.bench.bed import PROJECT, UNCOVERED, mirrored, namespace_of, store, stream, wait_up
from e2e.bench.figures import Figure
from e2e.testbed.programs.program import PROGRAM
from e2e.testbed.support.kubeconfig import write_kubeconfig
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.processes import Process

CLUSTERS = 50
STREAMS, FAILING = 54, 18
"""In each cluster, about as many tags as the shipped samples have; the last tag of the first streams fails."""
RUNS = 3
LIMIT_SECONDS = 10.0


def measure(folder: Path) -> list[Figure]:
    """From the command's start to its end, the answers of all clusters included."""
    folder = folder / "clusters"
    folder.mkdir()
    with ExitStack() as stack:
        servers = [_started(stack, folder / str(number)) for number in range(CLUSTERS)]
        for number, server in enumerate(servers):
            _filled(load_client(str(write_kubeconfig(folder / f"{number}.yaml", server)), in_cluster=False, user_agent="bench"))
        kubeconfig = _contexts(folder / "kubeconfig", servers)
        runs = [_run(kubeconfig) for _ in range(RUNS)]
    seconds, cpu = (sorted(run[index] for run in runs) for index in (0, 1))
    beside = f"{seconds[0]:.1f} to {seconds[-1]:.1f} s; {median(cpu):.1f} s of its own CPU"
    how = f"Each cluster is a simulator, a process of its own, with {STREAMS} streams; the median of {RUNS} runs."
    return [Figure(f"status of {CLUSTERS} clusters", median(seconds), "s", LIMIT_SECONDS, beside, how)]


def _started(stack: ExitStack, folder: Path) -> str:
    """The URL of a simulator that starts."""
    folder.mkdir()
    port = free_port()
    command = [sys.executable, "-m", "e2e.testbed.simulator", "--port", str(port)]
    stack.callback(Process("simulator", command, folder / "simulator.log", folder=PROJECT).kill)
    return f"http://127.0.0.1:{port}"


def _filled(client: Client) -> None:
    wait_up(client)
    mirrored(client, UNCOVERED, "mirror.example.com/m")
    for number in range(STREAMS):
        client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace_of(number)}})
    store(client, (stream(number, "registry.example.com", failing=number < FAILING) for number in range(STREAMS)))


def _contexts(path: Path, servers: list[str]) -> Path:
    names = {f"cluster-{number}": server for number, server in enumerate(servers)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server}} for name, server in names.items()],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in names],
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def _run(kubeconfig: Path) -> tuple[float, float]:
    """The seconds, and those of CPU, of one run. Raises AssertionError if it told of less than all clusters."""
    command = [str(PROGRAM), "status", "--all-contexts", "--kubeconfig", str(kubeconfig)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    out = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 3, out
    assert out.startswith(f"{CLUSTERS} clusters: {CLUSTERS} with failing tags\n"), out
    return seconds, used.ru_utime + used.ru_stime
