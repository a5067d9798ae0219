"""The two ways to serve a digest: which one a pod as it is can use, and why not the other one."""

from typing import Any

import pytest
from mirrorstream_webhook.patch import Way
from mirrorstream_webhook.pods import pod_from

from tests.webhook.builders import MIRROR_SET, REGISTRY, SOURCE, Bed, digest, image_config, imported, item, pod, stream, tag

Object = dict[str, Any]
V1 = f"{SOURCE}:v1"
APP = stream("app", tag("v1", V1, imported(1)), namespace="team")
BY_REGISTRY, BY_DIGEST = f"{REGISTRY}/team/app@{digest(1)}", f"{SOURCE}@{digest(1)}"
MIRROR = "mirror.corp:5000/up/team/app"
TAG_MIRRORS = {
    "kind": "ImageTagMirrorSet",
    "metadata": {"name": "tags"},
    "spec": {"imageTagMirrors": [{"source": "registry.example.com", "mirrors": ["mirror.corp:5000/up"]}]},
}


def served(bed: Bed, reference: str = V1, **spec: Any) -> tuple[str, str, str]:
    """The target, the way and why not the other one."""
    (examined,) = bed.review(pod(reference, **spec)).images
    decision = examined.decision
    return decision.target, decision.way, decision.other


@pytest.mark.parametrize(
    ("created", "way"),
    [
        pytest.param("2026-01-02T00:00:00Z", "registry", id="the-insecure-tag-was-last"),
        pytest.param("2025-12-31T00:00:00Z", "digest", id="the-other-tag-was-last"),
    ],
)
def test_of_tags_with_one_image_the_last_decides_whether_it_is_insecure(created: str, way: str) -> None:
    """The internal registry is asked for a digest, and does not know for which tag."""
    of_mirror = item(f"{MIRROR}@{digest(1)}", 1)
    tags = tag("v1", V1, of_mirror), tag("v2", f"{SOURCE}:v2", of_mirror | {"created": created}, importPolicy={"insecure": True})
    bed = Bed(stream("app", *tags, namespace="team"), rules=(TAG_MIRRORS, image_config(insecureRegistries=["mirror.corp:5000"])))
    assert [served(bed, f"{SOURCE}:{name}")[1] for name in ("v1", "v2")] == [way, way]


def test_the_first_way_of_serve_from_that_the_pod_can_use_is_taken() -> None:
    """In the order of the setting, and one of them alone is possible."""
    no_secret = "registry: the pod names no pull secret of its service account default"
    assert served(Bed(APP)) == (BY_REGISTRY, "registry", "")
    assert served(Bed(APP), imagePullSecrets=[]) == (BY_DIGEST, "digest", no_secret)
    assert served(Bed(APP, serveFrom=["digest", "registry"])) == (BY_DIGEST, "digest", "")
    assert served(Bed(APP, serveFrom=["digest"])) == (BY_DIGEST, "digest", "")
    assert served(Bed(APP, serveFrom=["registry"]), imagePullSecrets=[]) == ("", "", "")
    assert Bed(APP, serveFrom=["registry"]).image(V1, imagePullSecrets=[])[0] == "pull-secrets"


def test_where_neither_can_be_used_both_reasons_are_told() -> None:
    """The result is that of the first; the other's reason stands beside it."""
    bed = Bed(APP, rules=(TAG_MIRRORS, image_config()))
    assert bed.image(V1, imagePullSecrets=[])[0] == "pull-secrets"
    assert served(bed, imagePullSecrets=[])[2] == f"digest: no digest mirror covers {SOURCE}"
    assert Bed(APP, rules=(TAG_MIRRORS,), serveFrom=["digest", "registry"]).image(V1)[0] == "no-digest-mirror"


def test_the_internal_registry_comes_and_goes() -> None:
    """Its name is the Image config's; the streams change in nothing."""
    bed = Bed(APP, rules=(MIRROR_SET, image_config("")))
    assert served(bed) == (BY_DIGEST, "digest", "registry: the cluster has no internal registry")
    bed.rules(MIRROR_SET, image_config("elsewhere.svc:5000"))
    assert served(bed)[0] == f"elsewhere.svc:5000/team/app@{digest(1)}"
    assert bed.image("elsewhere.svc:5000/team/app:v1")[0] == "internal"
    assert bed.image(BY_REGISTRY)[0] == "no-stream"


@pytest.mark.parametrize(
    ("account", "secret", "logs_in"),
    [
        pytest.param("default", "default-dockercfg-x7k2p", True, id="own"),
        pytest.param("default", "default-x-dockercfg-x7k2p", False, id="another-accounts"),
        pytest.param("a" * 47, f"{'a' * 47}-dockercfg-x7k2p", True, id="47-letters"),
        pytest.param(
            "very-long-service-account-name-of-some-application-team",
            "very-long-service-account-name-of-some-0551683b-dockercfg-x7k2p",
            False,
            id="another-long-name",
        ),
        pytest.param(
            "a-service-account-whose-name-has-forty-eight-let",
            "a-service-account-whose-name-has-forty-acfaf991-dockercfg-x7k2p",
            True,
            id="48-letters-are-shortened",
        ),
        pytest.param("a" * 48, f"{'a' * 48}-dockercfg-x7k2p", False, id="48-letters-in-full"),
    ],
)
def test_the_pull_secret_of_the_account(account: str, secret: str, logs_in: bool) -> None:
    """By the name that the platform gives it."""
    target, _, _ = served(Bed(APP), serviceAccountName=account, imagePullSecrets=[{"name": secret}])
    assert target == (BY_REGISTRY if logs_in else BY_DIGEST)


def test_a_registry_that_anybody_may_pull_from_needs_no_pull_secret() -> None:
    """Asked only for pods that cannot log in."""
    bed = Bed(APP)
    bed.anonymous = True
    assert served(bed)[0] == BY_REGISTRY
    assert [question[2:] for question in bed.asked] == [("team", "default")]
    assert served(bed, imagePullSecrets=[])[0] == BY_REGISTRY
    assert bed.asked[-1] == ("team", "app", "", "")


TERM = {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]}]}


@pytest.mark.parametrize(
    ("spec", "windows"),
    [
        pytest.param({"os": {"name": "windows"}}, True, id="os"),
        pytest.param({"os": {"name": "linux"}}, False, id="another-os"),
        pytest.param({"nodeSelector": {"kubernetes.io/os": "windows"}}, True, id="node-selector"),
        pytest.param({"nodeSelector": {"kubernetes.io/os": "linux"}}, False, id="linux-nodes"),
        pytest.param({"affinity": [TERM]}, True, id="affinity"),
        pytest.param({"affinity": [TERM, {"matchExpressions": []}]}, True, id="a-term-that-matches-no-node"),
        pytest.param({"affinity": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]}, False, id="another-affinity"),
    ],
)
def test_a_windows_pod_is_never_pointed_at_the_internal_registry(spec: Object, windows: bool) -> None:
    """Those nodes do not resolve its name."""
    if terms := spec.get("affinity"):
        spec = {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}
    assert served(Bed(APP), **spec)[0] == (BY_DIGEST if windows else BY_REGISTRY)


@pytest.mark.parametrize(
    ("history", "rules", "target"),
    [
        pytest.param(imported(1), (MIRROR_SET,), BY_DIGEST, id="the-source-with-a-digest-mirror"),
        pytest.param(imported(1), (TAG_MIRRORS,), "", id="the-source-with-a-tag-mirror-only"),
        pytest.param(item(f"{MIRROR}@{digest(1)}", 1), (MIRROR_SET,), BY_DIGEST, id="recorded-by-a-digest-mirror"),
        pytest.param(item(f"{MIRROR}@{digest(1)}", 1), (TAG_MIRRORS,), f"{MIRROR}@{digest(1)}", id="recorded-by-a-tag-mirror"),
        pytest.param(
            item(f"{MIRROR}@{digest(1)}", 1),
            (TAG_MIRRORS, image_config(REGISTRY, blockedRegistries=["mirror.corp:5000"])),
            "",
            id="the-mirror-is-blocked",
        ),
        pytest.param(
            imported(1),
            (MIRROR_SET, image_config(REGISTRY, blockedRegistries=["mirror.corp:5000"])),
            "",
            id="every-mirror-is-blocked",
        ),
    ],
)
def test_the_digest_that_a_node_pulls_by_itself(history: Object, rules: tuple[Object, ...], target: str) -> None:
    """By the source's name where a digest mirror covers it, else by the mirror's own where that was recorded, else not at all."""
    bed = Bed(stream("app", tag("v1", V1, history), namespace="team"), rules=rules, serveFrom=["digest"])
    assert served(bed)[0] == target


def test_a_digest_that_the_node_pulls_from_its_mirror_stays_as_it_is() -> None:
    """Nothing is changed, and nothing annotated; a pod that hangs on another reference may get it back."""
    bed = Bed(APP)
    for reference in (BY_DIGEST, f"{SOURCE}:v7@{digest(1)}"):
        document = pod(reference, imagePullSecrets=[])
        assert bed.review(document).patch == []
        assert bed.image(reference, imagePullSecrets=[])[0] == "kept"
        subject = bed.decider.subject(pod_from(document), "team")
        decision = bed.decider.image(reference, subject)
        assert (decision.result, decision.target, decision.way) == ("rewritten", reference, "digest")


def test_a_way_that_was_tried_is_left_out() -> None:
    """A reference that hangs gets the next way; after the last there is none."""
    bed = Bed(APP)
    subject = bed.decider.subject(pod_from(pod(V1)), "team")
    assert bed.decider.image(V1, subject).target == BY_REGISTRY
    assert bed.decider.image(V1, subject, without=frozenset({Way.REGISTRY})).target == BY_DIGEST
    assert bed.decider.image(V1, subject, without=frozenset(Way)).target == ""


def test_names_without_a_registry_where_nodes_search() -> None:
    """They are not docker.io's, whatever a tag says."""
    bed = Bed(stream("box", tag("v1", "busybox", imported(1, "docker.io/library/busybox"))), scope="all")
    assert bed.image("busybox")[0] == "rewritten"
    bed.rules(MIRROR_SET, image_config(containerRuntimeSearchRegistries=["corp.example.com", "docker.io"]))
    reason = "nodes look for a name without a registry in corp.example.com, docker.io"
    assert bed.image("busybox") == ("search-registries", reason, "")
    assert bed.image("docker.io/library/busybox")[0] == "rewritten"


def test_an_image_that_is_never_pulled_stays_beside_one_that_is() -> None:
    """Containers and image volumes."""
    document = pod(V1, V1, volumes=[{"name": "v", "image": {"reference": V1, "pullPolicy": "Never"}}])
    document["spec"]["containers"][0]["imagePullPolicy"] = "Never"
    results = {image.slot.name: image.decision.result for image in Bed(APP).review(document).images}
    assert results == {"c0": "never-pulled", "c1": "rewritten", "volume/v": "never-pulled"}


def test_two_hundred_containers_and_one_that_does_not_parse() -> None:
    """One image never costs the others."""
    images = [V1] * 199 + ["not//valid"]
    rewriting = Bed(APP).review(pod(*images))
    assert [image.decision.result for image in rewriting.images] == ["rewritten"] * 199 + ["unparsable"]


def test_a_pod_that_needs_no_right_is_not_asked_about() -> None:
    """The node pulls a digest of the pod's own namespace with its own credentials: nothing of a review waits for the API server."""
    for bed in (Bed(APP, serveFrom=["digest", "registry"]), Bed(APP, serveFrom=["digest"]), Bed(APP, rules=(MIRROR_SET,))):
        bed.unknown = True
        assert served(bed)[:2] == (BY_DIGEST, "digest")
        assert served(bed, imagePullSecrets=[])[:2] == (BY_DIGEST, "digest")
        assert bed.asked == []
    shared = Bed(stream("app", tag("v1", V1, imported(1))), serveFrom=["digest"])
    assert served(shared)[:2] == (BY_DIGEST, "digest")
    assert shared.asked == [("openshift", "app", "team", "default")]


def test_a_pod_whose_right_is_not_known_in_time_takes_the_way_that_needs_none() -> None:
    """Where it has one."""
    bed = Bed(APP)
    bed.unknown = True
    target, way, other = served(bed)
    assert (target, way) == (BY_DIGEST, "digest")
    assert "does not say whether team/default may" in other


@pytest.mark.parametrize(
    ("insecure", "more", "result", "becomes"),
    [
        pytest.param([], {}, "rewritten", f"{REGISTRY}/team/app@{digest(1)}", id="secure"),
        pytest.param(["*.corp:5000"], {}, "rewritten", f"{REGISTRY}/team/app@{digest(1)}", id="no-scope"),
        pytest.param(["mirror.corp:5000/up"], {}, "rewritten", f"{MIRROR}@{digest(1)}", id="a-path"),
        pytest.param(["*.corp"], {}, "rewritten", f"{MIRROR}@{digest(1)}", id="a-domain"),
        pytest.param(["mirror.corp:5000"], {}, "rewritten", f"{MIRROR}@{digest(1)}", id="the-host"),
        pytest.param(["*.corp"], {"importPolicy": {"insecure": True}}, "rewritten", f"{REGISTRY}/team/app@{digest(1)}", id="tag"),
        pytest.param(
            ["*.corp"], {"importPolicy": {"insecure": True, "importMode": "PreserveOriginal"}}, "rewritten",
            f"{MIRROR}@{digest(1)}", id="a-list-of-the-tag",
        ),
        pytest.param(
            ["*.corp"], {"annotations": {"openshift.io/image.insecureRepository": "true"}}, "rewritten",
            f"{REGISTRY}/team/app@{digest(1)}", id="stream",
        ),
    ],
)  # fmt: skip
def test_what_came_from_an_insecure_mirror_is_not_pulled_through_the_registry(
    insecure: list[str], more: dict[str, Any], result: str, becomes: str
) -> None:
    """The registry goes by the tag and the stream only; nodes by every scope, and pull from the mirror themselves."""
    annotations = {"annotations": more.pop("annotations")} if "annotations" in more else {}
    app = stream("app", tag("v1", V1, item(f"{MIRROR}@{digest(1)}", 1), **more), namespace="team", **annotations)
    rules = (TAG_MIRRORS, image_config(insecureRegistries=insecure))
    bed = Bed(app, rules=rules)
    assert bed.image(V1)[::2] == (result, becomes)
    only = Bed(app, rules=rules, serveFrom=["registry"]).image(V1)
    if becomes.startswith(REGISTRY):
        assert only[2] == becomes
    else:
        assert only[0] == "insecure-source"
        assert "importPolicy.insecure" in only[1]
        assert "importPolicy.insecure" in served(bed)[2]
        # By a digest mirror the registry fetches all the same: it takes each mirror for insecure.
        both = Bed(APP, rules=(TAG_MIRRORS, MIRROR_SET, image_config(insecureRegistries=insecure)))
        assert both.image(V1)[2] == BY_REGISTRY
