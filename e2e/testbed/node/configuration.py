"""The files of a node. Nothing here reads or starts anything."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from e2e.testbed.node.slot import Slot

SOCKET = "/run/crio/crio.sock"
KUBELET_PORT = 10250
DEAD_NAMES = (
    "docker.io",
    "registry-1.docker.io",
    "quay.io",
    "ghcr.io",
    "registry.redhat.io",
    "registry.example.com",
    "upstream.example.com",
)
"""Upstreams that cannot be reached: their names lead to ports of this machine that refuse connections."""
SYSCTLS = {
    "vm/overcommit_memory": "1",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
    "net/ipv4/ip_forward": "0",
}
"""What a kubelet and a CNI plugin set for the whole machine: they are shown files of their own, and the machine stays as it is.

The kubelet finds its values there. Nothing is forwarded between pods; they reach each other by Services, whose proxy is a process.
"""
RUNTIME = """#!/bin/sh
# runc, for containers whose processes want to be killed last: without the capability sys_resource that cannot be had.
bundle=
previous=
for argument; do
    case $previous in --bundle|-b) bundle=$argument ;; esac
    previous=$argument
done
[ -z "$bundle" ] || sed -i 's/"oomScoreAdj": *-[0-9]*/"oomScoreAdj": 0/' "$bundle/config.json"
exec runc "$@"
"""


def crio(folder: Path, programs: Path, pause_image: str, cni_plugins: Path) -> str:
    """crio.conf. `folder` has the runtime's wrapper and the networks; the paths below /run and /var are the node's own."""
    return f"""
[crio]
root = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
storage_driver = "overlay"
log_dir = "/var/log/crio/pods"
version_file = "/run/crio/version"
version_file_persist = ""
clean_shutdown_file = ""

[crio.api]
listen = "{SOCKET}"
stream_address = "127.0.0.1"
stream_port = "0"

[crio.runtime]
default_runtime = "runc"
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
pinns_path = "{programs / "pinns"}"
namespaces_dir = "/run/crio/namespaces"
container_exits_dir = "/run/crio/exits"
container_attach_socket_dir = "/run/crio"
hooks_dir = []
log_level = "info"

[crio.runtime.runtimes.runc]
runtime_path = "{folder / "runtime"}"
runtime_root = "/run/runc"
monitor_cgroup = "pod"

[crio.image]
pause_image = "{pause_image}"
signature_policy = "/etc/containers/policy.json"
signature_policy_dir = "/etc/crio/policies"
big_files_temporary_dir = "/run"

[crio.network]
network_dir = "{folder / "networks"}"
plugin_dirs = ["{cni_plugins}"]

[crio.nri]
enable_nri = false
"""


def network(slot: Slot) -> str:
    """The CNI network of pods: one link to the machine each, no translation of addresses."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": slot.pods, "gateway": slot.gateway}]], "dataDir": "/run/cni"}
    plugin = {"type": "ptp", "ipMasq": False, "ipam": {**ipam, "routes": [{"dst": "0.0.0.0/0"}]}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]})


def kubelet(slot: Slot) -> dict[str, Any]:
    """KubeletConfiguration. Everybody on this machine may ask it everything, as for logs and exec kube-apiserver does."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": slot.address,
        "port": KUBELET_PORT,
        "healthzBindAddress": slot.address,
        "readOnlyPort": 0,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{slot.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "protectKernelDefaults": True,
        "makeIPTablesUtilChains": False,
        "localStorageCapacityIsolation": False,
        "evictionHard": dict.fromkeys(("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "resolvConf": "/etc/resolv.conf",
        "staticPodPath": "/etc/kubernetes/manifests",
        # As the machine-config operator sets them.
        "maxPods": 250,
        "serializeImagePulls": False,
        "kubeAPIQPS": 50,
        "kubeAPIBurst": 100,
    }


def kubelet_arguments(configuration: Path, kubeconfig: Path, slot: Slot, name: str) -> list[str]:
    """The kubelet's command line, but for the program."""
    return [
        f"--config={configuration}",
        f"--kubeconfig={kubeconfig}",
        f"--node-ip={slot.address}",
        f"--hostname-override={name}",
        "--root-dir=/var/lib/kubelet",
        "--cert-dir=/var/lib/kubelet/pki",
        "--v=2",
    ]


def scheduler_arguments(kubeconfig: Path, port: int, folder: Path) -> list[str]:
    """The scheduler's command line, but for the program."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder}",
        "--leader-elect=false",
    ]


def hosts(names: Iterable[str]) -> str:
    """/etc/hosts: `names` and the dead upstreams are this machine; there is no DNS."""
    return f"127.0.0.1 localhost\n127.0.0.1 {' '.join([*names, *DEAD_NAMES])}\n"


def etc(names: Iterable[str], authorities: Mapping[str, str], registries: str, policy: str) -> dict[str, str]:
    """The files that lie over the machine's /etc, by path. `authorities` are the CAs of registries by `host:port`, as PEM."""
    return {
        "hosts": hosts(names),
        "resolv.conf": "",
        "containers/registries.conf": registries,
        "containers/policy.json": policy,
        "kubernetes/manifests/.keep": "",
        **{f"containers/certs.d/{host}/ca.crt": text for host, text in authorities.items()},
    }
