"""Building what a node consists of, and telling why a machine cannot run one."""

import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from e2e.testbed.controlplane.build import MODULE as CONTROL_PLANE
from e2e.testbed.support.gobuild import BUILD, BuildError, built_once, cache_folder, go, version

CRIO = Path(__file__).parent / "crio"
CRIO_MODULE = "github.com/cri-o/cri-o"
TAGS = "containers_image_ostree_stub containers_image_openpgp exclude_graphdriver_btrfs btrfs_noversion seccomp"
KUBERNETES = "v1.36.3"
KUBERNETES_BUILD = (*BUILD[:-1], f"{BUILD[-1]} -X k8s.io/component-base/version.gitVersion={KUBERNETES}")
"""A kubelet without a version is refused: the scheduler and the API server compare it with theirs."""
KUBERNETES_PROGRAMS = ("kube-scheduler", "kubelet")
PINNS_BUILD = ("gcc", "-std=c99", "-Os", "-static", "-s")
CNI_PLUGINS = Path("/usr/lib/cni")
BUSYBOX = Path("/usr/bin/busybox")
PACKAGES = {
    "runc": "runc",
    "conmon": "conmon",
    "gcc": "gcc",
    "ip": "iproute2",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    str(CNI_PLUGINS / "ptp"): "containernetworking-plugins",
    str(CNI_PLUGINS / "host-local"): "containernetworking-plugins",
    str(BUSYBOX): "busybox-static",
    "/usr/include/seccomp.h": "libseccomp-dev",
}
"""What has to be there, and Debian's package that brings it."""
HIERARCHIES = ("cpu", "cpuacct", "cpuset", "memory", "pids")
CGROUPS = Path("/sys/fs/cgroup")


@functools.cache
def missing() -> str:
    """Why no node can be run on this machine, in one line; empty if one can."""
    if not sys.platform.startswith("linux"):
        return f"a node needs Linux, and this is {platform.system()}"
    if os.geteuid():
        return "a node needs root"
    absent = {package for name, package in PACKAGES.items() if not (shutil.which(name) or Path(name).exists())}
    if absent:
        return f"a node needs Debian's packages {', '.join(sorted(absent))}"
    if hierarchies := [name for name in HIERARCHIES if not (CGROUPS / name / "tasks").exists()]:
        return f"a node needs the cgroup v1 hierarchies {', '.join(hierarchies)}"
    options = "lowerdir=/etc,upperdir=/run/etc,workdir=/run/work"
    script = f"mount -t tmpfs none /run && mkdir /run/etc /run/work && mount -t overlay -o {options} none /etc"
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"a node needs mount and PID namespaces: {done.stderr.strip()}"
    return ""


def programs() -> Path:
    """The folder of crio, pinns, kubelet and kube-scheduler, built now if this version never was. Raises BuildError."""
    own = version(CRIO, TAGS, PINNS_BUILD, KUBERNETES_BUILD, version(CONTROL_PLANE))
    return built_once(cache_folder() / "node" / own, _build)


def _build(folder: Path) -> None:
    started = time.monotonic()
    _say("building crio (once, one to two minutes on two cores) …")
    go(CRIO, *BUILD, "-tags", TAGS, "-o", str(folder / "crio"), f"{CRIO_MODULE}/cmd/crio", cgo=True)
    sources = Path(json.loads(go(CRIO, "mod", "download", "-json", CRIO_MODULE))["Dir"]) / "pinns" / "src"
    command = [*PINNS_BUILD, "-o", str(folder / "pinns"), *map(str, sorted(sources.glob("*.c")))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"pinns cannot be compiled: {done.stderr}")
    for program in KUBERNETES_PROGRAMS:
        _say(f"building {program} (once, up to four minutes on two cores) …")
        go(CONTROL_PLANE, *KUBERNETES_BUILD, "-o", str(folder / program), f"./cmd/{program}")
    _say(f"built in {time.monotonic() - started:.0f} s, in {folder}")


def _say(text: str) -> None:
    print(f"node: {text}", file=sys.stderr, flush=True)
