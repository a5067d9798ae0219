"""Service accounts' own pull secrets, as openshift-controller-manager makes them.

Every account gets a secret NAME-dockercfg-xxxxx for the internal registry. The account names the secret before there is one: a pod
that is created before the secret has its token waits for it, and one that is created before the account names it never gets it,
since ServiceAccount admission copies the account's list at that moment. A cluster without an internal registry makes none.
"""

import base64
import json
import random
from types import TracebackType
from typing import Any, Self

from mirrorstream.kube.client import MERGE_PATCH, ApiError, Client

from e2e.testbed.controllers.scheduler import Scheduler
from e2e.testbed.controllers.watching import Watcher

Object = dict[str, Any]
ACCOUNTS = "/api/v1/serviceaccounts"
IMAGE_CONFIGS = "/apis/config.openshift.io/v1/images"
REFERENCE = "openshift.io/internal-registry-pull-secret-ref"
"""The platform's annotation on an account: the name of its secret."""
OF_ACCOUNT = "openshift.io/internal-registry-auth-token.service-account"
"""The platform's annotation on the secret."""
NAMED_AFTER = "testbed/pull-secret-named-after-seconds"
"""An annotation on a namespace: how long a new account is without a secret in its list."""
FILLED_AFTER = "testbed/pull-secret-filled-after-seconds"
"""An annotation on a namespace: for how long after that the secret is empty."""
DEFAULT_SECONDS = 0.05
TOKEN_SECONDS = 3600
TOKEN_USER = "<token>"
"""The user's name in a secret. The platform writes no other field than `auth`: name and token."""
EMPTY = base64.b64encode(b"{}").decode()
LONGEST, KEPT = 47, 38
"""Letters of an account's name: from 48 on the first 38 of them and a hash of all stand for it."""
LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""What Kubernetes makes random endings of."""
CONTROL_PLANES_OWN = ("kube-system", "kube-public", "kube-node-lease")
"""Namespaces with accounts for each controller of the control plane, and no pods here: left out, to start faster."""


def fnv1a(text: str) -> int:
    """The 32-bit FNV-1a hash of a text."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def secret_prefix(account: str) -> str:
    """What the names of an account's pull secrets begin with."""
    name = account if len(account) <= LONGEST else f"{account[:KEPT]}-{fnv1a(account):08x}"
    return f"{name}-dockercfg-"


def named_secret(account: Object) -> str:
    """The account's own pull secret, as its imagePullSecrets name it; empty while they do not."""
    prefix = secret_prefix(account["metadata"]["name"])
    names = [str(entry.get("name", "")) for entry in account.get("imagePullSecrets") or []]
    return next((name for name in names if name.startswith(prefix)), "")


def is_filled(secret: Object) -> bool:
    """Whether a pull secret has a token already."""
    return bool((secret.get("data") or {}).get(".dockercfg", EMPTY) != EMPTY)


def has_pull_secret(client: Client, namespace: str, account: str = "default") -> bool:
    """Whether an account is there, names its pull secret, and the secret has its token."""
    path = f"/api/v1/namespaces/{namespace}"
    try:
        name = named_secret(client.get(f"{path}/serviceaccounts/{account}"))
        return bool(name) and is_filled(client.get(f"{path}/secrets/{name}"))
    except ApiError as error:
        if error.status != 404:
            raise
        return False


def name_now(client: Client, namespace: str) -> None:
    """Name the pull secret of a namespace's account `default` at once, however long it was to take."""
    path = f"/api/v1/namespaces/{namespace}"
    for changed, metadata in (
        (path, {"annotations": {NAMED_AFTER: "0"}}),
        (f"{path}/serviceaccounts/default", {"labels": {"a": "b"}}),
    ):
        client.request("PATCH", changed, body={"metadata": metadata}, content_type=MERGE_PATCH)


def dockercfg(host: str, token: str) -> str:
    """The content of a filled secret: the account's token, for the internal registry."""
    auth = base64.b64encode(f"{TOKEN_USER}:{token}".encode()).decode()
    return base64.b64encode(json.dumps({host: {"auth": auth}}).encode()).decode()


def token_for(host: str, secret: Object) -> str:
    """The token that a filled secret has for a registry. Raises KeyError if it has none for that one."""
    content = json.loads(base64.b64decode(secret["data"][".dockercfg"]))
    return base64.b64decode(content[host]["auth"]).decode().removeprefix(f"{TOKEN_USER}:")


class PullSecrets:
    """A context manager: threads that give accounts their secrets, on any API server. `client` is an administrator's."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._host = ""
        self._scheduler = Scheduler("pull-secrets")
        self._seen: dict[str, Object] = {}
        """Accounts without a secret, by UID, so that a registry that appears gives them one."""
        self._watchers = [Watcher(client, IMAGE_CONFIGS, self._config), Watcher(client, ACCOUNTS, self._account)]

    def start(self) -> Self:
        """Begin, in threads."""
        self._scheduler.start()
        for watcher in self._watchers:
            watcher.start()
        return self

    def stop(self) -> None:
        """End the threads."""
        for watcher in self._watchers:
            watcher.stop()
        self._scheduler.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # What there is to do.

    def _config(self, kind: str, config: Object) -> None:
        self._host = "" if kind == "DELETED" else str((config.get("status") or {}).get("internalRegistryHostname") or "")
        if self._host:
            for account in list(self._seen.values()):
                self._begin(account)

    def _account(self, kind: str, account: Object) -> None:
        metadata = account["metadata"]
        if kind == "DELETED" or named_secret(account) or metadata["namespace"] in CONTROL_PLANES_OWN:
            self._seen.pop(metadata["uid"], None)
            return
        self._seen[metadata["uid"]] = account
        if self._host:
            self._begin(account)

    def _begin(self, account: Object) -> None:
        """Name a secret after the namespace's delay; a second step for the same account finds nothing left to do."""
        metadata = account["metadata"]
        namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self._scheduler.later(0, lambda: self._wait(namespace, name, uid))

    # The steps.

    def _wait(self, namespace: str, name: str, uid: str) -> None:
        annotations = self._client.get(f"/api/v1/namespaces/{namespace}")["metadata"].get("annotations") or {}
        named, filled = (float(annotations.get(key, DEFAULT_SECONDS)) for key in (NAMED_AFTER, FILLED_AFTER))
        self._scheduler.later(named, lambda: self._name(namespace, name, uid, filled))

    def _name(self, namespace: str, name: str, uid: str, filled_after: float) -> None:
        """Name a secret in the account; only then the platform creates it."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
        account = self._client.get(path)
        if account["metadata"]["uid"] != uid:
            return
        secret = named_secret(account)
        if not secret:
            annotations = account["metadata"].setdefault("annotations", {})
            secret = annotations.setdefault(REFERENCE, secret_prefix(name) + "".join(random.choices(LETTERS, k=5)))
            entry = {"name": secret}
            account["imagePullSecrets"] = [*(account.get("imagePullSecrets") or []), entry]
            account["secrets"] = [*(account.get("secrets") or []), entry]
            self._client.request("PUT", path, body=account)
        self._scheduler.later(0, lambda: self._create(namespace, name, uid, secret, filled_after))

    def _create(self, namespace: str, account: str, uid: str, name: str, filled_after: float) -> None:
        """Create the secret, empty; one that the account named before is there already."""
        owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": account, "uid": uid}
        metadata = {"name": name, "ownerReferences": [owner], "annotations": {OF_ACCOUNT: account}}
        body = {"metadata": metadata, "type": "kubernetes.io/dockercfg", "data": {".dockercfg": EMPTY}}
        try:
            self._client.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body=body)
        except ApiError as error:
            if error.status != 409:
                raise
        self._scheduler.later(filled_after, lambda: self._fill(namespace, account, name))

    def _fill(self, namespace: str, account: str, name: str) -> None:
        """Give the secret a token of the account, which ends with the secret."""
        path = f"/api/v1/namespaces/{namespace}"
        secret = self._client.get(f"{path}/secrets/{name}")
        if is_filled(secret):
            return
        bound = {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": secret["metadata"]["uid"]}
        body = {"spec": {"expirationSeconds": TOKEN_SECONDS, "boundObjectRef": bound}}
        token = self._client.request("POST", f"{path}/serviceaccounts/{account}/token", body=body)["status"]["token"]
        self._client.request("PUT", f"{path}/secrets/{name}", body={**secret, "data": {".dockercfg": dockercfg(self._host, token)}})
