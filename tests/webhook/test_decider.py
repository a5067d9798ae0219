"""What is done about an image: where it is looked for, what keeps it as it is, and what the reason says."""

import json
from typing import Any

import pytest
from mirrorstream_webhook import decider
from mirrorstream_webhook.access import AnswerPendingError

from tests.webhook.builders import (
    ANNOTATION,
    HEALED,
    MIRROR_SET,
    OURS,
    REGISTRY,
    SOURCE,
    Bed,
    digest,
    image_config,
    imported,
    item,
    pod,
    settings,
    stream,
    tag,
)

V1 = f"{SOURCE}:v1"
SHARED = stream("app", tag("v1", V1, imported(1)))
OWN = stream("mine", tag("v1", V1, imported(2)), namespace="team")
REFUSED = f"Internal error occurred: {V1}: dial tcp 10.0.0.1:443: connect: connection refused"
DENIED = f"Internal error occurred: {V1}: denied: requested access to the resource is denied"
UNKNOWN = f"Internal error occurred: {V1}: name unknown: no such repository"
FAILED = tag("v1", V1, failure=REFUSED)
TAG_MIRRORS = {
    "kind": "ImageTagMirrorSet",
    "metadata": {"name": "tags"},
    "spec": {"imageTagMirrors": [{"source": "registry.example.com", "mirrors": ["mirror.corp:5000/up"]}]},
}


def test_the_own_namespace_comes_first_then_the_shared_ones_in_order() -> None:
    """A pod gets its own namespace's image; another namespace's stream is never looked at."""
    base = stream("base", tag("v1", V1, imported(3)), namespace="golden")
    assert Bed(SHARED, OWN).image(V1)[2] == f"{REGISTRY}/team/mine@{digest(2)}"
    assert Bed(SHARED, OWN).image(V1, "elsewhere")[2] == f"{REGISTRY}/openshift/app@{digest(1)}"
    assert Bed(SHARED, base, sharedNamespaces=["golden", "openshift"]).image(V1)[2] == f"{REGISTRY}/golden/base@{digest(3)}"
    assert Bed(OWN).image(V1, "elsewhere") == ("no-stream", "no Local tag stands for it", "")


def test_without_the_right_to_pull_the_next_namespace_is_asked() -> None:
    """The own namespace needs the right, too; the reason names account and namespace."""
    bed = Bed(SHARED, OWN, serveFrom=["registry"])
    bed.denied = {("team", "team")}
    assert bed.image(V1)[2] == f"{REGISTRY}/openshift/app@{digest(1)}"
    bed.denied |= {("openshift", "team")}
    result, reason, _ = bed.image(V1, serviceAccountName="builder")
    assert (result, reason) == ("no-access", "team/builder may not get imagestreams/layers of the stream in team")
    assert bed.asked[-2:] == [("team", "mine", "team", "builder"), ("openshift", "app", "team", "builder")]
    bed.unknown = True
    assert bed.image(V1)[0] == "access-unknown"


def test_the_digest_way_needs_the_right_only_to_the_streams_of_others() -> None:
    """The node pulls with its own credentials what is the pod's own namespace's; nobody reaches another's image through us."""
    bed = Bed(OWN)
    bed.denied = {("team", "team")}
    assert bed.image(V1)[2] == f"{SOURCE}@{digest(2)}"
    shared = Bed(SHARED)
    shared.denied = {("openshift", "team")}
    assert shared.image(V1)[::2] == ("no-access", "")
    shared.unknown = True
    assert shared.image(V1)[::2] == ("access-unknown", "")


def test_access_is_not_asked_for_what_is_left_alone_anyway_nor_when_it_is_not_to_be_checked() -> None:
    """A SubjectAccessReview only where it decides."""
    bed = Bed(SHARED)
    bed.image("quay.io/a/b")
    bed.image(V1, metadata={"annotations": {"kubernetes.io/config.mirror": "0123"}})
    bed.review(pod(V1), namespace="kube-system")
    unchecked = Bed(SHARED, checkAccess=False)
    unchecked.denied = {("openshift", "team")}
    assert unchecked.image(V1)[0] == "rewritten"
    assert not bed.asked
    assert not unchecked.asked


def test_only_what_a_mirror_set_covers_unless_all_is_wanted() -> None:
    """scope: mirrored leaves images alone that the node pulls as ever; the Image config's rules are no mirrors."""
    insecure = image_config(insecureRegistries=["registry.example.com"])
    assert Bed(SHARED, rules=(insecure,)).image(V1)[0] == "not-mirrored"
    assert Bed(SHARED, rules=(image_config(),), scope="all").image(V1)[0] == "rewritten"
    mirrored = stream("app", tag("v1", V1, item(f"mirror.corp:5000/up/team/app@{digest(4)}", 4)))
    # The mirror's own name is covered by nothing, but the tag that it was recorded for is.
    assert Bed(mirrored).image(f"mirror.corp:5000/up/team/app@{digest(4)}")[0] == "rewritten"


def test_two_tags_with_different_digests_are_said() -> None:
    """The name decides, and the reason names who would have given another image."""
    entry = stream("app", tag("b", V1, imported(1)), tag("a", V1, imported(2)), tag("c", V1, imported(2)))
    result, reason, target = Bed(entry).image(V1)
    assert (result, target) == ("rewritten", f"{REGISTRY}/openshift/app@{digest(2)}")
    assert reason == "the tag has this image; openshift/app:b would give another, and come later by name"


@pytest.mark.parametrize(
    ("entry", "rules", "webhook", "result"),
    [
        pytest.param(FAILED, (MIRROR_SET,), {"pendingTags": "leave"}, "not-imported", id="leave"),
        pytest.param(FAILED, (MIRROR_SET,), {}, "pending", id="failed"),
        pytest.param(tag("v1", V1), (MIRROR_SET,), {}, "pending", id="importing"),
        pytest.param(tag("v1", V1, failure=DENIED), (MIRROR_SET,), {}, "pending", id="source-denied"),
        pytest.param(
            tag("v1", V1, failure=DENIED),
            (MIRROR_SET,),
            {"mirrors": {"bypassDenied": False}},
            "not-imported",
            id="source-denied-and-not-bypassed",
        ),
        pytest.param(tag("v1", V1, failure=UNKNOWN), (MIRROR_SET,), {}, "not-imported", id="source-has-none"),
        pytest.param(
            tag("v1", V1, failure=UNKNOWN), (MIRROR_SET,), {"mirrors": {"bypassNotFound": True}}, "pending", id="bypass-not-found"
        ),
        pytest.param(FAILED, (MIRROR_SET, TAG_MIRRORS), {}, "not-imported", id="the-node-has-a-mirror"),
        pytest.param(FAILED, (), {"scope": "all"}, "not-imported", id="nobody-has-a-mirror"),
        pytest.param(tag("v1", V1, imported(1), failure=REFUSED), (MIRROR_SET,), {}, "rewritten", id="has-an-item"),
        pytest.param(FAILED, (MIRROR_SET,), {"serveFrom": ["digest"]}, "not-imported", id="not-from-the-registry"),
    ],
)
def test_a_pod_before_its_tag_is_healed(entry: Any, rules: Any, webhook: Any, result: str) -> None:
    """While the import is pending or its failure may be bypassed, and only where the controller alone has a mirror."""
    found, _, target = Bed(stream("app", entry), rules=(*rules, image_config()), **webhook).image(V1)
    assert found == result
    assert target == {"pending": f"{REGISTRY}/openshift/app:v1", "rewritten": f"{REGISTRY}/openshift/app@{digest(1)}"}.get(
        result, ""
    )


def test_a_pod_waits_for_a_tag_only_where_the_registry_would_serve_it() -> None:
    """Without a login, without a registry or on Windows it would hang for good."""
    bed = Bed(stream("app", FAILED))
    assert bed.image(V1, imagePullSecrets=[])[::2] == ("pull-secrets", "")
    assert bed.image(V1, os={"name": "windows"})[::2] == ("windows", "")
    bed.denied = {("openshift", "team")}
    assert bed.image(V1)[::2] == ("no-access", "")
    bed.rules(MIRROR_SET, image_config(""))
    assert bed.image(V1)[::2] == ("no-registry", "")


def test_a_tag_that_imports_a_digest_is_waited_for_by_that_digest() -> None:
    """Nodes that have no mirror for digests of their own: the registry serves the digest once the tag has it."""
    source = f"{SOURCE}@{digest(7)}"
    bed = Bed(stream("app", tag("v1", source, failure=REFUSED)), rules=(TAG_MIRRORS, image_config()))
    assert bed.image(source)[::2] == ("pending", f"{REGISTRY}/openshift/app@{digest(7)}")


def test_a_pending_tag_of_a_stream_that_opted_out_is_not_waited_for() -> None:
    """Nobody will heal it."""
    bed = Bed(stream("app", FAILED, annotations={"mirrorstream.github.io/import": "disabled"}))
    assert bed.image(V1)[:2] == ("not-imported", "the tag is not imported, and its stream opted out")


@pytest.mark.parametrize(
    ("namespaces", "result"),
    [({"exclude": ["openshift"]}, "not-imported"), ({"include": ["team"]}, "not-imported"), ({"include": ["open*"]}, "pending")],
    ids=str,
)
def test_a_pending_tag_that_the_controller_leaves_out_is_not_waited_for(namespaces: Any, result: str) -> None:
    """Nobody will heal it; what it has already is served as ever."""
    bed = Bed(stream("app", FAILED, tag("v2", f"{SOURCE}:v2", imported(2))), controller={"namespaces": namespaces})
    assert bed.image(V1)[0] == result
    assert bed.image(f"{SOURCE}:v2")[0] == "rewritten"


BY_WILDCARD = {
    "kind": "ImageDigestMirrorSet",
    "metadata": {"name": "wild"},
    "spec": {"imageDigestMirrors": [{"source": "*.example.com", "mirrors": ["mirror.corp:5000/up"]}]},
}


@pytest.mark.parametrize(
    ("mirrors", "allowed", "entry", "metadata", "controller", "result"),
    [
        (MIRROR_SET, {"domainName": "quay.io"}, {}, {}, {}, "not-imported"),
        (MIRROR_SET, {"domainName": "registry.example.com"}, {}, {}, {}, "pending"),
        (MIRROR_SET, {"domainName": "registry.example.com"}, {}, {}, {"recordedReference": "mirror"}, "not-imported"),
        (BY_WILDCARD, {"domainName": "registry.example.com"}, {}, {}, {}, "not-imported"),
        (MIRROR_SET, {"domainName": "registry.example.com", "insecure": True}, {}, {}, {}, "not-imported"),
        (MIRROR_SET, {"domainName": "registry.example.com", "insecure": True}, {"insecure": True}, {}, {}, "pending"),
        (
            MIRROR_SET,
            {"domainName": "registry.example.com", "insecure": True},
            {"insecure": True, "importMode": "PreserveOriginal"},
            {},
            {},
            "pending",
        ),
        (
            MIRROR_SET,
            {"domainName": "registry.example.com", "insecure": True},
            {},
            {"annotations": {"openshift.io/image.insecureRepository": "true"}},
            {},
            "pending",
        ),
    ],
    ids=["another", "source", "mirror-recorded", "wildcard", "port-80", "insecure-tag", "insecure-list", "insecure-stream"],
)
def test_a_tag_is_waited_for_only_where_the_controller_may_record_it(
    mirrors: Any, allowed: Any, entry: Any, metadata: Any, controller: Any, result: str
) -> None:
    """By the import allow-list, as the controller reads it: also for what it will record, and with the tag's own TLS setting."""
    config = image_config()
    config["spec"]["allowedRegistriesForImport"] = [allowed]
    waiting = stream("app", tag("v1", V1, failure=REFUSED, importPolicy=entry), **metadata)
    assert Bed(waiting, rules=(mirrors, config), controller=controller).image(V1)[0] == result


def test_an_item_of_an_earlier_source_does_not_stand_for_the_new_one() -> None:
    """`from` was changed to another repository whose import fails: the last item is not that image."""
    new = "registry.example.com/new/app:v1"
    entry = stream("app", tag("v1", new, imported(1, "registry.example.com/old/app"), failure=REFUSED))
    assert Bed(entry).image(new)[0] == "other-source"
    healed = stream("app", tag("v1", V1, item(f"mirror.corp:5000/up/team/app@{digest(1)}", 1), failure=REFUSED))
    assert Bed(healed).image(V1)[0] == "rewritten"


@pytest.mark.parametrize(
    ("namespace", "metadata", "webhook", "result"),
    [
        pytest.param("kube-system", {}, {}, "excluded-namespace", id="kube"),
        pytest.param("openshift-monitoring", {}, {}, "excluded-namespace", id="openshift"),
        pytest.param("mirrorstream", {}, {}, "excluded-namespace", id="own"),
        pytest.param("openshift", {}, {}, "rewritten", id="the-samples-namespace-is-none-of-them"),
        pytest.param("team", {"labels": {"mirrorstream.github.io/rewrite": "disabled"}}, {}, "opted-out", id="label"),
        pytest.param("team", {"labels": {"mirrorstream.github.io/rewrite": "enabled"}}, {}, "rewritten", id="another-value"),
        pytest.param(
            "team",
            {"ownerReferences": [{"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "name": "db"}]},
            {"excludeOwners": ["Cluster.postgresql.cnpg.io"]},
            "excluded-owner",
            id="owner",
        ),
        pytest.param(
            "team",
            {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app"}]},
            {"excludeOwners": ["Cluster.postgresql.cnpg.io"]},
            "rewritten",
            id="another-owner",
        ),
        pytest.param("team", {}, {"mode": "observe"}, "observed", id="observe"),
    ],
)
def test_whose_pods_are_left_alone(namespace: str, metadata: Any, webhook: Any, result: str) -> None:
    """Each with its reason in the audit annotation, and no patch."""
    rewriting = Bed(SHARED, **webhook).review(pod(V1, metadata=metadata), namespace=namespace)
    assert [image.decision.result for image in rewriting.images] == [result]
    assert bool(rewriting.patch) == (result == "rewritten")


def test_nothing_is_rewritten_before_everything_is_known() -> None:
    """Not synced yet: the pod goes on as it is."""
    bed = Bed(SHARED)
    bed.decider.guards = None
    assert bed.image(V1)[0] == "not-synced"


@pytest.mark.parametrize(
    ("image", "result"),
    [
        pytest.param(f"{REGISTRY}/other/thing:v1", "internal", id="internal"),
        pytest.param("team/App", "unparsable", id="unparsable"),
        pytest.param("x" * 5000, "unparsable", id="endless"),
        pytest.param("quay.io/other/image", "no-stream", id="nobodys"),
    ],
)
def test_what_is_none_of_our_business(image: str, result: str) -> None:
    """Other images stay, whatever they look like."""
    assert Bed(SHARED).image(image)[0] == result


def test_the_rights_that_a_pods_images_need_are_asked_for_at_once() -> None:
    """One after another they could take longer than a review may; the review waits for the first, and is made again."""
    other = "registry.example.com/team/other"
    bed = Bed(stream("app", tag("v1", f"{SOURCE}:v1", imported(1))), stream("other", tag("v1", f"{other}:v1", imported(2))))
    asked: list[str] = []

    def pending(namespace: str, name: str, *who: str) -> bool:
        asked.append(name)
        raise AnswerPendingError(lambda: None)

    bed.decider._may_pull = pending
    with pytest.raises(AnswerPendingError):
        bed.review(pod(f"{SOURCE}:v1", f"{other}:v1"))
    assert asked == ["app", "other"]


def test_settings_that_change_in_the_middle_of_a_review_count_from_the_next_one_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread takes them over, at the moment at which a review keeps what it made of the old ones."""
    bed = Bed(SHARED)
    bed.denied.add(("openshift", "team"))
    make = decider.Ways

    def change(*arguments: Any) -> Any:
        monkeypatch.setattr(decider, "Ways", make)
        bed.decider.configure(settings(checkAccess=False))
        return make(*arguments)

    monkeypatch.setattr(decider, "Ways", change)
    version = bed.decider.version()
    assert bed.image(V1)[0] == "no-access"
    assert bed.decider.version() != version
    assert bed.image(V1)[0] == "rewritten"


APPLIED = {"annotations": {ANNOTATION: json.dumps({"c0": f"{SOURCE}:v1"})}}
OPTED_OUT = {**APPLIED, "labels": {"mirrorstream.github.io/rewrite": "disabled"}}


@pytest.mark.parametrize(
    ("metadata", "webhook", "result", "patched"),
    [
        pytest.param(APPLIED, {}, "rewritten", True, id="usual"),
        pytest.param(APPLIED, {"mode": "observe"}, "observed", False, id="observe"),
        pytest.param(OPTED_OUT, {}, "opted-out", False, id="opted-out"),
    ],
)
def test_a_pod_whose_original_image_is_set_again(metadata: Any, webhook: Any, result: str, patched: bool) -> None:
    """It keeps what it was rewritten to, unless nothing is to be changed: then it gets what its owner says."""
    old, new = pod(OURS, metadata=metadata), pod(f"{SOURCE}:v1", metadata=metadata)
    rewriting = Bed(HEALED, **webhook).review(new, old)
    assert [image.decision.result for image in rewriting.images] == [result]
    assert bool(rewriting.patch) is patched


def test_an_observer_tells_of_the_namespace_that_would_serve() -> None:
    """The pod's own namespace comes first, and has no image."""
    own = stream("app", tag("v1", V1, failure="dial tcp: connect: connection refused"), namespace="team")
    for mode, result in (("active", "rewritten"), ("observe", "observed")):
        assert Bed(own, SHARED, mode=mode, pendingTags="leave").image(V1)[0] == result


def test_nothing_of_a_pod_is_changed_before_everything_is_known() -> None:
    """Its annotation stays, since nobody can tell yet what it stands for."""
    bed = Bed(HEALED)
    bed.decider.guards = None
    assert not bed.review(pod(f"{SOURCE}:v1", metadata=APPLIED), pod(OURS, metadata=APPLIED)).patch
    assert not bed.review(pod(OURS, metadata=APPLIED)).patch


def test_an_observer_tells_of_no_change_to_an_image_that_is_there() -> None:
    """A pod that names the digest already would keep it."""
    for mode in ("active", "observe"):
        assert Bed(HEALED, mode=mode, serveFrom=["digest"]).image(f"{SOURCE}@{digest(1)}")[0] == "kept"
