"""OLM's own judgement: the schemas of its kinds, the validators that catalogs' pipelines run, and `opm validate`."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.testbed.support.gobuild import BUILD, alone, cache_folder, go, version

MODULE = Path(__file__).parent
API = "github.com/operator-framework/api"
Object = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """One error or warning of a validator."""

    level: str
    type: str
    detail: str


def findings(bundle: Path) -> list[Finding]:
    """What the validators say of a bundle's folder. Raises BuildError when they cannot be built."""
    return [Finding(**json.loads(line)) for line in _run(bundle).splitlines()]


def problem(catalog: str, folder: Path) -> str:
    """What opm finds wrong with the text of a catalog, which is written into a new folder; empty if nothing. Raises BuildError."""
    folder.mkdir()
    (folder / "catalog.yaml").write_text(catalog, encoding="utf-8")
    return _run("catalog", folder).strip()


def _run(*arguments: str | Path) -> str:
    folder = cache_folder() / "olm" / version(MODULE)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / "lock"):
        if not (folder / "olm").exists():
            go(MODULE, *BUILD, "-o", str(folder / "olm"), ".")
    return subprocess.run([folder / "olm", *arguments], check=True, capture_output=True, text=True, timeout=300).stdout


def schema(plural: str) -> Object:
    """The schema of a kind of OLM's as JSON Schema, from the module that go.mod and go.sum pin. Raises BuildError."""
    folder = Path(json.loads(go(MODULE, "mod", "download", "-json", API))["Dir"])
    definition = yaml.safe_load((folder / "crds" / f"operators.coreos.com_{plural}.yaml").read_text(encoding="utf-8"))
    (served,) = [item for item in definition["spec"]["versions"] if item["storage"]]
    made: Object = structural(served["schema"]["openAPIV3Schema"])
    return made


def structural(schema: Any) -> Any:
    """A structural schema as JSON Schema, with what an API server does beyond it: fields that are not named are errors."""
    if isinstance(schema, list):
        return [structural(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: structural(value) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        made["properties"] = {key: structural(value) for key, value in schema["properties"].items()}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-embedded-resource")
    if "properties" in made and schema.get("type") == "object" and not open_ended:
        made.setdefault("additionalProperties", False)
    if schema.get("nullable") and "type" in made:
        made["type"] = [made["type"], "null"]
    return made
