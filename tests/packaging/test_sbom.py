"""The bill of materials: valid, complete, and the same for everybody who makes it."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from config.image.sbom import MissingError, bill, merge
from tests.packaging.containerfile import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
Object = dict[str, Any]


@pytest.fixture(scope="module")
def text() -> str:
    """As `make sbom` writes it."""
    return bill()


@pytest.fixture(scope="module")
def document(text: str) -> Object:
    """Parsed."""
    parsed: Object = json.loads(text)
    return parsed


def locked() -> dict[str, tuple[str, set[str]]]:
    """Name to version and hashes, read from the lock without the tool that is tested."""
    found = {}
    for entry in re.split(r"\n(?=\S)", LOCK):
        name, _, version = re.split(r"[\s;]", entry, maxsplit=1)[0].partition("==")
        found[name] = (version, set(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)))
    return found


def test_it_is_valid(text: str) -> None:
    """By CycloneDX's own schema, in its strict form, with the formats of what is written."""
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error


def test_it_has_what_the_lock_has(document: Object) -> None:
    """The same names, versions and hashes, no more and no less."""
    found = {}
    for component in document["components"]:
        hashes = {h["content"] for reference in component["externalReferences"] for h in reference.get("hashes", [])}
        found[component["purl"]] = hashes
    assert found == {f"pkg:pypi/{name}@{version}": hashes for name, (version, hashes) in locked().items()}
    assert all(found.values())


def test_mirrorstream_is_what_it_is_about(document: Object) -> None:
    """The root, with its licence and what it needs directly; from there every component is reached."""
    root = document["metadata"]["component"]
    assert (root["name"], root["type"], root["licenses"][0]["license"]["id"]) == ("mirrorstream", "application", "Apache-2.0")
    edges = {edge["ref"]: edge["dependsOn"] for edge in document["dependencies"]}
    reached, waiting = set(), [root["bom-ref"]]
    while waiting:
        if (ref := waiting.pop()) not in reached:
            reached.add(ref)
            waiting += edges[ref]
    assert reached == {root["bom-ref"], *(component["bom-ref"] for component in document["components"])}


def test_licences_are_named(document: Object) -> None:
    """Each package declares one."""
    assert not [component["name"] for component in document["components"] if not component.get("licenses")]


def test_it_is_the_same_for_everybody(text: str) -> None:
    """No time, no random serial number, nothing of this machine: another process makes the same bytes."""
    command = [sys.executable, "-c", "from config.image.sbom import bill; print(bill(), end='')"]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300, env={"LANG": "C"})
    assert again.stdout == text
    assert "serialNumber" not in text
    assert str(ROOT) not in text
    assert "timestamp" not in text


def test_a_time_is_that_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """SOURCE_DATE_EPOCH."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert json.loads(bill())["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")


def test_a_package_that_is_not_installed_is_named() -> None:
    """Its licence is not known then, and nothing is guessed."""
    component = {"name": "flask", "version": "9.9", "purl": "pkg:pypi/flask@9.9", "bom-ref": "1", "externalReferences": []}
    root = {"bom-ref": "root", "name": "mirrorstream", "version": "1"}
    with pytest.raises(MissingError, match=r"flask 9\.9"):
        merge({"components": [component]}, {"components": [], "dependencies": [], "metadata": {"component": root}})
