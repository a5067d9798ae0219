"""5,000 tags that fail at once: at which rate they heal, what that costs the controller, and what keeps it from being more."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mirrorstream.settings import Settings

from e2e.bench.bed import Bed
from e2e.bench.figures import Figure
from e2e.bench.population import NAMESPACES, failed, name_of, namespace_of, spec_tag, whole
from e2e.bench.usage import cpu_seconds
from e2e.bench.watcher import Watcher
from e2e.scenarios.program import Controller
from e2e.waiting import wait_for

STREAMS, TAGS = 500, 10
CPU_LIMIT = 5.0
SOURCE = "registry.example.com"
UNLIMITED = 10_000
"""The highest limit of requests that the configuration takes; nothing reaches it here."""
SECONDS = 300


def measure(folder: Path) -> list[Figure]:
    """With the configuration as it comes, and with no limit on requests, which shows the next one."""
    rate = Settings().controller.apiRequestsPerSecond
    return [*_heal(folder / "limited", rate), *_heal(folder / "unlimited", UNLIMITED)]


def _streams() -> Iterator[dict[str, Any]]:
    for number in range(STREAMS):
        source = f"{SOURCE}/team/{name_of(number)}"
        tags = [f"v{tag}" for tag in range(TAGS)]
        yield whole(number, [spec_tag(source, tag) for tag in tags], [failed(source, tag) for tag in tags])


def _heal(folder: Path, rate: float) -> list[Figure]:
    total = STREAMS * TAGS
    with ExitStack() as stack:
        bed = Bed(stack, folder, source=SOURCE)
        bed.namespaces(namespace_of(number) for number in range(NAMESPACES))
        for number in range(STREAMS):
            for tag in range(TAGS):
                bed.mirror.put(f"m/team/{name_of(number)}", f"v{tag}", seed=f"{number}/{tag}")
        configuration = {"controller": {"apiRequestsPerSecond": rate}}
        controller = Controller(bed.kubeconfig, folder, configuration, "--no-leader-election", log_level="info")
        stack.callback(controller.process.kill)
        controller.wait_ready()
        watcher = Watcher(bed.client)
        stack.callback(watcher.stop)
        pids = controller.process.pid, bed.simulator.pid
        mark, before, began, own = bed.mark(), [cpu_seconds(pid) for pid in pids], time.monotonic(), time.process_time()
        bed.store(_streams())
        simulated = cpu_seconds(bed.simulator.pid) - before[1]
        wait_for("all heal", lambda: len(watcher.healed) == total, seconds=SECONDS, step=0.1)
        seconds = max(watcher.healed.values()) - began
        own = time.process_time() - own
        cpu, simulator = (cpu_seconds(pid) - used for pid, used in zip(pids, before, strict=True))
        requests = len(bed.requests(mark, "^mirrorstream-controller"))
    simulator -= simulated
    unlimited = rate == UNLIMITED
    asked = f"{requests / seconds:.0f} requests a second" + (
        "" if unlimited else f" of {rate:g} (apiRequestsPerSecond) after a burst"
    )
    shares = {"mirrorstream": cpu, "the simulator": simulator, "mirror and watch": own}
    told = f"{asked}; of a core use " + ", ".join(f"{who} {used / seconds:.0%}" for who, used in shares.items())
    name = f"{total:,} tags failing together" + (", with no limit on requests" if unlimited else "")
    how = f"{STREAMS} streams of {TAGS} tags appear on the simulator as failed, the controller running; a watch sees the heals."
    figures = [Figure(f"{name}: healed", total / seconds, "tags a second", None, told, how)]
    told = f"the simulator's {simulator / total * 1e3:.1f} ms; {requests / total:.2f} requests"
    how = "User and kernel time of the process from the moment before the streams appeared to the last heal, its start excluded."
    return [*figures, Figure(f"{name}: the controller's CPU for each", cpu / total * 1e3, "ms", CPU_LIMIT, told, how)]
