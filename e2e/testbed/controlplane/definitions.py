"""Other projects' custom resource definitions, of whose kinds an installation brings objects: from their Go modules, by digest."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from e2e.testbed.support.gobuild import BuildError, built_once, cache_folder, go, version

HERE = Path(__file__).parent
INFRASTRUCTURE = "0000_10_config-operator_01_infrastructures-Default.crd.yaml"


@dataclass(frozen=True)
class Module:
    """A Go module, with the digest of its content (as in a go.sum), and the definitions that are wanted of it."""

    name: str
    digest: str
    files: tuple[str, ...]


MODULES = (
    Module(
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        tuple(
            f"example/prometheus-operator-crd/monitoring.coreos.com_{name}.yaml" for name in ("servicemonitors", "prometheusrules")
        ),
    ),
    Module(
        "github.com/cert-manager/cert-manager@v1.21.2",
        "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
        tuple(f"deploy/crds/cert-manager.io_{plural}.yaml" for plural in ("certificates", "issuers")),
    ),
    Module(
        "github.com/openshift/api@v0.0.0-20260213204242-d34f11c515b3",
        "h1:SZ8+jxtkMvpb4HDTjSAbaOyhFsw5PiWhjBog+XLY7jc=",
        (f"config/v1/zz_generated.crd-manifests/{INFRASTRUCTURE}",),
    ),
    Module(
        "github.com/operator-framework/api@v0.45.0",
        "h1:hkROwtsLH3oszp4IW+WsXEFSDgveSahHI7DKStOtrUI=",
        ("crds/operators.coreos.com_clusterserviceversions.yaml",),
    ),
)


def definitions() -> list[Path]:
    """The files of the definitions, downloaded now if these versions never were. Raises BuildError."""

    def build(folder: Path) -> None:
        for module in MODULES:
            _copy(module, folder)

    folder = built_once(cache_folder() / "definitions" / version(HERE / "cmd", MODULES), build)
    return sorted(folder.glob("*.yaml"))


def _copy(module: Module, folder: Path) -> None:
    found = json.loads(go(HERE, "mod", "download", "-json", module.name))
    if found["Sum"] != module.digest:
        raise BuildError(f"{module.name} has the digest {found['Sum']}, and not {module.digest}")
    for name in module.files:
        shutil.copyfile(Path(found["Dir"]) / name, folder / Path(name).name)
