"""The cluster-wide settings that a simulator starts with."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONTRACT_PORTS = {
    "good": 15101,
    "unauthorized": 15102,
    "forbidden": 15103,
    "broken": 15104,
    "throttled": 15105,
    "garbage": 15106,
    "wrongdigest": 15107,
    "tls": 15108,
    "disallowed": 15109,
    "blocked": 15110,
    "other": 15111,
    "silent": 15112,
    "dead": 15199,
}
"""The registries that recordings are made with; each name says how it behaves."""


@dataclass(frozen=True)
class ImporterSettings:
    """How the platform's importer behaves.

    `ignore_mirror_sets`: as platforms did that knew none. `tags_per_second`: within one request after a burst of 3, as the real one
    (2 per second); 0 is without a limit. `workers`: streams that the import controller imports at once.
    """

    ignore_mirror_sets: bool = False
    tags_per_second: float = 0
    timeout_seconds: float = 15
    workers: int = 10


@dataclass(frozen=True)
class Settings:
    """What `--settings FILE` holds as JSON, in the names of the API."""

    image_config: dict[str, Any] = field(default_factory=dict)
    """The spec of the Image config `cluster`."""
    internal_registry: str = "localhost:15000"
    scheduled_interval: float = 900
    importer: ImporterSettings = ImporterSettings()

    def document(self) -> dict[str, Any]:
        """The settings as `read_settings` reads them."""
        return {
            "imageConfig": {"spec": self.image_config},
            "internalRegistryHostname": self.internal_registry,
            "scheduledImageImportMinimumIntervalSeconds": self.scheduled_interval,
            "importer": {
                "ignoreMirrorSets": self.importer.ignore_mirror_sets,
                "tagsPerSecond": self.importer.tags_per_second,
                "timeoutSeconds": self.importer.timeout_seconds,
                "workers": self.importer.workers,
            },
        }


def contract_settings(*all_hosts: dict[str, str]) -> Settings:
    """The settings that recordings are made with; each of `all_hosts` maps the registries' names to `host:port`."""
    sets = all_hosts or ({name: f"localhost:{port}" for name, port in CONTRACT_PORTS.items()},)
    named = [(name, host) for hosts in sets for name, host in hosts.items()]
    allowed = [{"domainName": host, "insecure": True} for name, host in named if name != "disallowed"]
    sources = {
        "insecureRegistries": [host for name, host in named if name != "tls"],
        "blockedRegistries": [host for name, host in named if name == "blocked"],
    }
    return Settings({"allowedRegistriesForImport": allowed, "registrySources": sources}, scheduled_interval=20)


def read_settings(path: str) -> Settings:
    """Read a settings file.

    Fields: imageConfig (an Image or its spec), internalRegistryHostname, scheduledImageImportMinimumIntervalSeconds, importer.
    Raises ValueError that names what is wrong.
    """
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    known = {
        "imageConfig",
        "internalRegistryHostname",
        "scheduledImageImportMinimumIntervalSeconds",
        "allowedRegistriesForImport",
        "importer",
    }
    if unknown := set(document) - known:
        raise ValueError(f"{path}: unknown field: {', '.join(sorted(unknown))}")
    config = document.get("imageConfig") or {}
    spec = dict(config.get("spec") or {}) if "spec" in config else dict(config)
    if "allowedRegistriesForImport" in document:
        spec.setdefault("allowedRegistriesForImport", document["allowedRegistriesForImport"])
    importer = document.get("importer") or {}
    return Settings(
        spec,
        document.get("internalRegistryHostname", "localhost:15000"),
        document.get("scheduledImageImportMinimumIntervalSeconds", 900),
        ImporterSettings(
            importer.get("ignoreMirrorSets", False),
            importer.get("tagsPerSecond", 0),
            importer.get("timeoutSeconds", 15),
            importer.get("workers", 10),
        ),
    )
