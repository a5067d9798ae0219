"""Where the API server is and who we are: kubeconfig or service account, as kubectl finds them.

Reading credentials (exec plugins, token files, client certificates, merged kubeconfigs) is the kubernetes package's business;
this module picks the place and turns its errors into one clear line.
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import yaml
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from kubernetes.config.config_exception import ConfigException

from mirrorstream.kube.errors import ConfigurationError

SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
SERVICE_ACCOUNT_NAMESPACE = SERVICE_ACCOUNT_TOKEN.with_name("namespace")

Configuration = kubernetes_client.Configuration
Loader = Callable[[], Configuration]


def find_credentials(kubeconfig: str | None, context: str | None, *, in_cluster: bool) -> Loader:
    """The function that (re)loads the credentials of this process.

    `kubeconfig` names a file; without it, and with `in_cluster`, the pod's service account is used where there is one; then
    $KUBECONFIG and ~/.kube/config, as kubectl does. Raises ConfigurationError when nothing usable is found.
    """
    if kubeconfig is None and in_cluster and os.environ.get("KUBERNETES_SERVICE_HOST") and SERVICE_ACCOUNT_TOKEN.exists():
        return _load_in_cluster
    path = _kubeconfig_path(kubeconfig)
    return lambda: _load_kubeconfig(path, context)


def _load_in_cluster() -> Configuration:
    configuration = Configuration()
    try:
        kubernetes_config.load_incluster_config(  # type: ignore[no-untyped-call]
            client_configuration=configuration
        )
    except (ConfigException, OSError) as error:
        raise ConfigurationError(f"in-cluster credentials: {error}") from error
    return configuration


def _load_kubeconfig(path: str, context: str | None) -> Configuration:
    readable = _readable(path)
    for name in readable:
        _check_yaml(name)
    configuration = Configuration()
    try:
        kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
            os.pathsep.join(readable), context=context, client_configuration=configuration, persist_config=False
        )
    except ConfigException as error:
        raise ConfigurationError(f"kubeconfig {path}: {' '.join(str(error).split())}") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(f"kubeconfig {path}: {type(error).__name__}: {error}") from error
    return configuration


def default_namespace(kubeconfig: str | None, context: str | None) -> str:
    """The namespace that kubectl would use: the pod's own, the context's, else `default`. Raises ConfigurationError."""
    if kubeconfig is None and os.environ.get("KUBERNETES_SERVICE_HOST") and SERVICE_ACCOUNT_TOKEN.exists():
        return own_namespace()
    path = _kubeconfig_path(kubeconfig)
    try:
        contexts, current = kubernetes_config.list_kube_config_contexts(  # type: ignore[no-untyped-call]
            os.pathsep.join(_readable(path))
        )
    except (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(f"kubeconfig {path}: {' '.join(str(error).split())}") from error
    chosen = current if context is None else next((c for c in contexts if c.get("name") == context), None)
    if chosen is None:
        raise ConfigurationError(f"kubeconfig {path}: there is no context {context!r}")
    return str((chosen.get("context") or {}).get("namespace") or "default")


def _kubeconfig_path(kubeconfig: str | None) -> str:
    return kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def _readable(path: str) -> list[str]:
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


def own_name() -> str:
    """The pod's name; elsewhere the machine's, and something that no other process has."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()[:40]}-{uuid4().hex[:8]}"


def own_namespace() -> str:
    """The pod's namespace; `mirrorstream` where there is none to be found."""
    if namespace := os.environ.get("POD_NAMESPACE"):
        return namespace
    try:
        return SERVICE_ACCOUNT_NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        return "mirrorstream"
