"""Where a pod may run: whatever words it asks for nodes by, it gets no image that they cannot run."""

from typing import Any

import pytest

from tests.webhook.builders import REGISTRY, SOURCE, Bed, digest, imported, item, pod, stream, tag

Object = dict[str, Any]
V1 = f"{SOURCE}:v1"
ARCH, OLD_ARCH = "kubernetes.io/arch", "beta.kubernetes.io/arch"
BUILD = "node.kubernetes.io/windows-build"
HOST_PROCESS = {"windowsOptions": {"hostProcess": True}}


def term(operator: str, *values: str, key: str = ARCH) -> Object:
    """One expression."""
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def both(*terms: Object) -> Object:
    """One term that has the expressions of all."""
    return {"matchExpressions": [expression for found in terms for expression in found["matchExpressions"]]}


def required(*terms: Object, prefers: tuple[Object, ...] = ()) -> Object:
    """The affinity for nodes that match one of the terms, and better those that match what is preferred."""
    affinity: Object = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}} if terms else {}
    if prefers:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [{"weight": 1, "preference": found} for found in prefers]
    return {"affinity": {"nodeAffinity": affinity}}


ZONE, NAME = term("In", "a", key="zone"), {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}
AMD, ARM, BOTH = term("In", "amd64"), term("In", "arm64"), term("In", "amd64", "arm64")


@pytest.mark.parametrize("mode", ["", "Legacy", "PreserveOriginal"])
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"nodeSelector": {ARCH: "arm64"}}, id="selector"),
        pytest.param({"nodeSelector": {OLD_ARCH: "arm64"}}, id="old-selector"),
        pytest.param(required(ARM), id="in"),
        pytest.param(required(term("In", "arm64", key=OLD_ARCH)), id="old-in"),
        pytest.param(required(BOTH), id="either"),
        pytest.param(required(term("NotIn", "amd64")), id="not-in"),
        pytest.param(required(term("NotIn", "amd64", "ppc64le", key=OLD_ARCH)), id="old-not-in"),
        pytest.param(required(both(BOTH, term("NotIn", "amd64"))), id="in-and-not-in"),
        pytest.param(required(both(ZONE, ARM)), id="and-more"),
        pytest.param(required(AMD, ARM), id="another-term"),
        pytest.param(required(ZONE, ARM), id="beside-one-that-does-not-say"),
        pytest.param(required({**ARM, **NAME}), id="with-fields"),
        pytest.param({"nodeSelector": {"zone": "a"}, **required(ARM)}, id="beside-a-selector"),
        pytest.param(required(prefers=(ARM,)), id="preferred"),
        pytest.param(required(ZONE, prefers=(AMD, ARM)), id="preferred-among-others"),
    ],
)
def test_a_pod_that_asks_for_another_architecture(mode: str, spec: Object) -> None:
    """A Legacy import has the API server's (amd64 here), by whatever words the pod asks for another."""
    bed = Bed(stream("app", tag("v1", V1, imported(1), importPolicy={"importMode": mode})))
    assert bed.image(V1, **spec)[0] == ("rewritten" if mode == "PreserveOriginal" else "architecture")
    assert bed.image(f"{SOURCE}@{digest(1)}", **spec)[0] == "rewritten"
    debugging = [{"name": "debug", "image": V1}]
    old = pod("other:1", **spec)
    update = bed.review(pod("other:1", ephemeralContainers=debugging, **spec), old, subresource="ephemeralcontainers")
    assert bool(update.patch) is (mode == "PreserveOriginal")


@pytest.mark.parametrize(
    ("source", "mode", "amd64", "arm64"),
    [
        pytest.param(V1, "Legacy", "architecture", "rewritten", id="legacy"),
        pytest.param(V1, "PreserveOriginal", "rewritten", "rewritten", id="the-whole-list"),
        pytest.param(f"{SOURCE}@{digest(2)}", "Legacy", "rewritten", "architecture", id="of-a-digest-it-does-not-count"),
    ],
)
def test_a_tag_that_prefers_an_architecture(source: str, mode: str, amd64: str, arm64: str) -> None:
    """By the annotation that the platform's importer knows; a pod that does not say gets what the tag has."""
    annotations = {"importer.image.openshift.io/prefer-arch": "arm64", "other": "x"}
    # A tag whose `from` is a digest is named by its item's own reference.
    entry, status = tag("v1", source, item(V1, 1), importPolicy={"importMode": mode}, annotations=annotations)
    bed = Bed(stream("app", (entry, status)))
    assert bed.image(V1, nodeSelector={ARCH: "amd64"})[0] == amd64
    assert bed.image(V1, **required(ARM))[0] == arm64
    assert bed.image(V1, nodeSelector={"zone": "a"})[0] == bed.image(V1)[0] == "rewritten"


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"nodeSelector": {ARCH: "amd64"}}, id="selector"),
        pytest.param({"nodeSelector": {OLD_ARCH: "amd64", "zone": "a"}}, id="old-selector"),
        pytest.param(required(AMD), id="in"),
        pytest.param(required(ZONE), id="does-not-say"),
        pytest.param(required(NAME), id="fields"),
        pytest.param(required(term("NotIn", "arm64")), id="not-in"),
        pytest.param(required(term("Exists")), id="exists"),
        pytest.param(required(term("DoesNotExist"), term("Gt", "1")), id="no-node"),
        pytest.param(required(both(ARM, term("NotIn", "arm64")), AMD), id="a-term-that-no-node-matches"),
        pytest.param(required(both(ARM, term("In", "amd64", key=OLD_ARCH))), id="old-and-new-differ"),
        pytest.param(required({}, AMD), id="an-empty-term-matches-no-node"),
        pytest.param({"nodeSelector": {ARCH: "amd64"}, **required(ARM)}, id="selector-against-affinity"),
        pytest.param({"nodeSelector": {OLD_ARCH: "amd64"}, **required(prefers=(ARM,))}, id="a-preference-that-cannot-be-met"),
        pytest.param({"affinity": {}}, id="empty"),
        pytest.param(required(), id="no-term"),
    ],
)
def test_a_pod_that_asks_for_no_other_architecture(spec: Object) -> None:
    """It gets the API server's."""
    assert Bed(stream("app", tag("v1", V1, imported(1)))).image(V1, **spec)[0] == "rewritten"


@pytest.mark.parametrize(
    ("spec", "asks"),
    [
        pytest.param({"nodeSelector": {"beta.kubernetes.io/os": "windows"}}, True, id="old-selector"),
        pytest.param(required(term("In", "windows", key="kubernetes.io/os")), True, id="in"),
        pytest.param(required(term("NotIn", "linux", key="kubernetes.io/os")), True, id="not-in"),
        pytest.param(required(term("NotIn", "windows", key="kubernetes.io/os")), False, id="not-in-windows"),
        pytest.param({"os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/os": "windows"}}, False, id="the-field-counts"),
        pytest.param({"nodeSelector": {"kubernetes.io/os": "linux"}}, False, id="linux"),
        pytest.param({"nodeSelector": {BUILD: "10.0.20348"}, "runtimeClassName": "windows-2022"}, True, id="runtime-class"),
        pytest.param(required(term("In", "10.0.20348", key=BUILD)), True, id="build"),
        pytest.param(required(term("Exists", key=BUILD)), True, id="any-build"),
        pytest.param(required(prefers=(term("Gt", "10", key=BUILD),)), True, id="prefers-a-build"),
        pytest.param(required(term("DoesNotExist", key=BUILD)), False, id="no-build"),
        pytest.param(required(term("NotIn", "10.0.20348", key=BUILD)), False, id="not-this-build"),
        pytest.param({"securityContext": {"windowsOptions": {"hostProcess": True}}}, True, id="host-process"),
        pytest.param({"securityContext": {"windowsOptions": {"hostProcess": False}}}, False, id="no-host-process"),
        pytest.param({"initContainers": [{"securityContext": HOST_PROCESS}]}, True, id="host-process-of-a-container"),
        pytest.param({"os": {"name": "linux"}, "securityContext": HOST_PROCESS}, False, id="the-field-counts-more"),
    ],
)
def test_a_pod_for_windows_nodes_does_not_get_the_registry(spec: Object, asks: bool) -> None:
    """They do not resolve its name."""
    by_digest = f"{SOURCE}@{digest(1)}"
    target = Bed(stream("app", tag("v1", V1, imported(1)))).image(V1, **spec)[2]
    assert target == (by_digest if asks else f"{REGISTRY}/openshift/app@{digest(1)}")
