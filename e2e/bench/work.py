"""How much work a review, a reconcile and the like are: counted, not timed, so that no busy machine disturbs it.

    python -m e2e.bench.work            # compares with the file; 1 if something grew by more than a tenth, or shrank by as much
    python -m e2e.bench.work --write    # writes what it is now into e2e/bench/work.json

Counted are the interpreter's instructions, in this project's code and in what it calls, and the most memory taken meanwhile.
What runs in C is one instruction, however long it takes: msgspec, regular expressions, sorting, json. Of that `make bench` tells.
"""

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

FILE = Path(__file__).with_name("work.json")
TOLERANCE = 0.1
WARM, TIMES = 3, 5
NOT_COUNTED = str(Path(__file__).parent)
"""The played surroundings."""
Measured = dict[str, dict[str, int]]
"""By task: `instructions` and `bytes`."""


def instructions(work: Callable[[int], object], times: int) -> int:
    """The interpreter's instructions for doing `work` so often, in this thread."""
    count = 0

    def inside(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return inside

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename.startswith(NOT_COUNTED):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return inside

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        for number in range(times):
            work(WARM + number)
    finally:
        sys.settrace(before)
    return count


def most_memory(work: Callable[[int], object], number: int) -> int:
    """Bytes that doing `work` once takes at most, above what there was before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work(number)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def measure() -> Measured:
    """Every task's counts, the same at every run of one Python minor version with the locked packages."""
    from mirrorstream import logs  # noqa: PLC0415  what is counted is imported with a fixed seed only

    from e2e.bench.tasks import tasks  # noqa: PLC0415

    logs.configure("error", "json")
    gc.disable()
    found: Measured = {}
    for task in tasks():
        work = task.make()
        for number in range(WARM):
            work(number)
        counted = instructions(work, TIMES)
        found[task.name] = {
            "instructions": round(counted / TIMES / task.per),
            "bytes": round(most_memory(work, WARM + TIMES) / task.per),
        }
    return found


def differences(known: Measured, found: Measured) -> list[str]:
    """What differs by more than the tolerance, and tasks that only one of them has; better counts are to be written down, too."""
    told = [f"{name}: only in one of both" for name in sorted(known.keys() ^ found.keys())]
    for name in known.keys() & found.keys():
        for what, before in known[name].items():
            now = found[name][what]
            if abs(now - before) > TOLERANCE * before:
                told.append(f"{name}: {now:,} {what}, {before:,} in the file ({(now - before) / max(before, 1):+.0%})")
    return sorted(told)


def minor() -> str:
    """The minor version of the Python that runs: each has instructions of its own."""
    return ".".join(platform.python_version_tuple()[:2])


def known() -> dict[str, Measured]:
    """The file's content, by Python minor version."""
    content: dict[str, Measured] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return content


def main() -> int:
    """Compare, or write."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench.work", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name} instead of comparing with it")
    parser.add_argument("--json", action="store_true", help="print what was counted, and compare with nothing")
    args = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets decides a few instructions.
        again = [sys.executable, "-m", "e2e.bench.work", *sys.argv[1:]]
        return subprocess.run(again, env={**os.environ, "PYTHONHASHSEED": "0"}, check=False).returncode
    found, content = measure(), known()
    if args.json:
        print(json.dumps(found))
        return 0
    for name, counts in found.items():
        print(f"{name:48} {counts['instructions']:>9,} instructions {counts['bytes']:>9,} bytes")
    if args.write:
        FILE.write_text(json.dumps({**content, minor(): found}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    if minor() not in content:
        print(f"{FILE.name} has nothing for Python {minor()}", file=sys.stderr)
        return 0
    changed = differences(content[minor()], found)
    print("\n".join(changed), file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
