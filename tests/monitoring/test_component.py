"""The kustomize component, rendered as administrators render it."""

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.testbed.support.kustomize import any_kubectl, render, write_overlay
from tests.monitoring.conftest import COMPONENT

Object = dict[str, Any]
PARTS = ["components/monitoring", "components/monitoring/platform", "components/service-ca"]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Object]:
    """An installation that the platform's Prometheus scrapes, by kind and name."""
    kubectl = any_kubectl()
    if kubectl is None:
        pytest.skip("no kubectl on this machine renders the manifests")
    folder: Path = write_overlay(tmp_path_factory.mktemp("overlay") / "platform", resources=["base"], components=PARTS)
    return {(item["kind"], item["metadata"]["name"]): item for item in render(kubectl, folder)}


def test_the_console_finds_the_dashboard(objects: dict[tuple[str, str], Object]) -> None:
    """By namespace and label; it reads the first of the data, whatever its name."""
    found = objects["ConfigMap", "mirrorstream-dashboard"]
    assert found["metadata"]["namespace"] == "openshift-config-managed"
    assert found["metadata"]["labels"]["console.openshift.io/dashboard"] == "true"
    (text,) = found["data"].values()
    assert json.loads(text) == json.loads((COMPONENT / "dashboard.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("program", ["controller", "webhook"])
def test_monitors_choose_the_services_and_their_port(program: str, objects: dict[tuple[str, str], Object]) -> None:
    """By labels, each the service of its own program."""
    monitor, service = objects["ServiceMonitor", f"mirrorstream-{program}"], objects["Service", f"mirrorstream-{program}"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["metadata"]["namespace"] == service["metadata"]["namespace"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    authority = endpoint["tlsConfig"]["ca"]["configMap"]["name"]
    assert objects["ConfigMap", authority]["metadata"]["annotations"] == {"service.beta.openshift.io/inject-cabundle": "true"}


def test_the_platforms_prometheus_may_scrape_only_if_asked_to(objects: dict[tuple[str, str], Object], tmp_path: Path) -> None:
    """The label is the administrator's decision, so it is a component of its own."""
    assert objects["Namespace", "mirrorstream"]["metadata"]["labels"]["openshift.io/cluster-monitoring"] == "true"
    (subject,) = objects["RoleBinding", "mirrorstream-prometheus"]["subjects"]
    assert (subject["name"], subject["namespace"]) == ("prometheus-k8s", "openshift-monitoring")
    kubectl = any_kubectl()
    assert kubectl
    usual = render(kubectl, write_overlay(tmp_path / "usual", resources=["base"], components=[PARTS[0], PARTS[2]]))
    assert not [item for item in usual if "openshift.io/cluster-monitoring" in item["metadata"].get("labels", {})]
    assert not [item for item in usual if item["metadata"]["name"] == "mirrorstream-prometheus"]
