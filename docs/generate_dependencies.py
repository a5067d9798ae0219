"""Writes the table in docs/image.md from the bill of materials and pyproject.toml; `make docs` runs it.

The licences are those that the installed packages declare.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from config.image.sbom import ROOT, bill

PAGE = ROOT / "docs" / "image.md"
BEGIN, END = "<!-- generated: make docs -->\n", "<!-- end -->"
ALLOWED = frozenset(
    {"Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "Python-2.0"},
)
"""Licences that a package of the image may have; docs/image.md says why these."""
CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""What some packages say instead of an SPDX identifier; `BSD` leaves open which of them."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """A package of the image; `licences` as declared, in SPDX's terms where they have one."""

    name: str
    version: str
    licences: tuple[str, ...]
    why: str

    @property
    def refused(self) -> list[str]:
        """The parts of its licences that are not on the list; an alternative counts like an addition."""
        parts = {part for licence in self.licences for part in re.split(r" AND | OR | WITH |[()]", licence) if part.strip()}
        return sorted(parts - ALLOWED) or ([] if self.licences else ["(none declared)"])


def reasons() -> dict[str, str]:
    """Why each direct dependency is there: the comments in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    found = re.findall(r'^ *"([A-Za-z0-9_-]+)[^"]*",(?: *# *(.*))?$', block, re.MULTILINE)
    return {name.lower(): why for name, why in found}


def dependencies() -> list[Dependency]:
    """Every package of requirements.lock, by name."""
    document = json.loads(bill())
    names = {component["purl"]: component["name"] for component in document["components"]}
    needed: dict[str, list[str]] = {}
    for edge in document["dependencies"]:
        for target in edge["dependsOn"]:
            needed.setdefault(target, []).extend([names[edge["ref"]]] if edge["ref"] in names else [])
    direct = reasons()
    found = []
    for component in document["components"]:
        name = component["name"]
        why = direct.get(_canonical(name), "")
        if not why:
            why = f"needed by {', '.join(sorted(needed[component['purl']], key=str.lower))}"
        found.append(Dependency(name, component["version"], _licences(component["licenses"]), why))
    return sorted(found, key=lambda one: one.name.lower())


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _licences(declared: list[dict[str, Any]]) -> tuple[str, ...]:
    found = []
    for entry in declared:
        licence = entry.get("license") or {}
        text = entry.get("expression") or licence.get("id") or licence.get("name") or ""
        text = CLASSIFIERS.get(text, text)
        if text and text not in found:
            found.append(text)
    if any(text.startswith("BSD-") for text in found) and "BSD" in found:
        found.remove("BSD")
    return tuple(found)


def page(text: str) -> str:
    """The page with a current table."""
    rows = [f"| {one.name} | {one.version} | {', '.join(one.licences)} | {one.why} |" for one in dependencies()]
    table = "\n".join(["| package | version | licence | why |", "|---|---|---|---|", *rows])
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
