"""Scopes of signature policies and registries: which references they guard."""

import threading
from typing import Any

import pytest
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_reference
from mirrorstream_webhook.guards import Guards, SignaturePolicies, SignaturePolicy, signature_paths, signature_policy_from

from tests.webhook.builders import MIRROR_SET, REGISTRY, SOURCE, Bed, digest, image_config, imported, stream, tag

Object = dict[str, Any]
STREAM = stream("app", tag("v1", f"{SOURCE}:v1", imported(1)))


def signature(*scopes: str, namespace: str = "", name: str = "signed") -> Object:
    """A ClusterImagePolicy, or an ImagePolicy of a namespace."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"metadata": metadata, "spec": {"scopes": list(scopes), "policy": {}}}


@pytest.mark.parametrize(
    ("scope", "reference", "guarded"),
    [
        pytest.param("registry.example.com", f"{SOURCE}:v1", True, id="host"),
        pytest.param("registry.example.com:5000", f"{SOURCE}:v1", False, id="the-port-counts"),
        pytest.param("registry.example.com/team", f"{SOURCE}:v1", True, id="namespace"),
        pytest.param("registry.example.com/te", f"{SOURCE}:v1", False, id="half-a-component"),
        pytest.param(SOURCE, f"{SOURCE}:v1", True, id="repository"),
        pytest.param(f"{SOURCE}/sub", f"{SOURCE}:v1", False, id="below-the-repository"),
        pytest.param(f"{SOURCE}:v1", f"{SOURCE}:v1", True, id="tag"),
        pytest.param(f"{SOURCE}:v1", f"{SOURCE}:v2", False, id="another-tag"),
        pytest.param(f"{SOURCE}@{digest(1)}", f"{SOURCE}@{digest(1)}", True, id="digest"),
        pytest.param(f"{SOURCE}@{digest(1)}", f"{SOURCE}@{digest(2)}", False, id="another-digest"),
        pytest.param(f"{SOURCE}:v1", f"{SOURCE}:v1@{digest(1)}", True, id="tag-of-both"),
        pytest.param(f"{SOURCE}@{digest(1)}", f"{SOURCE}:v1@{digest(1)}", True, id="digest-of-both"),
        pytest.param("*.example.com", f"{SOURCE}:v1", True, id="wildcard"),
        pytest.param("*.com", f"{SOURCE}:v1", True, id="wildcard-of-a-parent"),
        pytest.param("*.registry.example.com", f"{SOURCE}:v1", False, id="wildcard-is-not-the-apex"),
        pytest.param("*.example.com", "registry.example.com:5000/team/app:v1", True, id="wildcard-with-a-port"),
        pytest.param("docker.io", "busybox", True, id="defaulted-host"),
        pytest.param("docker.io/library/busybox", "busybox", True, id="defaulted-repository"),
        pytest.param("docker.io/busybox", "busybox", False, id="a-name-that-no-image-has"),
    ],
)
def test_the_scope_of_a_signature_policy(scope: str, reference: str, guarded: bool) -> None:
    """As the node's policy.json looks a reference up."""
    policies = SignaturePolicies()
    policies.apply(None, signature_policy_from(signature(scope)))
    assert policies.covering(parse_reference(reference), "team") == ("ClusterImagePolicy signed" if guarded else "")


@pytest.mark.parametrize(
    ("policies", "namespace", "named"),
    [
        pytest.param([signature(SOURCE, namespace="team")], "team", "ImagePolicy team/signed", id="the-pods-namespace"),
        pytest.param([signature(SOURCE, namespace="other")], "team", "", id="another-namespace"),
        pytest.param([signature(SOURCE, namespace="openshift")], "team", "", id="the-streams-namespace-does-not-count"),
        pytest.param(
            [signature("registry.example.com", name="wide"), signature(SOURCE, namespace="team")],
            "team",
            "ClusterImagePolicy wide",
            id="inside-the-clusters-it-does-not-count",
        ),
        pytest.param(
            [signature("*.example.com", name="wide"), signature(SOURCE, namespace="team")],
            "team",
            "ClusterImagePolicy wide",
            id="inside-a-wildcard-of-the-clusters",
        ),
        pytest.param(
            [signature(SOURCE, name="cluster"), signature(f"{SOURCE}:v1", namespace="team")],
            "team",
            "ImagePolicy team/signed",
            id="a-tag-lies-in-no-repository",
        ),
        pytest.param(
            [signature("*.example.com", name="wide"), signature(f"{SOURCE}:v1", namespace="team")],
            "team",
            "ImagePolicy team/signed",
            id="a-tag-lies-in-no-wildcard",
        ),
        pytest.param(
            [signature(f"{SOURCE}/sub", name="narrow"), signature("registry.example.com", namespace="team")],
            "team",
            "ImagePolicy team/signed",
            id="around-the-clusters-it-counts",
        ),
        pytest.param(
            [signature(SOURCE, name="cluster"), signature(SOURCE, namespace="team")],
            "team",
            "ClusterImagePolicy cluster",
            id="of-equals-the-clusters",
        ),
        pytest.param([signature(SOURCE, name="b"), signature(SOURCE, name="a")], "team", "ClusterImagePolicy a", id="by-name"),
    ],
)
def test_nested_policies_of_cluster_and_namespace(policies: list[Object], namespace: str, named: str) -> None:
    """Policies count for the pods of their namespace; the reason names the one that decides."""
    bed = Bed(STREAM, signatures=tuple(policies))
    result, reason, target = bed.image(f"{SOURCE}:v1", namespace)
    assert bool(target) == (not named)
    if named:
        assert (result, reason.startswith(named)) == ("signature-policy", True)


@pytest.mark.parametrize(
    ("scope", "identity", "served"),
    [
        pytest.param(SOURCE, {"matchPolicy": "MatchRepository"}, True, id="repository"),
        pytest.param("*.example.com", {"matchPolicy": "ExactRepository", "exactRepository": {}}, True, id="exact-repository"),
        pytest.param(SOURCE, {"matchPolicy": "MatchRepoDigestOrExact"}, False, id="demands-the-tag"),
        pytest.param(SOURCE, {"matchPolicy": "RemapIdentity"}, False, id="remapped"),
        pytest.param(SOURCE, None, False, id="the-default-demands-the-tag"),
        pytest.param(f"{SOURCE}:v1", {"matchPolicy": "MatchRepository"}, False, id="a-scope-that-the-digest-leaves"),
    ],
)
def test_the_digest_way_under_a_signature_policy(scope: str, identity: Object | None, served: bool) -> None:
    """Taken only where the node checks the digest as it would check the tag, and never through the internal registry."""
    policy = signature(scope)
    policy["spec"]["policy"] = {"signedIdentity": identity} if identity else {}
    result, _, target = Bed(STREAM, signatures=(policy,)).image(f"{SOURCE}:v1")
    assert (result, target) == (("rewritten", f"{SOURCE}@{digest(1)}") if served else ("signature-policy", ""))
    # Of several policies of one scope all must be satisfied.
    other = signature(scope, name="other")
    assert Bed(STREAM, signatures=(policy, other)).image(f"{SOURCE}:v1")[2] == ""


def test_a_signature_policy_of_the_mirror_or_of_the_digest_alone_is_respected() -> None:
    """A pod that nothing guards is not moved under a policy that would refuse it."""
    for scope in (f"{SOURCE}@{digest(1)}", REGISTRY):
        bed = Bed(STREAM, signatures=(signature(scope),), serveFrom=["digest" if scope.startswith(SOURCE) else "registry"])
        assert bed.image(f"{SOURCE}:v1")[2] == ""


def test_policies_come_and_go() -> None:
    """A policy that two objects give stays until both are gone, and a change of scopes leaves nothing behind."""
    policies = SignaturePolicies()
    reference = parse_reference(SOURCE)
    first, second, moved = (
        signature_policy_from(signature(scope, name=name)) for scope, name in ((SOURCE, "a"), (SOURCE, "b"), ("quay.io", "a"))
    )
    policies.apply(None, first)
    policies.apply(None, second)
    policies.apply(first, moved)
    assert policies.covering(reference, "team") == "ClusterImagePolicy b"
    policies.apply(second, None)
    assert policies.covering(reference, "team") == ""
    policies.apply(moved, None)
    assert policies.covering(parse_reference("quay.io/a/b"), "team") == ""


def test_both_versions_give_a_policy_at_once() -> None:
    """The lists of v1 and v1alpha1 have threads of their own: when one of them ends, the other's policy still counts."""
    policies, policy = SignaturePolicies(), signature_policy_from(signature(SOURCE))
    other = threading.Thread(target=policies.apply, args=(None, policy))

    class Interrupted(SignaturePolicy, frozen=True):
        """The same policy; while it is taken over, the other version's thread has its turn."""

        def __str__(self) -> str:
            if other.ident is None:
                other.start()
                other.join(0.2)  # it ends only where nothing keeps it out
            return str(policy)

    interrupted = Interrupted(policy.metadata, policy.spec)
    policies.apply(None, interrupted)
    other.join()
    policies.apply(policy, None)
    assert policies.covering(parse_reference(SOURCE), "team") == "ClusterImagePolicy signed"
    policies.apply(interrupted, None)
    assert policies.covering(parse_reference(SOURCE), "team") == ""


@pytest.mark.parametrize(
    ("sources", "result"),
    [
        pytest.param({"blockedRegistries": ["registry.example.com"]}, "blocked", id="blocked-host"),
        pytest.param({"blockedRegistries": ["registry.example.com/team"]}, "blocked", id="blocked-namespace"),
        pytest.param({"blockedRegistries": ["*.example.com"]}, "blocked", id="blocked-wildcard"),
        pytest.param({"blockedRegistries": ["registry.example.com/other"]}, "rewritten", id="blocked-elsewhere"),
        pytest.param({"allowedRegistries": [REGISTRY]}, "blocked", id="not-allowed"),
        pytest.param({"allowedRegistries": [REGISTRY, "registry.example.com"]}, "rewritten", id="allowed"),
        pytest.param({"allowedRegistries": ["registry.example.com"]}, "registry-refused", id="internal-registry-not-allowed"),
        pytest.param({"blockedRegistries": [REGISTRY]}, "registry-refused", id="internal-registry-blocked"),
    ],
)
def test_registries_that_are_blocked_or_not_allowed(sources: Object, result: str) -> None:
    """What the node would refuse stays refused, and no pod is pointed at a registry that the node refuses."""
    rules = (MIRROR_SET, image_config(**sources))
    assert Bed(STREAM, rules=rules, serveFrom=["registry"]).image(f"{SOURCE}:v1")[0] == result
    if result == "registry-refused":
        assert Bed(STREAM, rules=rules).image(f"{SOURCE}:v1")[2] == f"{SOURCE}@{digest(1)}"


def test_a_source_that_is_never_to_be_contacted_is_the_normal_disconnected_cluster() -> None:
    """NeverContactSource blocks the source on the node, and is no word against its image."""
    entry = {**MIRROR_SET["spec"]["imageDigestMirrors"][0], "mirrorSourcePolicy": "NeverContactSource"}  # type: ignore[index]
    rules = ({**MIRROR_SET, "spec": {"imageDigestMirrors": [entry]}},)
    assert Bed(STREAM, rules=rules).image(f"{SOURCE}:v1")[0] == "rewritten"


def test_guards_can_be_left_out_but_not_for_the_internal_registry() -> None:
    """respectImagePolicies: false gives up the guards; where the node cannot pull, it still cannot."""
    rules = (MIRROR_SET, image_config(blockedRegistries=["registry.example.com"]))
    signatures = (signature(SOURCE), signature(REGISTRY, name="internal"))
    assert Bed(STREAM, rules=rules, signatures=signatures, respectImagePolicies=False).image(f"{SOURCE}:v1")[0] == "rewritten"
    refused = (MIRROR_SET, image_config(blockedRegistries=[REGISTRY]))
    by_registry = {"serveFrom": ["registry"]}
    assert Bed(STREAM, rules=refused, respectImagePolicies=False, **by_registry).image(f"{SOURCE}:v1")[0] == "registry-refused"
    assert Bed(STREAM, signatures=signatures[1:], **by_registry).image(f"{SOURCE}:v1")[0] == "registry-refused"


@pytest.mark.parametrize(
    ("secrets", "account", "result"),
    [
        pytest.param([], "", "pull-secrets", id="none"),
        pytest.param(["default-dockercfg-x7k2p"], "", "rewritten", id="the-accounts-own"),
        pytest.param(["mine", "builder-dockercfg-abcde"], "builder", "rewritten", id="one-of-several"),
        pytest.param(["mine"], "", "pull-secrets", id="only-its-own"),
        pytest.param(["other-dockercfg-abcde"], "", "pull-secrets", id="another-accounts"),
    ],
)
def test_pull_secrets(secrets: list[str], account: str, result: str) -> None:
    """A pod that names secrets does not get its account's, nor one whose account has none yet: it cannot log in."""
    spec = {"imagePullSecrets": [{"name": name} for name in secrets], **({"serviceAccountName": account} if account else {})}
    assert Bed(STREAM, serveFrom=["registry"]).image(f"{SOURCE}:v1", **spec)[0] == result
    by_digest = Bed(STREAM).image(f"{SOURCE}:v1", **spec)[2] == f"{SOURCE}@{digest(1)}"
    assert by_digest == (result == "pull-secrets")


def test_answers_are_remembered_only_under_the_rules_that_gave_them() -> None:
    """The memory is bounded, and goes with the snapshot of the rules."""
    guards = Guards(MirrorPolicy.from_objects([MIRROR_SET]), SignaturePolicies(), respect=True)
    for number in range(25_000):
        text = f"registry.example.com/a/{number}"
        guards.problem(parse_reference(text), text, "team")
    assert len(guards._problems) <= 10_000


def test_a_policy_that_is_served_in_two_versions_counts_until_both_are_gone() -> None:
    """A release may serve the same object as v1 and v1alpha1, and stop to serve the older one."""
    policies, policy = SignaturePolicies(), signature_policy_from(signature(SOURCE))
    by_repository = signature_policy_from(
        {
            "metadata": {"name": "other"},
            "spec": {"scopes": [SOURCE], "policy": {"signedIdentity": {"matchPolicy": "MatchRepository"}}},
        }
    )
    for found in (policy, policy, by_repository, by_repository):
        policies.apply(None, found)
    policies.apply(policy, None)
    assert policies.guard(f"{SOURCE}:v1", "team", digest(1)) == "ClusterImagePolicy other"
    policies.apply(policy, None)
    assert policies.guard(f"{SOURCE}:v1", "team", digest(1)) == ""
    assert policies.guard(f"{SOURCE}:v1", "team", "") == "ClusterImagePolicy other"
    policies.apply(by_repository, None)
    policies.apply(by_repository, None)
    assert policies.guard(f"{SOURCE}:v1", "team", "") == ""


def test_every_version_of_both_kinds_is_read() -> None:
    """Of all namespaces, or of one and the cluster."""
    root = "/apis/config.openshift.io"
    assert [path for _, _, path in signature_paths("team")] == [
        f"{root}/v1/clusterimagepolicies",
        f"{root}/v1/namespaces/team/imagepolicies",
        f"{root}/v1alpha1/clusterimagepolicies",
        f"{root}/v1alpha1/namespaces/team/imagepolicies",
    ]
    assert {path.rpartition("/")[2] for _, _, path in signature_paths()} == {"clusterimagepolicies", "imagepolicies"}
    assert not any("namespaces" in path for _, _, path in signature_paths())


def test_a_policy_of_a_namespace_does_not_weaken_the_clusters() -> None:
    """Nodes drop it: the digest would be checked less than the tag, whatever the namespace's policy looks at."""
    policies = SignaturePolicies()
    policies.apply(None, signature_policy_from(signature("registry.example.com")))
    namespaced = signature(SOURCE, namespace="team")
    namespaced["spec"]["policy"] = {"signedIdentity": {"matchPolicy": "MatchRepository"}}
    policies.apply(None, signature_policy_from(namespaced))
    tag_, by_digest = parse_reference(f"{SOURCE}:v1"), parse_reference(f"{SOURCE}@{digest(1)}")
    assert not policies.allow_digest(tag_, by_digest, "team")
