"""What holds for every pod, every set of streams and every order in which they came."""

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from mirrorstream_webhook.claims import StreamClaims
from mirrorstream_webhook.index import Index
from mirrorstream_webhook.pods import pod_from, slots

from e2e.testbed.simulator.patches import json_patch
from tests.webhook.builders import REGISTRY, Bed, digest, imported, item, stream, tag

Object = dict[str, Any]
ANNOTATION = "mirrorstream.github.io/original-images"
REPOSITORIES = [f"registry.example.com/team/{name}" for name in ("app", "web")]
NAMESPACES = ("team", "openshift")
MIRRORED = "mirror.corp:5000/up/team/app"
REFUSED = "Internal error occurred: dial tcp 10.0.0.1:443: connect: connection refused"

numbers = st.integers(1, 3)
sources = st.builds("{}:v{}".format, st.sampled_from(REPOSITORIES), numbers)
items = st.one_of(
    st.builds(lambda repository, n: imported(n, repository), st.sampled_from(REPOSITORIES), numbers),
    st.builds(lambda n: item(f"mirror.corp:5000/up/team/app@{digest(n)}", n), numbers),
)


@st.composite
def tags(draw: st.DrawFn, name: str) -> Any:
    """A tag in any state."""
    history = draw(st.lists(items, max_size=3))
    more: Object = {"failure": REFUSED} if draw(st.booleans()) else {}
    if draw(st.integers(0, 4)) == 0:
        more["referencePolicy"] = {"type": "Source"}
    return tag(name, draw(sources), *history, generation=draw(st.sampled_from([1, 1, 1, 2])), **more)


@st.composite
def streams(draw: st.DrawFn) -> list[StreamClaims]:
    """Some streams in two namespaces, each name once."""
    found = []
    for namespace in NAMESPACES:
        names = draw(st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3))
        found += [stream(name, *(draw(tags(t)) for t in ("x", "y")), namespace=namespace) for name in names]
    return found


images = st.one_of(
    sources,
    st.builds(lambda repository, n: f"{repository}@{digest(n)}", st.sampled_from(REPOSITORIES), numbers),
    st.builds(lambda n: f"mirror.corp:5000/up/team/app@{digest(n)}", numbers),
    st.sampled_from([f"{REGISTRY}/team/other:v1", "quay.io/a/b", "team/Not-Valid", "", f"{REGISTRY}/openshift/a@{digest(1)}"]),
)


@st.composite
def pods(draw: st.DrawFn) -> Object:
    """A pod with images in every place, annotations of any kind, and fields that are none of our business."""

    def containers(prefix: str) -> list[Object]:
        return [
            {"name": f"{prefix}{n}", "image": image, "args": ["--keep"]}
            for n, image in enumerate(draw(st.lists(images, max_size=3)))
        ]

    volumes: list[Object] = [{"name": "data", "emptyDir": {}}]
    volumes += [{"name": f"v{n}", "image": {"reference": image}} for n, image in enumerate(draw(st.lists(images, max_size=2)))]
    metadata: Object = {"name": "pod", "labels": {"app": "x"}}
    text = draw(st.sampled_from([None, "", "junk", "{}", '{"c0": "registry.example.com/team/app:v1"}', '{"gone": "x"}']))
    if draw(st.booleans()):
        metadata["annotations"] = {"other": "kept", **({ANNOTATION: text} if text is not None else {})}
    spec = {"containers": containers("c"), "initContainers": containers("i"), "ephemeralContainers": containers("e")}
    spec["imagePullSecrets"] = draw(st.sampled_from([[], [{"name": "default-dockercfg-x7k2p"}], [{"name": "mine"}]]))
    return {"metadata": metadata, "spec": {**spec, "volumes": volumes, "restartPolicy": "Never"}}


def bed_of(entries: list[StreamClaims], **more: Any) -> Bed:
    """A Decider that knows these streams."""
    return Bed(*entries, **more)


def without_images(document: Object) -> Object:
    """The pod without what a patch may touch."""
    copy: Object = json.loads(json.dumps(document))
    for place in slots(pod_from(document)):
        *parents, last = place.pointer.split("/")[1:]
        target: Any = copy
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        del target[last]
    annotations = copy["metadata"].pop("annotations", None) or {}
    annotations.pop(ANNOTATION, None)
    return {**copy, "annotations": annotations}


@given(entries=streams(), document=pods(), pending=st.sampled_from(["leave", "rewrite"]))
@settings(max_examples=400, deadline=None)
def test_a_review_of_its_own_outcome_changes_nothing(entries: list[StreamClaims], document: Object, pending: str) -> None:
    """Idempotent, for a new pod and for an update to the same."""
    bed = bed_of(entries, pendingTags=pending)
    once = json_patch(document, bed.review(document).patch)
    assert bed.review(once).patch == []
    assert bed.review(once, once).images == []
    # Applying the original again gives the present image.
    again = json_patch(document, bed.review(document, once).patch)
    assert again["spec"] == once["spec"]


@given(entries=streams(), document=pods(), pending=st.sampled_from(["leave", "rewrite"]))
@settings(max_examples=400, deadline=None)
def test_a_patch_changes_image_references_and_our_annotation_only(
    entries: list[StreamClaims], document: Object, pending: str
) -> None:
    """And every new reference is a digest of a stream's, the internal registry's or a mirrored one, or the tag that is to come."""
    bed = bed_of(entries, pendingTags=pending)
    rewriting = bed.review(document)
    after = json_patch(document, rewriting.patch)
    assert without_images(after) == without_images(document)
    held = {(f"{REGISTRY}/{e.stream.path}", claim.digest) for e in entries for _, claim in e.pairs() if claim.digest}
    mirrored = {(repository, digest(number)) for repository in (*REPOSITORIES, MIRRORED) for number in (1, 2, 3)}
    waiting = {f"{REGISTRY}/{e.stream.path}:{claim.tag}" for e in entries for _, claim in e.pairs() if not claim.digest}
    logs_in = bool(document["spec"]["imagePullSecrets"]) and document["spec"]["imagePullSecrets"][0]["name"] != "mine"
    for before, now in zip(slots(pod_from(document)), slots(pod_from(after)), strict=True):
        if before.image != now.image:
            repository, _, held_digest = now.image.partition("@")
            if now.image.startswith(REGISTRY):
                assert logs_in
                assert (repository, held_digest) in held or (pending == "rewrite" and now.image in waiting)
            else:
                assert (repository, held_digest) in mirrored
            assert json.loads(after["metadata"]["annotations"][ANNOTATION])[before.name] == before.image


@given(entries=streams(), document=pods(), seed=st.integers())
@settings(max_examples=300, deadline=None)
def test_the_order_of_events_does_not_matter(entries: list[StreamClaims], document: Object, seed: int) -> None:
    """The same streams, learnt in another order with detours, give the same patch and the same reasons."""
    expected = bed_of(entries).review(document)
    chance = random.Random(seed)  # noqa: S311  the example decides
    bed = bed_of([])
    index = Index()
    known: dict[tuple[str, str], StreamClaims | None] = {}
    for entry in chance.sample(entries * 2, len(entries) * 2):
        key = (entry.stream.namespace, entry.stream.name)
        if chance.random() < 0.3 and known.get(key):
            index.apply(known[key], None)
            known[key] = None
        index.apply(known.get(key), entry)
        known[key] = entry
    bed.decider.index = index
    found = bed.review(document)
    assert found.patch == expected.patch
    assert [image.document("team") for image in found.images] == [image.document("team") for image in expected.images]
