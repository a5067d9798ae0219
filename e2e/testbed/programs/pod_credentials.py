"""The credentials of a pod on a simulated cluster: its service account's files, and the variables of its environment."""

import sys
from pathlib import Path
from urllib.parse import urlsplit

from mirrorstream.kube.client import Client

from e2e.testbed.programs import in_pod
from e2e.testbed.programs.program import Controller, Webhook

NAMESPACE = ACCOUNT = "mirrorstream"
IN_POD = (sys.executable, "-P", in_pod.__file__)


def write_credentials(folder: Path, admin: Client, authority: Path) -> dict[str, str]:
    """Make a service account and write its files into `folder`; the environment of programs that use them."""
    admin.request("POST", "/api/v1/namespaces", body={"metadata": {"name": NAMESPACE}})
    accounts = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    admin.request("POST", accounts, body={"metadata": {"name": ACCOUNT}})
    token = admin.request("POST", f"{accounts}/{ACCOUNT}/token", body={"spec": {}})["status"]["token"]
    folder.mkdir()
    (folder / "token").write_text(token, encoding="utf-8")
    (folder / "namespace").write_text(NAMESPACE, encoding="utf-8")
    (folder / "ca.crt").write_bytes(authority.read_bytes())
    server = urlsplit(admin.server)
    address = {"KUBERNETES_SERVICE_HOST": str(server.hostname), "KUBERNETES_SERVICE_PORT": str(server.port)}
    return {**address, in_pod.FOLDER: str(folder)}


class PodController(Controller):
    """A controller that runs with such credentials."""

    executable = IN_POD


class PodWebhook(Webhook):
    """A webhook that runs with such credentials."""

    executable = IN_POD
