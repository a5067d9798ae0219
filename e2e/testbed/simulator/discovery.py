"""Discovery documents, by which clients learn what a server serves."""

from typing import Any

from e2e.testbed.simulator.resources import Registry


def discovery(registry: Registry, path: str) -> Any:
    """The document at `/api`, `/apis` or below; None where there is none."""
    resources = registry.all()
    groups: dict[str, set[str]] = {}
    for resource in resources:
        if resource.group:
            groups.setdefault(resource.group, set()).add(resource.version)
    described = [
        {
            "name": group,
            "versions": [{"groupVersion": f"{group}/{v}", "version": v} for v in sorted(versions)],
            "preferredVersion": {"groupVersion": f"{group}/{min(versions)}", "version": min(versions)},
        }
        for group, versions in sorted(groups.items())
    ]
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": described}
    for group in described:
        if path == f"/apis/{group['name']}":
            return {"kind": "APIGroup", "apiVersion": "v1", **group}
    prefix = path.removeprefix("/apis/") if path.startswith("/apis/") else path.removeprefix("/api/")
    listed = [resource for resource in resources if resource.api_version == prefix]
    if not listed:
        return None
    entries: list[dict[str, Any]] = []
    for resource in listed:
        verbs = (
            ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
            if resource.stored
            else ["create", "get"]
        )
        base = {"singularName": "", "namespaced": resource.namespaced, "kind": resource.kind}
        entries.append({"name": resource.plural, **base, "verbs": verbs, "shortNames": list(resource.short_names)})
        if resource.has_status:
            entries.append({"name": f"{resource.plural}/status", **base, "verbs": ["get", "patch", "update"]})
        entries += [{"name": f"{resource.plural}/{sub}", **base, "verbs": ["get"]} for sub in resource.subresources]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": prefix, "resources": entries}
