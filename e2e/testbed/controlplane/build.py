"""Building the real components, once for each version of their sources."""

import json
import shutil
import sys
import time
from pathlib import Path

from e2e.testbed.support.gobuild import BUILD, built_once, cache_folder, go, version

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


def components() -> Path:
    """The folder of the programs and custom resource definitions, built now if this version never was. Raises BuildError."""
    return built_once(cache_folder() / "controlplane" / version(MODULE, DEFINITIONS), _build)


def _build(folder: Path) -> None:
    started = time.monotonic()
    for number, program in enumerate(PROGRAMS, 1):
        _say(f"building {program} ({number} of {len(PROGRAMS)}; all of them took about five minutes once, on two cores) …")
        go(MODULE, *BUILD, "-o", str(folder / program), f"./cmd/{program}")
    module = Path(json.loads(go(MODULE, "mod", "download", "-json", OPENSHIFT_API))["Dir"])
    for group, plurals in DEFINITIONS.items():
        for plural in plurals:
            (found,) = module.glob(f"{group}/zz_generated.crd-manifests/*_{plural}.crd.yaml")
            shutil.copyfile(found, folder / f"{plural}.yaml")
    _say(f"built in {time.monotonic() - started:.0f} s, in {folder}")


def _say(text: str) -> None:
    print(f"control plane: {text}", file=sys.stderr, flush=True)
