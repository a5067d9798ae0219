"""Where the API server is and who we are: kubeconfig or service account, as kubectl finds them."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from mirrorstream.kube import service_account
from mirrorstream.kube.rest_config import Loader, RestConfig

if TYPE_CHECKING:
    from mirrorstream.kube.kubeconfig import Kubeconfig
    from mirrorstream.kube.static_kubeconfig import StaticContext


def find_credentials(kubeconfig: str | None, context: str | None, *, in_cluster: bool) -> Loader:
    """The function that (re)loads the credentials of this process.

    `kubeconfig` names a file; without it, and with `in_cluster`, the pod's service account is used where there is one; then
    $KUBECONFIG and ~/.kube/config, as kubectl does. The function raises ConfigurationError when nothing usable is found.
    """
    if kubeconfig is None and in_cluster and service_account.available():
        return service_account.load
    path = _kubeconfig_path(kubeconfig)

    def load() -> RestConfig:
        from mirrorstream.kube import kubeconfig  # noqa: PLC0415  slow to import, and a pod does not need it

        return kubeconfig.load(path, context)

    return load


def find_kubeconfig(kubeconfig: str | None) -> "Kubeconfig":
    """The kubeconfig that kubectl would use, for several of its contexts. Raises ConfigurationError."""
    from mirrorstream.kube.kubeconfig import Kubeconfig  # noqa: PLC0415  see above

    return Kubeconfig(_kubeconfig_path(kubeconfig))


def find_static_context(kubeconfig: str | None, context: str | None) -> "StaticContext | None":
    """The context that kubectl would use, if it can be read without a slow import; None if not."""
    if kubeconfig is None and service_account.available():
        return None
    from mirrorstream.kube.static_kubeconfig import static_context  # noqa: PLC0415  a pod does not need it

    return static_context(_kubeconfig_path(kubeconfig), context)


def default_namespace(kubeconfig: str | None, context: str | None) -> str:
    """The namespace that kubectl would use: the pod's own, the context's, else `default`. Raises ConfigurationError."""
    if kubeconfig is None and service_account.available():
        return own_namespace()
    from mirrorstream.kube.kubeconfig import context_namespace  # noqa: PLC0415  see above

    return context_namespace(_kubeconfig_path(kubeconfig), context)


def _kubeconfig_path(kubeconfig: str | None) -> str:
    return kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def own_name() -> str:
    """The pod's name; elsewhere the machine's, and something that no other process has."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()[:40]}-{uuid4().hex[:8]}"


def own_namespace() -> str:
    """The pod's namespace; `mirrorstream` where there is none to be found."""
    return os.environ.get("POD_NAMESPACE") or service_account.namespace() or "mirrorstream"
