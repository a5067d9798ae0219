"""PID 1 of a node, in mount and PID namespaces of its own: mounts, CRI-O, the kubelet; then it reaps what has ended.

When it ends, the kernel ends every process of the node, with its mounts and its pods' network namespaces.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

START_SECONDS = 30
# Everything that the node writes at paths that its programs do not let us choose, or that are too long for sockets elsewhere.
OWN = ("/run", "/var/lib", "/var/log")
HUGE_PAGES = Path("/sys/kernel/mm/hugepages")


def main() -> int:
    """Run until CRI-O or the kubelet ends. The argument names a file: see `Node`."""
    plan: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    _mount(plan)
    crio = _start("crio", plan)
    deadline = time.monotonic() + START_SECONDS
    while not Path(plan["socket"]).exists():
        if crio.poll() is not None or time.monotonic() > deadline:
            print(f"node: CRI-O does not serve; exit status {crio.poll()}", file=sys.stderr)
            return 1
        time.sleep(0.02)
    kubelet = _start("kubelet", plan)
    own = {crio.pid: "CRI-O", kubelet.pid: "the kubelet"}
    while True:
        pid, status = os.wait()
        if pid in own:
            print(f"node: {own[pid]} ended with {os.waitstatus_to_exitcode(status)}", file=sys.stderr)
            return 1


def _mount(plan: dict[str, Any]) -> None:
    _run("mount", "--make-rshared", "/")
    for path in OWN:
        _tmpfs(path)
    if HUGE_PAGES.exists():
        # Without the hierarchy hugetlb runc cannot set a limit for the sizes that it sees here.
        _tmpfs(HUGE_PAGES)
    for index, (name, value) in enumerate(plan["sysctls"].items()):
        file = Path(f"/run/sysctl-{index}")
        file.write_text(f"{value}\n", encoding="ascii")
        _run("mount", "--bind", file, f"/proc/sys/{name}")
    for name in ("etc", "etc.work"):
        Path("/run", name).mkdir()
    _run("mount", "-t", "overlay", "-o", "lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work", "node", "/etc")
    # In a container these are mounts, and may be links elsewhere.
    for file in (Path("/etc/hosts"), Path("/etc/resolv.conf")):
        while file.is_mount():
            _run("umount", file)
        file.unlink(missing_ok=True)
    shutil.copytree(plan["etc"], "/etc", dirs_exist_ok=True)


def _tmpfs(path: str | Path) -> None:
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "node", path)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def _start(name: str, plan: dict[str, Any]) -> subprocess.Popen[bytes]:
    with Path(plan["logs"], f"{name}.log").open("ab") as log:
        return subprocess.Popen(plan[name], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(main())
