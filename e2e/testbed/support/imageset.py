"""oc-mirror v2's ImageSetConfiguration, checked as strictly as oc-mirror reads it."""

from typing import Any

# It refuses unknown fields, and a file without `kind` or `mirror`: these are the fields of its API v2alpha1.
_TEXT, _FLAG, _NUMBER = str, bool, int
_IMAGE = {"name": _TEXT}
_CHART = {"name": _TEXT, "version": _TEXT, "path": _TEXT, "imagePaths": [_TEXT], "values": dict}
_BUNDLE = {"name": _TEXT, "minVersion": _TEXT, "maxVersion": _TEXT}
_PACKAGE = {**_BUNDLE, "channels": [_BUNDLE], "defaultChannel": _TEXT, "bundles": [_IMAGE]}
SCHEMA: Any = {
    "kind": _TEXT,
    "apiVersion": _TEXT,
    "archiveSize": _NUMBER,
    "mirror": {
        "platform": {
            "graph": _FLAG, "architectures": [_TEXT], "release": _TEXT, "kubeVirtContainer": _FLAG,
            "channels": [{**_BUNDLE, "type": _TEXT, "shortestPath": _FLAG, "full": _FLAG}],
        },
        "operators": [{
            "catalog": _TEXT, "targetCatalog": _TEXT, "targetTag": _TEXT, "full": _FLAG, "skipDependencies": _FLAG,
            "targetCatalogSourceTemplate": _TEXT, "packages": [_PACKAGE],
        }],
        "additionalImages": [_IMAGE],
        "blockedImages": [_IMAGE],
        "samples": [_IMAGE],
        "helm": {"repositories": [{"name": _TEXT, "url": _TEXT, "charts": [_CHART]}], "local": [_CHART]},
    },
}  # fmt: skip


def check(value: Any, schema: Any, where: str = "") -> None:
    """Check a document as strictly as oc-mirror does: no unknown field, no wrong type."""
    if isinstance(schema, dict):
        assert isinstance(value, dict), f"{where}: {value!r} is no mapping"
        for key, item_ in value.items():
            assert key in schema, f"{where}.{key}: unknown"
            check(item_, schema[key], f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list), f"{where}: {value!r} is no list"
        for index, item_ in enumerate(value):
            check(item_, schema[0], f"{where}[{index}]")
    else:
        assert type(value) is schema, f"{where}: {value!r} is no {schema.__name__}"


def check_imageset(document: Any) -> list[str]:
    """Check an ImageSetConfiguration; the names of its additional images."""
    check(document, SCHEMA)
    assert (document["kind"], document["apiVersion"]) == ("ImageSetConfiguration", "mirror.openshift.io/v2alpha1")
    assert "mirror" in document
    images = document["mirror"].get("additionalImages", [])
    assert all(image["name"] for image in images)
    return [image["name"] for image in images]
