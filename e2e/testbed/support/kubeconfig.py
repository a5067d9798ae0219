"""Kubeconfigs for the users of a test cluster."""

from pathlib import Path
from typing import Any

import yaml


def write_kubeconfig(
    path: Path,
    server: str,
    *,
    authority: Path | None = None,
    certificate: tuple[Path, Path] | None = None,
    namespace: str = "default",
) -> Path:
    """Write a kubeconfig: a client certificate and its key, or no credentials; `namespace` is the context's. Returns `path`."""
    cluster: dict[str, Any] = {"server": server}
    if authority:
        cluster["certificate-authority"] = str(authority)
    user: dict[str, Any] = {}
    if certificate:
        user = {"client-certificate": str(certificate[0]), "client-key": str(certificate[1])}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path
