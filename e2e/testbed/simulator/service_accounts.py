"""Service accounts: a default one in each namespace, their admission of pods, their tokens, and who a token is.

Kubernetes makes the default account a moment after the namespace, and admits no pod before. Its plugin copies the account's
imagePullSecrets into a pod that names none, before any webhook is asked; a pod's list never changes afterwards.
"""

import base64
import contextlib
import json
import threading
from typing import Any

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.identity import Identity
from e2e.testbed.simulator.resources import NAMESPACES, Context, Handler, PlainStrategy, Registry, Resource
from e2e.testbed.simulator.store import Object, Store

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
"""As an equal of what is served."""
MIRROR_POD = "kubernetes.io/config.mirror"
TOKEN = "simulated."


def register(registry: Registry) -> None:
    """Serve pods, service accounts with their tokens, and TokenReviews."""
    registry.add(
        Resource("", "v1", "serviceaccounts", "ServiceAccount", strategy=PlainStrategy(), subresources={"token": _request_token})
    )
    pods: dict[str, Handler] = {"ephemeralcontainers": _unread}
    registry.add(Resource("", "v1", "pods", "Pod", True, True, strategy=_PodStrategy(), admitted=True, subresources=pods))
    reviews = "tokenreviews"
    registry.add(Resource("authentication.k8s.io", "v1", reviews, "TokenReview", False, stored=False, create=_review_token))


class DefaultAccounts:
    """A thread that gives every namespace its account `default`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._subscription = store.subscribe(NAMESPACES, None)
        self._thread = threading.Thread(target=self._run, name="default-accounts", daemon=True)
        self._stopped = False

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        self._subscription.events.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped:
            event = self._subscription.events.get()
            if event and event.type == "ADDED":
                with contextlib.suppress(errors.StatusError), self._store.lock:  # it has one, or is gone already
                    namespace = event.object["metadata"]["name"]
                    self._store.get(NAMESPACES, "", namespace)
                    self._store.create(SERVICE_ACCOUNTS, namespace, {"metadata": {"name": "default"}})


class _PodStrategy(PlainStrategy):
    """What the plugins of kube-apiserver do to pods."""

    def admit(self, item: Object, old: Object | None, context: Context) -> None:
        """ServiceAccount: complete a new pod. Raises a 403 before its account is there."""
        annotations = item["metadata"].get("annotations") or {}
        if old is not None or MIRROR_POD in annotations:
            return
        spec = item.setdefault("spec", {})
        name = spec["serviceAccountName"] = spec["serviceAccount"] = spec.get("serviceAccountName") or "default"
        try:
            account = context.store.get(SERVICE_ACCOUNTS, context.namespace, name)
        except errors.StatusError as error:
            why = f"error looking up service account {context.namespace}/{name}: serviceaccount {json.dumps(name)} not found"
            raise errors.forbidden("", "pods", item["metadata"]["name"], why) from error
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(entry) for entry in account["imagePullSecrets"]]


def _unread(context: Context, name: str, body: Any) -> Object:
    """Subresources that are only written."""
    raise errors.StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def _request_token(context: Context, name: str, body: Any) -> Object:
    """A token that names its account. Nothing here needs it to be a secret."""
    account = context.store.get(SERVICE_ACCOUNTS, context.namespace, name)
    content = {"namespace": context.namespace, "name": name, "uid": account["metadata"]["uid"]}
    token = TOKEN + base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    typed = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {"name": name}}
    return {**typed, "spec": (body or {}).get("spec") or {}, "status": {"token": token}}


def _review_token(context: Context, name: str, body: Any) -> Object:
    """Whose token it is, as long as that account exists."""
    spec = (body or {}).get("spec") or {}
    typed = {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": spec}
    who = account_of(context.store, str(spec.get("token", "")))
    if who is None:
        return {**typed, "status": {"authenticated": False, "error": "invalid bearer token"}}
    return {**typed, "status": {"authenticated": True, "user": {"username": who.user, "groups": list(who.groups)}}}


def account_of(store: Store, token: str) -> Identity | None:
    """The account that a token names, as long as it exists."""
    try:
        content = token.removeprefix(TOKEN)
        named = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
        namespace, name = named["namespace"], named["name"]
        if store.get(SERVICE_ACCOUNTS, namespace, name)["metadata"]["uid"] != named["uid"]:
            return None
    except (ValueError, KeyError, TypeError, errors.StatusError):
        return None
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return Identity(f"system:serviceaccount:{namespace}:{name}", groups)
