"""What a process uses, as the kernel counts it: /proc, so Linux only."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """The CPU time of all its threads so far, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int) -> float:
    """Its resident set, in MB (10^6 bytes)."""
    return _kilobytes(pid, "VmRSS") * 1024 / 1e6


def resident_peak(pid: int) -> float:
    """The largest that its resident set has been, in MB."""
    return _kilobytes(pid, "VmHWM") * 1024 / 1e6


def _kilobytes(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
