"""`make sbom`: the software bill of materials of what requirements.lock installs, in CycloneDX 1.6 JSON.

cyclonedx-py reads the lock file, which has versions and hashes, and this environment, which has the same packages installed and so
knows their licences and what needs what. Neither tells all; this puts the two together. The same lock makes the same document; a
time is in it only if SOURCE_DATE_EPOCH gives one.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
TARGET = ROOT / "dist" / "mirrorstream.cdx.json"
_COMMON = ("--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--spec-version", "1.6", "--output-format", "JSON")

LICENCES = {"pkg:pypi/pysocks@1.7.1": "BSD-3-Clause"}
"""Of packages whose metadata names no licence of SPDX: their LICENSE file was read."""


class MissingError(Exception):
    """A locked package is not installed here in that version."""


def merge(locked: Object, installed: Object) -> Object:
    """The lock's components, each with what its installation tells, and the edges between them. Raises MissingError."""
    known = {component["purl"]: component for component in installed["components"] if "purl" in component}
    purls = {component["bom-ref"]: component["purl"] for component in known.values()}
    root = installed["metadata"]["component"]
    root = {**root, "bom-ref": f"pkg:pypi/{root['name']}@{root['version']}", "purl": f"pkg:pypi/{root['name']}@{root['version']}"}
    purls[installed["metadata"]["component"]["bom-ref"]] = root["purl"]
    components = []
    for component in locked["components"]:
        purl = component["purl"]
        if purl not in known:
            raise MissingError(f"{component['name']} {component['version']} is not installed here: `make clean` and try again")
        references = [*component["externalReferences"], *known[purl].get("externalReferences", [])]
        named = {"licenses": [{"license": {"id": LICENCES[purl]}}]} if purl in LICENCES else {}
        components.append({**known[purl], **named, "bom-ref": purl, "scope": "required", "externalReferences": references})
    kept = {component["purl"] for component in components} | {root["purl"]}
    needs = {purls[edge["ref"]]: edge.get("dependsOn", []) for edge in installed["dependencies"] if edge["ref"] in purls}
    edges = {purl: sorted({purls[ref] for ref in needs.get(purl, []) if ref in purls} & kept) for purl in sorted(kept)}
    dependencies = [{"ref": purl, "dependsOn": edge} for purl, edge in edges.items()]
    components.sort(key=lambda component: str(component["purl"]))
    metadata = {**locked["metadata"], "component": root}
    return {**locked, "metadata": metadata, "components": components, "dependencies": dependencies}


def bill() -> str:
    """The document. Raises MissingError, and CalledProcessError when cyclonedx-py fails."""
    locked = _cyclonedx("requirements", *_COMMON, str(LOCK))
    installed = _cyclonedx("environment", *_COMMON, sys.executable)
    return json.dumps(merge(locked, installed), indent=2, sort_keys=True) + "\n"


def _cyclonedx(*arguments: str) -> Object:
    # Validated as a whole by the tests; a part alone has no edges, over which the tool would warn.
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", *arguments, "--no-validate"]
    made: Object = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603  no shell, our own Python
    return made


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    try:
        TARGET.write_text(bill(), encoding="utf-8")
    except MissingError as error:
        sys.exit(f"make sbom: {error}")
    print(TARGET.relative_to(Path.cwd()) if TARGET.is_relative_to(Path.cwd()) else TARGET)  # noqa: T201
