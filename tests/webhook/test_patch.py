"""The JSON Patch: all places that name an image, and nothing else."""

import json
from typing import Any

from e2e.simulator.patches import json_patch
from tests.webhook.builders import REGISTRY, SOURCE, Bed, digest, imported, pod, stream, tag

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
