"""What a node has of the machine that no other node may have: addresses and the name of its cgroups.

Several test runs may have a node at the same time.
"""

import contextlib
import socket
from dataclasses import dataclass

SLOTS = range(1, 100)


class NoSlotError(Exception):
    """Every slot is taken."""


@dataclass(frozen=True)
class Slot:
    """One of them. `lock` keeps it as long as any process has it open; the kernel lets go of it."""

    number: int
    lock: socket.socket

    @staticmethod
    def take() -> "Slot":
        """The first that is free. Raises NoSlotError."""
        for number in SLOTS:
            lock = socket.socket(socket.AF_UNIX)
            try:
                lock.bind(f"\0mirrorstream-node-{number}")
            except OSError:
                lock.close()
                continue
            return Slot(number, lock)
        raise NoSlotError(f"{len(SLOTS)} nodes run on this machine")

    def release(self) -> None:
        """Let another one have it."""
        with contextlib.suppress(OSError):
            self.lock.close()

    @property
    def cgroup(self) -> str:
        """The node's own cgroup, in every hierarchy."""
        return f"mirrorstream-node-{self.number}"

    @property
    def address(self) -> str:
        """The node's. A kubelet accepts no loopback address."""
        return f"10.250.{self.number}.1"

    @property
    def pods(self) -> str:
        """The range of pods' addresses."""
        return f"10.251.{self.number}.0/24"

    @property
    def gateway(self) -> str:
        """The machine's end of each pod's link."""
        return f"10.251.{self.number}.1"

    @property
    def services(self) -> str:
        """The range of Services' addresses."""
        return f"10.252.{self.number}.0/24"
