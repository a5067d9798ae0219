"""What a node needs outside of its namespaces, and the end of everything: addresses, routes, cgroups.

It is a process of its own, so that it can clean up after a test run that was killed: it ends when its standard input does. It
prints the ID of the node's first process when that runs.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from e2e.testbed.node.build import CGROUPS
from e2e.testbed.support.waiting import PATIENCE

PROJECT = Path(__file__).parents[3]
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
COPIED = ("cpuset.cpus", "cpuset.mems")
"""A new cpuset is empty, and takes no process."""


@dataclass(frozen=True)
class Place:
    """What is the node's on this machine; see `Slot`."""

    cgroup: str
    address: str
    gateway: str
    services: str

    def prepare(self) -> None:
        """Add the addresses and cgroups. What a keeper that was killed has left is taken over."""
        self._ip("address", "replace", f"{self.address}/32", "dev", "lo")
        self._ip("route", "replace", "local", self.services, "dev", "lo")
        for group in self.cgroups():
            group.mkdir(exist_ok=True)
            for name in COPIED:
                if (group / name).exists():
                    (group / name).write_bytes((group.parent / name).read_bytes())

    def clean(self) -> list[str]:
        """Remove them; what could not be removed."""
        left = [str(group) for group in self.cgroups() if not _soon(partial(_remove_tree, group))]
        # The kernel takes the links of pods away some time after their network namespaces.
        if not _soon(lambda: self.gateway not in self._ip("-4", "-oneline", "address", "show")):
            left.append(f"links with {self.gateway}")
        with contextlib.suppress(subprocess.CalledProcessError):
            self._ip("route", "delete", "local", self.services, "dev", "lo")
        with contextlib.suppress(subprocess.CalledProcessError):
            self._ip("address", "delete", f"{self.address}/32", "dev", "lo")
        return left

    def cgroups(self) -> Iterator[Path]:
        """The node's own, one in each hierarchy that is mounted."""
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
            _, where, kind, *_ = line.split(" ")
            if kind in ("cgroup", "cgroup2") and Path(where).is_relative_to(CGROUPS):
                yield Path(where) / self.cgroup

    @staticmethod
    def _ip(*arguments: str) -> str:
        return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def _soon(done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _remove_tree(group: Path) -> bool:
    """Remove a cgroup and those below it; whether it is gone."""
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):  # a process in it is still ending
            Path(folder).rmdir()
    return not group.exists()


def _child(pid: int) -> int:
    """The only child of a process, as soon as it has one; 0 when it has ended without."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    children: list[str] = []

    def has_child() -> bool:
        try:
            children[:] = path.read_text(encoding="ascii").split()
        except OSError:
            return True
        return bool(children)

    _soon(has_child)
    return int(children[0]) if children else 0


def main() -> int:
    """Run until the end of standard input, or of the node."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    place = Place(**plan["place"])
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda signum, frame: ended.set())
    try:
        place.prepare()
        with Path(plan["logs"], "node.log").open("ab") as log:
            tied = ["setpriv", "--pdeathsig", "KILL", "--", *UNSHARE]
            command = [*tied, sys.executable, "-m", "e2e.testbed.node.inside", sys.argv[1]]
            node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=PROJECT)
        first = _child(node.pid)
        handle = os.pidfd_open(first) if first else -1
        print(first, flush=True)

        def wait_for_input() -> None:
            while os.read(0, 1024):
                pass
            ended.set()

        def wait_for_node() -> None:
            node.wait()
            ended.set()

        for work in (wait_for_input, wait_for_node):
            threading.Thread(target=work, daemon=True).start()
        ended.wait()
        if first:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        # unshare waits for it, and it ends only after all processes of its namespace have.
        node.wait(PATIENCE)
    finally:
        left = place.clean()
    if left:
        print(f"node: cannot remove {', '.join(left)}", file=sys.stderr)
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
