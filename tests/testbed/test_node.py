"""How the test bed's node is configured, and where connections to its Services go."""

import json
import sys
import tomllib
from typing import Any

import pytest

from e2e.testbed.node.registriesconf import policy, render
from e2e.testbed.node.serviceproxy import table
from e2e.testbed.node.slot import Slot

KUBERNETES = ("127.0.0.1", 6443)


def mirror_set(kind: str, field: str, source: str, *mirrors: str, **more: str) -> dict[str, Any]:
    """A mirror set with one entry."""
    return {"kind": kind, "metadata": {"name": "a"}, "spec": {field: [{"source": source, "mirrors": list(mirrors), **more}]}}


def digest(source: str, *mirrors: str, **more: str) -> dict[str, Any]:
    """An ImageDigestMirrorSet."""
    return mirror_set("ImageDigestMirrorSet", "imageDigestMirrors", source, *mirrors, **more)


def registries(sets: list[dict[str, Any]], **sources: list[str]) -> dict[str, Any]:
    """registries.conf, by the entries' location or prefix."""
    rendered = tomllib.loads(render(sets, {"registrySources": sources}))
    return {entry["location"] or entry["prefix"]: entry for entry in rendered.get("registry", [])}


def test_each_kind_serves_its_references_only() -> None:
    """Digests come through ICSP and IDMS, tags through ITMS."""
    icsp = mirror_set("ImageContentSourcePolicy", "repositoryDigestMirrors", "up.example/a", "old.example/a")
    itms = mirror_set("ImageTagMirrorSet", "imageTagMirrors", "up.example/a", "tags.example/a")
    (entry,) = registries([itms, icsp, digest("up.example/a", "mirror.example/a")]).values()
    assert [(m["location"], m["pull-from-mirror"]) for m in entry["mirror"]] == [
        ("mirror.example/a", "digest-only"),
        ("old.example/a", "digest-only"),
        ("tags.example/a", "tag-only"),
    ]
    assert "blocked" not in entry


def test_a_source_that_must_not_be_contacted_is_blocked() -> None:
    """NeverContactSource."""
    found = registries([digest("up.example", "mirror.example/up", mirrorSourcePolicy="NeverContactSource")])
    assert found["up.example"]["blocked"] is True


def test_the_image_configs_scopes_reach_mirrors_and_nested_sources() -> None:
    """Insecure and blocked registries, by name or wildcard."""
    sets = [digest("up.example/team", "mirror.example:5000/up")]
    found = registries(sets, insecureRegistries=["mirror.example:5000"], blockedRegistries=["up.example", "*.bad.example"])
    assert found["up.example/team"]["mirror"][0]["insecure"] is True
    assert found["up.example/team"]["blocked"] is True
    assert found["mirror.example:5000"]["insecure"] is True
    assert found["*.bad.example"]["blocked"] is True
    assert found["*.bad.example"]["location"] == ""


@pytest.mark.parametrize(
    ("sources", "default", "scopes"),
    [
        ({}, "insecureAcceptAnything", {}),
        ({"blockedRegistries": ["bad.example"]}, "insecureAcceptAnything", {"bad.example": "reject"}),
        (
            {"allowedRegistries": ["good.example"]},
            "reject",
            {"good.example": "insecureAcceptAnything", "own.example:5000": "insecureAcceptAnything"},
        ),
    ],
    ids=["everything", "blocked", "allowed"],
)
def test_policy(sources: dict[str, list[str]], default: str, scopes: dict[str, str]) -> None:
    """policy.json accepts what the Image config lets it, and the test bed's own registry."""
    document = json.loads(policy({"registrySources": sources}, ["own.example:5000"]))
    assert document["default"] == [{"type": default}]
    assert document["transports"]["docker"] == {scope: [{"type": kind}] for scope, kind in scopes.items()}


def service(name: str, address: str, namespace: str = "default") -> dict[str, Any]:
    """A Service with the named port 443."""
    ports = [{"name": "https", "port": 443, "targetPort": "https"}]
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIP": address, "ports": ports}}


def endpoints(service_name: str, *addresses: str, ready: bool = True) -> dict[str, Any]:
    """An EndpointSlice in `default`."""
    return {
        "metadata": {"namespace": "default", "labels": {"kubernetes.io/service-name": service_name}},
        "ports": [{"name": "https", "port": 8443}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}} for address in addresses],
    }


def test_a_services_address_leads_to_its_ready_endpoints() -> None:
    """The target port is the slice's; other namespaces' and other Services' endpoints are not meant."""
    services = [service("web", "10.0.0.2"), service("web", "10.0.0.3", "other"), service("headless", "None")]
    slices = [endpoints("web", "10.1.0.1", "10.1.0.2"), endpoints("web", "10.1.0.3", ready=False), endpoints("more", "10.1.0.4")]
    assert table(services, slices, KUBERNETES) == {("10.0.0.2", 443): [("10.1.0.1", 8443), ("10.1.0.2", 8443)]}


def test_the_service_kubernetes_leads_to_kube_apiserver() -> None:
    """It has no endpoints here."""
    assert table([service("kubernetes", "10.0.0.1")], [], KUBERNETES) == {("10.0.0.1", 443): [KUBERNETES]}


@pytest.mark.skipif(sys.platform != "linux", reason="a node needs Linux")
def test_two_nodes_have_nothing_in_common() -> None:
    """A slot is taken by one of them, and free again after it."""
    first, second = Slot.take(), Slot.take()
    try:
        for name in ("cgroup", "address", "pods", "services"):
            assert getattr(first, name) != getattr(second, name)
    finally:
        second.release()
        first.release()
    with_first_again = Slot.take()
    assert with_first_again.number <= second.number
    with_first_again.release()
