"""The JSON Patch: all places that name an image, and nothing else."""

import json
from typing import Any

import pytest

from e2e.testbed.simulator.patches import json_patch
from tests.webhook.builders import MIRROR_SET, REGISTRY, SOURCE, Bed, digest, image_config, imported, pod, stream, tag

Object = dict[str, Any]
V1, V2 = f"{SOURCE}:v1", f"{SOURCE}:v2"
STREAM = stream("app", tag("v1", V1, imported(1)), tag("v2", V2, imported(2)))
FIRST, SECOND = (f"{REGISTRY}/openshift/app@{digest(n)}" for n in (1, 2))
ANNOTATION = "mirrorstream.github.io/original-images"


def originals(document: Object) -> Any:
    """What our annotation says; None without it."""
    text = (document["metadata"].get("annotations") or {}).get(ANNOTATION)
    return json.loads(text) if text else None


def patched(new: Object, old: Object | None = None, **more: Any) -> Object:
    """The pod after a review, which a second review leaves as it is."""
    bed = Bed(STREAM)
    after: Object = json_patch(new, bed.review(new, old, **more).patch)
    assert not bed.review(after, old, **more).patch or old, "a second review patches again"
    return after


def test_every_kind_of_container_and_image_volumes() -> None:
    """Containers, init and ephemeral containers, image volumes; other volumes and other fields stay."""
    document = pod(
        V1,
        "quay.io/other",
        initContainers=[{"name": "init", "image": V2, "command": ["x"]}],
        ephemeralContainers=[{"name": "debug", "image": V1}],
        volumes=[{"name": "data", "emptyDir": {}}, {"name": "model", "image": {"reference": V2, "pullPolicy": "Always"}}],
    )
    after = patched(document)
    spec = after["spec"]
    assert [c["image"] for c in spec["containers"]] == [FIRST, "quay.io/other"]
    assert spec["initContainers"] == [{"name": "init", "image": SECOND, "command": ["x"]}]
    assert spec["ephemeralContainers"][0]["image"] == FIRST
    assert spec["volumes"][1] == {"name": "model", "image": {"reference": SECOND, "pullPolicy": "Always"}}
    assert originals(after) == {"c0": V1, "init": V2, "debug": V1, "volume/model": V2}


def test_annotations_of_others_stay() -> None:
    """An absent map is made, null is replaced, an existing one is added to."""
    for annotations in ({}, {"annotations": None}, {"annotations": {}}, {"annotations": {"a/b": "c"}}):
        after = patched(pod(V1, metadata=annotations))
        kept = {key: value for key, value in after["metadata"]["annotations"].items() if key != ANNOTATION}
        assert kept == (annotations.get("annotations") or {})
        assert originals(after) == {"c0": V1}


def test_a_pod_that_has_nothing_of_ours_gets_no_patch() -> None:
    """Not even an annotation."""
    rewriting = Bed(STREAM).review(pod("quay.io/a", "quay.io/b"))
    assert rewriting.patch == []
    assert [image.decision.result for image in rewriting.images] == ["no-stream", "no-stream"]


def test_an_update_looks_only_at_images_that_changed() -> None:
    """Labels alone: nothing is even looked at. One image: that one, and the other containers' originals stay."""
    old = patched(pod(V1, V2))
    relabelled = {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}}
    assert Bed(STREAM).review(relabelled, old).images == []
    changed = json_patch(old, [{"op": "replace", "path": "/spec/containers/0/image", "value": V2}])
    after = patched(changed, old)
    assert [c["image"] for c in after["spec"]["containers"]] == [SECOND, SECOND]
    assert originals(after) == {"c0": V2, "c1": V2}
    foreign = patched(json_patch(old, [{"op": "replace", "path": "/spec/containers/0/image", "value": "quay.io/a"}]), old)
    assert originals(foreign) == {"c1": V2}


def test_the_last_original_goes_with_its_annotation() -> None:
    """Nothing of ours is left in a pod in which nothing is ours."""
    old = patched(pod(V1))
    after = patched(json_patch(old, [{"op": "replace", "path": "/spec/containers/0/image", "value": "quay.io/a"}]), old)
    assert ANNOTATION not in after["metadata"]["annotations"]


def test_applying_the_same_pod_again_restarts_nothing_though_the_tag_moved_on() -> None:
    """The reference is the one that was rewritten: the pod keeps what it got then, also when it forgot the annotation."""
    old = patched(pod(V1))
    moved = Bed(stream("app", tag("v1", V1, imported(7), imported(1))))
    again = pod(V1)
    rewriting = moved.review(again, old)
    assert json_patch(again, rewriting.patch)["spec"] == old["spec"]
    assert originals(json_patch(again, rewriting.patch)) == {"c0": V1}
    # Another reference is another matter.
    assert (
        "@" + digest(7) in json_patch(old, moved.review(pod(f"{SOURCE}@{digest(7)}"), old).patch)["spec"]["containers"][0]["image"]
    )


def test_the_ephemeral_containers_subresource_gets_no_annotation() -> None:
    """The API server keeps nothing but the containers of such an update."""
    old = pod("quay.io/a")
    new = {**old, "spec": {**old["spec"], "ephemeralContainers": [{"name": "debug", "image": V1}]}}
    after = patched(new, old, subresource="ephemeralcontainers")
    assert after["spec"]["ephemeralContainers"][0]["image"] == FIRST
    assert "annotations" not in after["metadata"]


def test_an_annotation_that_is_not_ours_to_read_counts_as_none() -> None:
    """Whatever somebody wrote there, it is replaced by what is true, and never breaks a review."""
    for text in ("", "nonsense", "[]", '{"c0": 5}', "[" * 100_000):
        after = patched(pod(V1, metadata={"annotations": {ANNOTATION: text}}))
        assert originals(after) == {"c0": V1}


def test_places_without_an_image_are_passed_over() -> None:
    """A container without an image, and an image volume without a reference, are the API server's to judge."""
    document = pod(V1, volumes=[{"name": "v", "image": {}}])
    document["spec"]["containers"].append({"name": "none"})
    assert [image.slot.name for image in Bed(STREAM).review(document).images] == ["c0"]


BY_DIGEST, OTHER = f"{SOURCE}@{digest(1)}", f"{SOURCE}@{digest(9)}"


def annotated(image: str, original: str, **spec: Any) -> Object:
    """A pod whose annotation names an original."""
    return pod(image, metadata={"annotations": {ANNOTATION: json.dumps({"c0": original})}}, **spec)


@pytest.mark.parametrize(
    ("before", "after", "result", "image"),
    [
        pytest.param(pod(V1), annotated(FIRST, V1), "kept", FIRST, id="mended-to-the-registry"),
        pytest.param(pod(V1), annotated(BY_DIGEST, V1), "kept", BY_DIGEST, id="mended-to-the-digest"),
        pytest.param(annotated(FIRST, V1), annotated(BY_DIGEST, V1), "kept", BY_DIGEST, id="from-the-registry-to-the-digest"),
        pytest.param(annotated(FIRST, V1), annotated(OTHER, V1), "kept", OTHER, id="to-another-digest-of-the-repository"),
        pytest.param(
            annotated(FIRST, V1),
            annotated(f"mirror.corp:5000/up/team/app@{digest(1)}", V1),
            "kept",
            f"mirror.corp:5000/up/team/app@{digest(1)}",
            id="to-the-mirrors-own",
        ),
        pytest.param(annotated(BY_DIGEST, V1), annotated(FIRST, V1), "kept", FIRST, id="back-to-the-registry"),
        pytest.param(annotated(FIRST, V1), annotated(V2, V1), "rewritten", SECOND, id="a-tag-is-another-image"),
        pytest.param(annotated(FIRST, V1), annotated(BY_DIGEST, V2), "rewritten", FIRST, id="the-original-was-changed-too"),
        pytest.param(annotated("quay.io/a", V1), annotated(BY_DIGEST, V1), "rewritten", FIRST, id="a-copied-annotation"),
        pytest.param(annotated(FIRST, "quay.io/a:v1"), annotated(V1, "quay.io/a:v1"), "rewritten", FIRST, id="invented"),
        pytest.param(annotated(BY_DIGEST, V1), annotated(V1, V1), "rewritten", BY_DIGEST, id="applied-again-after-the-digest-way"),
        pytest.param(annotated("quay.io/a", V1), annotated(V1, V1), "rewritten", FIRST, id="applied-again-with-a-stale-annotation"),
    ],
)
def test_what_is_ours_is_recognised_by_its_content(before: Object, after: Object, result: str, image: str) -> None:
    """On an update a digest of the repository that the annotation names stays; an annotation alone proves nothing."""
    rewriting = Bed(STREAM).review(after, before)
    assert [examined.decision.result for examined in rewriting.images] == [result]
    final = json_patch(after, rewriting.patch)
    assert final["spec"]["containers"][0]["image"] == image
    assert originals(final) == {"c0": after["spec"]["containers"][0]["image"] if result == "rewritten" else V1}


def test_a_second_review_of_a_new_pod_keeps_its_way_and_its_original() -> None:
    """The API server asks again after another webhook added the pull secret: nothing changes, the original stays known."""
    once = patched(pod(V1, imagePullSecrets=[]))
    assert (once["spec"]["containers"][0]["image"], originals(once)) == (BY_DIGEST, {"c0": V1})
    assert Bed(STREAM).review({**once, "spec": pod(BY_DIGEST)["spec"]}).patch == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(json.dumps({"c0": "x" * 300_000}), id="a-long-original"),
        pytest.param(json.dumps({f"c{n}": V1 for n in range(1, 20_000)}), id="many-containers-that-are-not-there"),
        pytest.param("x" * 300_000, id="long-nonsense"),
        pytest.param(json.dumps({"c0": "not//valid"}), id="an-original-that-does-not-parse"),
    ],
)
def test_an_annotation_of_300_kb_or_of_nonsense_counts_for_nothing_and_goes(text: str) -> None:
    """Somebody wrote it: the pod gets what any pod gets, and the annotation what is true."""
    for document, old in ((annotated(V1, ""), None), (annotated(V1, ""), annotated(FIRST, ""))):
        for each in (document, old):
            if each:
                each["metadata"]["annotations"][ANNOTATION] = text
        after = json_patch(document, Bed(STREAM).review(document, old).patch)
        assert (after["spec"]["containers"][0]["image"], originals(after)) == (FIRST, {"c0": V1})


def test_an_annotation_keeps_what_other_containers_were() -> None:
    """An update of one container says nothing about the others, though the registry that they name is gone."""
    old = patched(pod(V1, V2))
    bed = Bed(STREAM, rules=(MIRROR_SET, image_config("")))
    changed = json_patch(old, [{"op": "replace", "path": "/spec/containers/0/image", "value": "quay.io/a"}])
    assert originals(json_patch(changed, bed.review(changed, old).patch)) == {"c1": V2}
