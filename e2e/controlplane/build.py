"""Building the real components, once for each version of their sources."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODULE = Path(__file__).parent
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
OPENSHIFT_API = "github.com/openshift/api"
DEFINITIONS = {
    "config/v1": ("imagedigestmirrorsets", "imagetagmirrorsets", "images", "imagepolicies", "clusterimagepolicies"),
    "operator/v1alpha1": ("imagecontentsourcepolicies",),
    "quota/v1": ("clusterresourcequotas",),
    "security/v1": ("securitycontextconstraints",),
    "securityinternal/v1": ("rangeallocations",),
    "samples/v1": ("configs",),
}
"""Custom resources, by the folder of the module that defines them; the last four are what openshift-apiserver asks for."""
_BUILD = ("build", "-trimpath", "-ldflags", "-s -w")


class BuildError(Exception):
    """The components cannot be built; the text says why, in a way that can be shown to people."""


class GoMissingError(BuildError):
    """There is no Go on this machine."""


def components() -> Path:
    """The folder of the programs and custom resource definitions, built now if this version never was. Raises BuildError."""
    folder = cache_folder() / "controlplane" / version()
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / "lock"):
            if not (folder / "done").exists():
                _build(folder)
    return folder


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/mirrorstream`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mirrorstream"


def version() -> str:
    """What the sources are called: a digest of everything that decides what is built."""
    digest = hashlib.sha256(repr((_BUILD, DEFINITIONS)).encode())
    for path in sorted([*MODULE.glob("go.*"), *MODULE.glob("**/*.go")]):
        digest.update(path.relative_to(MODULE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def go() -> str:
    """The Go command. Raises GoMissingError."""
    found = shutil.which("go")
    if not found:
        raise GoMissingError("the real control plane is built with Go, and there is no `go` on the PATH")
    return found


def _build(folder: Path) -> None:
    command = go()
    started = time.monotonic()
    for number, program in enumerate(PROGRAMS, 1):
        _say(f"building {program} ({number} of {len(PROGRAMS)}; all of them took about five minutes once, on two cores) …")
        _run(command, *_BUILD, "-o", str(folder / program), f"./cmd/{program}")
    module = Path(json.loads(_run(command, "mod", "download", "-json", OPENSHIFT_API))["Dir"])
    for group, plurals in DEFINITIONS.items():
        for plural in plurals:
            (found,) = module.glob(f"{group}/zz_generated.crd-manifests/*_{plural}.crd.yaml")
            shutil.copyfile(found, folder / f"{plural}.yaml")
    (folder / "done").touch()
    _say(f"built in {time.monotonic() - started:.0f} s, in {folder}")


def _run(command: str, *arguments: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    done = subprocess.run([command, *arguments], cwd=MODULE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"`go {' '.join(arguments)}` failed:\n" + "\n".join(done.stderr.splitlines()[-20:]))
    return done.stdout


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One build at a time on this machine; the lock goes with its holder."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(f"control plane: {text}", file=sys.stderr, flush=True)
