"""The owner of one namespace, and of nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirrorstream.kube.client import ApiError, Client, load_client

from e2e.testbed.cluster import Namespace
from e2e.testbed.installation import with_token
from e2e.testbed.roles import account_with
from e2e.testbed.streams import IMAGE_API
from e2e.testbed.support.waiting import wait_for


@contextmanager
def tenant(ns: Namespace, folder: Path) -> Iterator[Client]:
    """An owner of one namespace and of nothing else: all verbs on streams, imports, secrets and Events there."""
    streams = ["imagestreams", "imagestreamimports", "imagestreamtags", "imagestreamimages", "imagestreammappings"]
    rules = [
        {"apiGroups": ["image.openshift.io"], "resources": streams, "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["secrets", "events", "serviceaccounts", "pods"], "verbs": ["*"]},
    ]
    token = account_with(ns.client, ns.name, "tenant", rules)
    kubeconfig = with_token(folder / f"tenant-{ns.name}.kubeconfig", ns.cluster.kubeconfig, token)
    client = load_client(str(kubeconfig), in_cluster=False, user_agent="tenant")
    wait_for("the role is in force", lambda: _may(client, f"{IMAGE_API}/namespaces/{ns.name}/imagestreams"))
    yield client
    client.close()


def _may(client: Client, path: str) -> bool:
    try:
        client.get(path)
    except ApiError as error:
        if error.status != 403:
            raise
        return False
    return True
