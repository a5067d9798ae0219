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

    `ignore_mirror_sets`: as platforms did that knew none. `workers`: streams that the import controller imports at once.
    `images_per_second`: within one request, after the first three.
    """

    ignore_mirror_sets: bool = False
    timeout_seconds: float = 15
    workers: int = 10
    images_per_second: float = 2


@dataclass(frozen=True)
class Settings:
    """What `--settings FILE` holds as JSON, in the names of the API."""

    image_config: dict[str, Any] = field(default_factory=dict)
    """The spec of the Image config `cluster`."""
    internal_registry: str = "localhost:15000"
    scheduled_interval: float = 900
    importer: ImporterSettings = ImporterSettings()
    trusted_authorities: str = ""
    """CAs of registries (PEM) that the importer trusts by files of its own, besides what the Image config names."""

    def document(self) -> dict[str, Any]:
        """The settings as `read_settings` reads them."""
        return {
            "imageConfig": self.image_config,
            "internalRegistryHostname": self.internal_registry,
            "scheduledImageImportMinimumIntervalSeconds": self.scheduled_interval,
            "importer": {
                "ignoreMirrorSets": self.importer.ignore_mirror_sets,
                "timeoutSeconds": self.importer.timeout_seconds,
                "workers": self.importer.workers,
                "imagesPerSecond": self.importer.images_per_second,
            },
            "trustedAuthorities": self.trusted_authorities,
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

    Fields: imageConfig (the spec of an Image), internalRegistryHostname, scheduledImageImportMinimumIntervalSeconds, importer,
    trustedAuthorities. Raises ValueError that names what is wrong.
    """
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    if unknown := set(document) - set(Settings().document()):
        raise ValueError(f"{path}: unknown field: {', '.join(sorted(unknown))}")
    importer = document.get("importer") or {}
    return Settings(
        document.get("imageConfig") or {},
        document.get("internalRegistryHostname", "localhost:15000"),
        document.get("scheduledImageImportMinimumIntervalSeconds", 900),
        ImporterSettings(
            importer.get("ignoreMirrorSets", False),
            importer.get("timeoutSeconds", 15),
            importer.get("workers", 10),
            importer.get("imagesPerSecond", 2),
        ),
        document.get("trustedAuthorities", ""),
    )
