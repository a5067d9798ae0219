"""Credentials of kubeconfigs: exec plugins, token files, client certificates, merged files are the kubernetes package's business.

Importing that package costs 0.2 s of CPU and 20 MB, and over a second where kubernetes-validate is installed; so this module is
imported only when there is a kubeconfig to read.
"""

import os
from pathlib import Path

import yaml
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from kubernetes.config.config_exception import ConfigException

from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.kube.proxy import environment_proxy, parse_proxy
from mirrorstream.kube.rest_config import RestConfig, check_server

Configuration = kubernetes_client.Configuration
MALFORMED = (OSError, ValueError, TypeError, KeyError, AttributeError)
"""What the package raises for values of another type than it expects."""


def load(path: str, context: str | None) -> RestConfig:
    """Read the files of `path`, names as in $KUBECONFIG. Raises ConfigurationError with one line that names the file."""
    readable = readable_files(path)
    for name in readable:
        _check_yaml(name)
    configuration = Configuration()
    configuration.proxy = None  # it reads the environment as Python does, and not as Go does
    try:
        kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
            os.pathsep.join(readable), context=context, client_configuration=configuration, persist_config=False
        )
    except ConfigException as error:
        raise ConfigurationError(f"kubeconfig {path}: {' '.join(str(error).split())}") from error
    except MALFORMED as error:
        raise ConfigurationError(f"kubeconfig {path}: {type(error).__name__}: {error}") from error
    return _rest_config(configuration, path)


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
