"""config/fleet/: what installs and watches mirrorstream on many clusters fits to what is installed."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from e2e.testbed.documents import PROJECT, blocks
from e2e.testbed.support.kustomize import CONFIG
from tests.manifests.conftest import Render

Object = dict[str, Any]
FLEET = CONFIG / "fleet"
PAGE = PROJECT / "docs" / "gitops-and-olm.md"
OVERLAY, VERSION, IMAGE = (f"mirrorstream.github.io/{name}" for name in ("overlay", "version", "image"))
FIELDS = {
    "ApplicationSet": {"generators", "goTemplate", "goTemplateOptions", "syncPolicy", "template"},
    "ManagedClusterSetBinding": {"clusterSet"},
    "Placement": {"clusterSets", "predicates"},
    "Policy": {"disabled", "policy-templates", "remediationAction"},
    "ConfigurationPolicy": {"object-templates", "remediationAction", "severity"},
    "PlacementBinding": set(),
    "Namespace": set(),
    "ConfigMap": set(),
}
"""The fields of each kind's spec that are used. All of them are in the custom resource definitions of Argo CD 3.5 and OCM 1.2."""


def documents(name: str) -> list[Object]:
    """The objects of a file."""
    return list(yaml.safe_load_all((FLEET / name).read_text(encoding="utf-8")))


def everything() -> Iterator[Object]:
    """Every object of the folder, those inside of policies included."""
    for path in sorted(FLEET.glob("*.yaml")):
        for item in documents(path.name):
            yield item
            for template in item.get("spec", {}).get("policy-templates", []):
                yield template["objectDefinition"]


def the(kind: str) -> Object:
    """The only object of a kind."""
    (item,) = [item for item in everything() if item["kind"] == kind]
    return item


def objects_of_policies() -> Iterator[tuple[str, Object]]:
    """How an object is compared with the cluster's, and the object."""
    for item in everything():
        if item["kind"] == "ConfigurationPolicy":
            for template in item["spec"]["object-templates"]:
                yield template["complianceType"], template["objectDefinition"]


def contains(actual: Any, expected: Any) -> bool:
    """Whether a policy of the type musthave would be content: of a list, each expected item is contained in one that is there."""
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(key in actual and contains(actual[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return isinstance(actual, list) and all(any(contains(one, item) for one in actual) for item in expected)
    return bool(actual == expected)


def test_kinds_and_fields_are_known() -> None:
    """Nothing is misspelt; each object has a name and the API of its kind."""
    for item in everything():
        assert item.keys() <= {"apiVersion", "kind", "metadata", "spec", "data", "placementRef", "subjects"}, item["kind"]
        assert item["metadata"]["name"]
        assert item.get("spec", {}).keys() == FIELDS[item["kind"]], item["kind"]


def test_every_overlay_that_a_cluster_can_ask_for_exists() -> None:
    """The label's values are folders."""
    spec = the("ApplicationSet")["spec"]
    (expression,) = spec["generators"][0]["clusters"]["selector"]["matchExpressions"]
    assert (expression["key"], expression["operator"]) == (OVERLAY, "In")
    source = spec["template"]["spec"]["source"]
    template = f'{{{{ index .metadata.labels "{OVERLAY}" }}}}'
    assert source["path"].count(template) == 1
    for overlay in expression["values"]:
        assert (PROJECT / source["path"].replace(template, overlay) / "kustomization.yaml").is_file(), overlay


def test_a_cluster_without_a_version_or_an_image_is_refused() -> None:
    """The template fails with a sentence rather than install what is nowhere; the image's name is the one that overlays have."""
    source = the("ApplicationSet")["spec"]["template"]["spec"]["source"]
    (image,) = source["kustomize"]["images"]
    (entry,) = yaml.safe_load((CONFIG / "base" / "kustomization.yaml").read_text(encoding="utf-8"))["images"]
    for text, variable, key, before in (
        (source["targetRevision"], "$version", VERSION, ""),
        (image, "$image", IMAGE, f"{entry['name']}="),
    ):
        assert text == (
            f'{{{{ {variable} := index .metadata.annotations "{key}" }}}}{{{{ if not {variable} }}}}'
            f'{{{{ fail "the cluster has no annotation {key}" }}}}{{{{ end }}}}{before}{{{{ {variable} }}}}'
        )


def test_an_application_is_the_one_that_the_page_shows() -> None:
    """One way to keep caBundle, not two."""
    (shown,) = [
        document
        for block in blocks(PAGE)
        if block.language == "yaml"
        for document in yaml.safe_load_all(block.text)
        if document and document.get("kind") == "Application"
    ]
    made = the("ApplicationSet")["spec"]["template"]["spec"]
    for key in ("project", "ignoreDifferences", "syncPolicy"):
        assert made[key] == shown["spec"][key], key
    assert made["destination"]["namespace"] == shown["spec"]["destination"]["namespace"]


@pytest.mark.parametrize("overlay", ["openshift", "single-node"])
def test_policies_accept_what_is_installed(overlay: str, rendered: Render) -> None:
    """And the role exactly: whoever widens it, on a cluster or here, is reported."""
    items = {(item["kind"], item["metadata"]["name"]): item for item in rendered(overlay)}
    found = 0
    for compared, wanted in objects_of_policies():
        there = items[wanted["kind"], wanted["metadata"]["name"]]
        expected = {key: value for key, value in wanted.items() if key != "status"}
        assert contains(there, expected), wanted["metadata"]["name"]
        if compared == "mustonlyhave":
            assert {key: there[key] for key in expected if key != "metadata"} == {
                key: value for key, value in expected.items() if key != "metadata"
            }
            found += 1
    assert found == 1


def test_policies_change_nothing_and_find_their_clusters() -> None:
    """They inform; the binding names the policy and the placement, which selects by the label that installs."""
    policy, binding, placement = the("Policy"), the("PlacementBinding"), the("Placement")
    configurations = [item for item in everything() if item["kind"] == "ConfigurationPolicy"]
    assert {item["spec"]["remediationAction"] for item in [policy, *configurations]} == {"inform"}
    namespace = the("Namespace")["metadata"]["name"]
    assert {item["metadata"]["namespace"] for item in (policy, binding, placement, the("ManagedClusterSetBinding"))} == {namespace}
    assert len(f"{namespace}.{policy['metadata']['name']}") <= 63, "the name of its copies in the namespaces of clusters"
    assert binding["placementRef"]["name"] == placement["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [policy["metadata"]["name"]]
    assert placement["spec"]["clusterSets"] == [the("ManagedClusterSetBinding")["spec"]["clusterSet"]]
    (predicate,) = placement["spec"]["predicates"]
    (expression,) = predicate["requiredClusterSelector"]["labelSelector"]["matchExpressions"]
    assert (expression["key"], expression["operator"]) == (OVERLAY, "Exists")


def test_metrics_that_are_sent_to_the_hub_exist() -> None:
    """By the table of docs/monitoring.md, which is held to the programs; no histogram, whose buckets would be many series."""
    config = the("ConfigMap")
    assert (config["metadata"]["name"], config["metadata"]["namespace"]) == (
        "observability-metrics-custom-allowlist",
        "open-cluster-management-observability",
    )
    (key,) = config["data"]
    assert key == "uwl_metrics_list.yaml"
    listed = yaml.safe_load(config["data"][key])
    assert listed.keys() == {"names"}
    table = (PROJECT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    kinds = dict(re.findall(r"^\| `(mirrorstream_\w+)` \| (\w+) \|", table, re.MULTILINE))
    assert len(set(listed["names"])) == len(listed["names"])
    for name in listed["names"]:
        assert kinds[name] in ("gauge", "counter"), name


def test_the_page_names_every_file_and_key() -> None:
    """Who follows it finds all of them."""
    page = PAGE.read_text(encoding="utf-8")
    for path in FLEET.iterdir():
        assert f"`config/fleet/{path.name}`" in page
    assert [key for key in (OVERLAY, VERSION, IMAGE) if key not in page] == []
