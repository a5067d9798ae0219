"""Kubeconfigs whose credentials stand in them or in files that they name: tokens, and client certificates.

They are read here for what cannot wait for the kubernetes package: a shell that completes a word. What is not of this form
(plugins, passwords, tokens that are renewed) is left to that package: see kubeconfig.py. Keys that stand in the kubeconfig go into
memory, where TLS libraries read them as files; nothing is left on a disk.
"""

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.kube.proxy import environment_proxy, parse_proxy
from mirrorstream.kube.rest_config import RestConfig, check_server

Entry = Mapping[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""In C where that is installed: a kubeconfig with the certificates of 150 clusters is 1 MB."""
_FILES = frozenset({"certificate-authority", "client-certificate", "client-key"})
_DATA = frozenset(f"{name}-data" for name in _FILES)
_OF_CLUSTER = (
    {"server", "insecure-skip-tls-verify", "tls-server-name", "proxy-url", "extensions", "disable-compression"} | _FILES | _DATA
)
_OF_USER = {"token", "extensions"} | _FILES | _DATA


@dataclass(frozen=True, slots=True)
class StaticContext:
    """A context of such a kubeconfig."""

    namespace: str
    _cluster: Entry
    _user: Entry

    def load(self) -> RestConfig:
        """The credentials. Raises ConfigurationError."""
        cluster, user = self._cluster, self._user
        host, proxy, token = str(cluster["server"]), cluster.get("proxy-url"), user.get("token")
        check_server(host)
        return RestConfig(
            host,
            lambda: f"Bearer {token}" if token else None,
            ca_file=_file(cluster, "certificate-authority"),
            cert_file=_file(user, "client-certificate"),
            key_file=_file(user, "client-key"),
            server_name=cluster.get("tls-server-name") or None,
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
            proxy=parse_proxy(str(proxy), "proxy-url") if proxy else environment_proxy(host),
        )


def static_context(path: str, context: str | None) -> StaticContext | None:
    """A context of the files of `path`, names as in $KUBECONFIG, by default the current one; None if it is not of this form."""
    try:
        files = [
            (yaml.load(Path(name).read_text(encoding="utf-8"), _LOADER), Path(name).parent)  # noqa: S506  a safe one
            for name in path.split(os.pathsep)
            if name and Path(name).exists()
        ]
    except (OSError, UnicodeError, yaml.YAMLError):
        return None
    read = [(found, folder) for found, folder in files if isinstance(found, dict)]
    chosen = context or next((found["current-context"] for found, _ in read if found.get("current-context")), None)
    of = _entry(read, "contexts", "context", chosen)
    cluster = of and _entry(read, "clusters", "cluster", of.get("cluster"))
    user = of and _entry(read, "users", "user", of.get("user"))
    if of is None or cluster is None or user is None or not cluster.get("server"):
        return None
    in_memory = not _DATA.isdisjoint({*cluster, *user})
    if set(cluster) - _OF_CLUSTER or set(user) - _OF_USER or (in_memory and not hasattr(os, "memfd_create")):
        return None
    return StaticContext(str(of.get("namespace") or "default"), cluster, user)


def _entry(files: list[tuple[dict[str, Any], Path]], plural: str, singular: str, name: object) -> Entry | None:
    """The first entry of a name, as kubectl merges files; names of files in it are relative to the file that has it."""
    if not name:
        return None
    for found, folder in files:
        listed = found.get(plural)
        for each in listed if isinstance(listed, list) else ():
            if isinstance(each, dict) and each.get("name") == name:
                entry = each.get(singular) or {}
                if not isinstance(entry, dict):
                    return None
                files_of = {key: str(folder / str(value)) for key, value in entry.items() if key in _FILES and value}
                return {**entry, **files_of}
    return None


def _file(entry: Entry, name: str) -> str | None:
    """The path of what an entry names, or has itself, which counts more."""
    data = entry.get(f"{name}-data")
    if not data:
        return entry.get(name) or None
    try:
        content = base64.b64decode("".join(str(data).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigurationError(f"{name}-data: not base64") from error
    number = os.memfd_create(name)  # open as long as the program: connections read it again
    os.write(number, content)
    return f"/proc/self/fd/{number}"
