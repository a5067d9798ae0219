"""Every object that is installed is valid for every version of Kubernetes that is supported."""

import functools
from typing import Any

import kubernetes_validate
import pytest
from kubernetes_validate import utils

from tests.manifests.conftest import NAMES, Render

Object = dict[str, Any]
VERSIONS = tuple(f"1.{minor}" for minor in range(28, 37))
OTHERS = {
    "monitoring.coreos.com/v1",
    "cert-manager.io/v1",
    "config.openshift.io/v1",
    "image.openshift.io/v1",
}
"""APIs of others: on a real API server the end-to-end suite tries them, with their custom resource definitions."""
SINCE_1_30 = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
"""Of the component self-signed, which says that it needs 1.30."""


@pytest.fixture(autouse=True)
def read_schemas_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package reads its schemas, some megabytes, again for each object."""
    monkeypatch.setattr(utils, "schema_contents", _schema)


_schema = functools.cache(utils.schema_contents)


@pytest.mark.parametrize("name", [*NAMES, "samples"])
def test_the_schemas_of_every_version_take_every_object(name: str, rendered: Render) -> None:
    """Strictly: a field that a version does not know is an error."""
    checked = 0
    for item in rendered(name):
        if item["apiVersion"] in OTHERS:
            continue
        versions = [v for v in VERSIONS if item["kind"] not in SINCE_1_30 or v not in ("1.28", "1.29")]
        for version in versions:
            assert kubernetes_validate.validate(item, version, strict=True) == version
            checked += 1
    assert checked
