"""The platform's import allow-list, with its texts."""

from fnmatch import fnmatchcase
from typing import Any

from mirrorstream.rules.references import has_registry_host, parse_reference

SHOWN = 5


class AllowedRegistries:
    """`allowedRegistriesForImport`; an empty list allows everything, the internal registry always is."""

    def __init__(self, entries: list[dict[str, Any]], internal_registry: str) -> None:
        self._entries: list[tuple[str, str]] = []
        for entry in entries:
            host, _, port = str(entry["domainName"]).partition(":")
            self._entries.append((host, port or ("80" if entry.get("insecure") else "443")))
        if self._entries and internal_registry:
            host, _, port = internal_registry.partition(":")
            self._entries.insert(0, (host, port or "443"))

    def refusal(self, reference: str, insecure: bool) -> str | None:
        """Why `reference` is refused in a stream, None if it is allowed."""
        registry = reference.partition("/")[0] if has_registry_host(reference) else "docker.io"
        host, _, port = registry.partition(":")
        return self._refusal(registry, host, port or ("" if insecure else "443"))

    def import_refusal(self, reference: str, insecure: bool) -> str | None:
        """The same in an import by one who may not create images: an insecure registry without a port is one at port 80."""
        host, _, port = parse_reference(reference).host.partition(":")
        port = port or ("80" if insecure else "443")
        refused = self._refusal(f"{host}:{port}", host, port)
        return f'importing images from registry "{host}:{port}" is forbidden: {refused}' if refused else None

    def _refusal(self, registry: str, host: str, port: str) -> str | None:
        if not self._entries:
            return None
        for allowed_host, allowed_port in self._entries:
            if not fnmatchcase(host, allowed_host):
                continue
            if fnmatchcase(port, allowed_port) if port else allowed_port in ("80", "443", "*"):
                return None
        names = [f'"{allowed_host}:{allowed_port}"' for allowed_host, allowed_port in self._entries]
        listed = ", ".join(names if len(names) <= SHOWN else names[: SHOWN - 1])
        more = f", and {len(names) - SHOWN + 1} more ..." if len(names) > SHOWN else ""
        return f'registry "{registry}" not allowed by whitelist: {listed}{more}'
