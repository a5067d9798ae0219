"""Credentials of kubeconfigs: exec plugins, token files, client certificates, merged files are the kubernetes package's business.

Importing that package costs 0.2 s of CPU and 20 MB, and over a second where kubernetes-validate is installed; so this module is
imported only when there is a kubeconfig to read.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.kube.proxy import environment_proxy, parse_proxy
from mirrorstream.kube.rest_config import RestConfig, check_server

Configuration = kubernetes_client.Configuration
MALFORMED = (OSError, ValueError, TypeError, KeyError, AttributeError)
"""What the package raises for values of another type than it expects."""


@dataclass(frozen=True, slots=True)
class Context:
    """A context: `cluster` and `user` are names of the kubeconfig's entries, perhaps of none."""

    name: str
    cluster: str
    user: str


class Kubeconfig:
    """The files of a path, names as in $KUBECONFIG, merged as kubectl merges them; read once, for any number of contexts."""

    def __init__(self, path: str) -> None:
        """Raises ConfigurationError with one line that names the file."""
        self.path = path
        readable = readable_files(path)
        for name in readable:
            _check_yaml(name)
        with self._errors():
            self._merged = KubeConfigMerger(os.pathsep.join(readable)).config  # type: ignore[no-untyped-call]

    def contexts(self) -> list[Context]:
        """All contexts, the current one first. Raises ConfigurationError."""
        with self._errors():
            merged = self._merged.value
            found = [
                Context(str(entry["name"]), str(of.get("cluster") or ""), str(of.get("user") or ""))
                for node in merged["contexts"]
                for entry in [node.value]
                for of in [entry.get("context") or {}]
            ]
            return sorted(found, key=lambda context: context.name != merged.get("current-context"))

    def load(self, context: str | None) -> RestConfig:
        """The credentials of a context, by default of the current one. Raises ConfigurationError."""
        configuration = Configuration()
        configuration.proxy = None  # it reads the environment as Python does, and not as Go does
        with self._errors():
            loader = KubeConfigLoader(self._merged, active_context=context, config_base_path=None)  # type: ignore[no-untyped-call]
            loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        return _rest_config(configuration, self.path)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except ConfigException as error:
            raise ConfigurationError(f"kubeconfig {self.path}: {' '.join(str(error).split())}") from error
        except MALFORMED as error:
            raise ConfigurationError(f"kubeconfig {self.path}: {type(error).__name__}: {error}") from error


def load(path: str, context: str | None) -> RestConfig:
    """Read the files of `path`, names as in $KUBECONFIG. Raises ConfigurationError with one line that names the file."""
    return Kubeconfig(path).load(context)


def _rest_config(configuration: Configuration, path: str) -> RestConfig:
    def authorization() -> str | None:
        # The package refreshes expiring tokens in here.
        return configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or None

    host, proxy = str(configuration.host or ""), configuration.proxy
    check_server(host)
    if proxy is not None and not isinstance(proxy, str):
        raise ConfigurationError(f"kubeconfig {path}: proxy-url: expected text")
    return RestConfig(
        host,
        authorization,
        ca_file=configuration.ssl_ca_cert,
        cert_file=configuration.cert_file,
        key_file=configuration.key_file,
        server_name=configuration.tls_server_name,
        insecure=not configuration.verify_ssl,
        proxy=parse_proxy(proxy, f"kubeconfig {path}: proxy-url") if proxy else environment_proxy(host),
    )


def context_namespace(path: str, context: str | None) -> str:
    """The namespace of a context, by default of the current one; `default` if it names none. Raises ConfigurationError."""
    try:
        contexts, current = kubernetes_config.list_kube_config_contexts(  # type: ignore[no-untyped-call]
            os.pathsep.join(readable_files(path))
        )
    except (ConfigException, *MALFORMED) as error:
        raise ConfigurationError(f"kubeconfig {path}: {' '.join(str(error).split())}") from error
    chosen = current if context is None else next((c for c in contexts if c.get("name") == context), None)
    if chosen is None:
        raise ConfigurationError(f"kubeconfig {path}: there is no context {context!r}")
    return str((chosen.get("context") or {}).get("namespace") or "default")


def readable_files(path: str) -> list[str]:
    """Those of the files of `path` that exist. Raises ConfigurationError if none does."""
    readable = [name for name in path.split(os.pathsep) if name and Path(name).exists()]
    if not readable:
        raise ConfigurationError(f"kubeconfig {path}: no such file")
    return readable


def _check_yaml(name: str) -> None:
    try:
        document = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"kubeconfig {name}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"kubeconfig {name}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"kubeconfig {name}: expected a mapping at the top, found {type(document).__name__}")
    for key in ("clusters", "contexts", "users"):
        entries = document.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ConfigurationError(f"kubeconfig {name}: {key}: expected a list of mappings")
