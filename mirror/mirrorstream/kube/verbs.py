"""Kubernetes' verbs: what roles allow, and what audit logs and the API server's own metrics count by."""

from collections.abc import Mapping

_OF_METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OF_NAMESPACES = ("status", "finalize")


def verb(method: str, path: str, params: Mapping[str, str] | None = None) -> str:
    """The verb of a request, by the API server's own rules (RequestInfoFactory in k8s.io/apiserver).

    What is no resource (`/version`, `/apis`) has the method in lower case, as there.
    """
    parts = [part for part in path.split("/") if part]
    # The prefix, the group but for the first one, the version.
    rest = parts[{"api": 2, "apis": 3}.get(parts[0] if parts else "", len(parts)) :]
    if not rest:
        return method.lower()
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in _OF_NAMESPACES:
        rest = rest[2:]
    named = len(rest) > 1
    if method == "GET":
        if (params or {}).get("watch", "0") not in ("0", "false", ""):
            return "watch"
        return "get" if named else "list"
    if method == "DELETE" and not named:
        return "deletecollection"
    return _OF_METHODS.get(method, method.lower())
