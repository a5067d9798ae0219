"""Reviews of pods that were reported: what each gets from the cluster of `tests/data/reviews/objects.yaml`."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.imagestream.model import imagestream_from
from mirrorstream.runtime.metrics import Metrics
from mirrorstream_webhook.cache import review_outcome
from mirrorstream_webhook.claims import stream_claims
from mirrorstream_webhook.metrics import ReviewMetrics
from mirrorstream_webhook.review import Reviewer

from tests.webhook.builders import SOURCE, Bed, digest, image_config, imported, item, pod, stream, tag

INPUTS = Path(__file__).parents[1] / "data" / "reviews"
REGISTRY = "image-registry.openshift-image-registry.svc:5000"
DIGEST = f"sha256:{'a' * 64}"
BY_REGISTRY, BY_DIGEST = f"{REGISTRY}/web/app@{DIGEST}", f"registry.example.org/app@{DIGEST}"


@pytest.mark.parametrize(
    ("name", "objects", "becomes", "says"),
    [
        pytest.param(
            "no-pull-secrets", "objects", {"c": BY_DIGEST}, "names no pull secret of its service account fresh", id="fresh"
        ),
        pytest.param("pull-never", "objects", {}, "pull policy is Never", id="never-pulled"),
        pytest.param("legacy-arm64", "objects", {}, "asks for arm64", id="another-architecture"),
        pytest.param("beside-a-long-stream", "long-stream-objects", {"d": BY_REGISTRY}, "more than 255 letters", id="too-long"),
        pytest.param("mirror-pod", "objects", {}, "static pod", id="mirror-pod"),
        pytest.param("windows", "objects", {"c": BY_DIGEST}, "Windows nodes", id="windows"),
        pytest.param("long-account", "objects", {"c": BY_REGISTRY}, "the tag has this image", id="shortened-secret"),
    ],
)
def test_a_reported_pod(name: str, objects: str, becomes: dict[str, str], says: str) -> None:
    """By container what its image becomes, and why in the audit annotation."""
    documents = list(yaml.safe_load_all((INPUTS / f"{objects}.yaml").read_text()))
    streams = [stream_claims(imagestream_from(d)) for d in documents if d["kind"] == "ImageStream"]
    bed = Bed(*streams, rules=(*(d for d in documents if d["kind"] != "ImageStream"), image_config(REGISTRY)))
    reviewer = Reviewer(bed.decider, ReviewMetrics(Metrics()))
    response: Any = json.loads(reviewer.review((INPUTS / f"{name}.json").read_bytes()))["response"]
    patch = json.loads(base64.b64decode(response["patch"])) if "patch" in response else []
    pod = json.loads((INPUTS / f"{name}.json").read_text())["request"]["object"]
    paths = {f"/spec/containers/{n}/image": c["name"] for n, c in enumerate(pod["spec"]["containers"])}
    assert {paths[entry["path"]]: entry["value"] for entry in patch if entry["path"] in paths} == becomes
    assert says in response["auditAnnotations"]["images"]


SEARCH = Path(__file__).parents[1] / "data" / "explain" / "search-registries.yaml"


@pytest.mark.parametrize("serve_from", [["registry", "digest"], ["digest"]])
@pytest.mark.parametrize(
    ("image", "result"),
    [
        *((image, "search-registries") for image in ("busybox", "busybox:latest", "library/busybox", "library/busybox:latest")),
        *((f"{name}@sha256:{'b' * 64}", "search-registries") for name in ("busybox", "busybox:latest", "library/busybox")),
        *((image, "rewritten") for image in ("docker.io/busybox", "docker.io/library/busybox:latest", "index.docker.io/busybox")),
    ],
)
def test_a_name_without_a_registry(image: str, result: str, serve_from: list[str]) -> None:
    """Where nodes look in a list of registries, it is none of docker.io's."""
    documents = list(yaml.safe_load_all(SEARCH.read_text()))
    streams = [stream_claims(imagestream_from(d)) for d in documents if d["kind"] == "ImageStream"]
    for document in documents:
        if document["kind"] == "Image":
            document["status"] = {"internalRegistryHostname": REGISTRY}
    bed = Bed(*streams, rules=tuple(d for d in documents if d["kind"] != "ImageStream"), serveFrom=serve_from)
    found, reason, target = bed.image(image, namespace="web")
    assert (found, bool(target)) == (result, result == "rewritten")
    assert ("in quay.io" in reason) is (result == "search-registries")


LONG = "c" * 234
ODD = (
    "",
    "@",
    "/",
    "a//b",
    "::::",
    ":" * 1000,
    " registry.example.com/team/app:v1",
    "registry.example.com/UPPER:1",
    "registry.example.com/app@sha256:zz",
    f"registry.example.com/app:{'t' * 200}",
    f"registry.example.com/{'f' * 300}",
    f"registry.example.com/{'f' * 2000}",
    "x" * 100_000,
    "é" * 300,
    "\0",
    "[::1]:5000/x:1",
    "registry.example.com:99999999/x:1",
    # Of Local tags that cannot be served.
    f"registry.example.com/{LONG}:1",
    "registry.example.com/odd:1",
    "registry.example.com/unnamed:1",
)


@pytest.mark.parametrize("serve_from", [["registry", "digest"], ["digest", "registry"], ["registry"]], ids=str)
def test_an_image_that_cannot_be_handled_costs_no_other_its_patch(serve_from: list[str]) -> None:
    """Each beside one that can: names that do not parse, that are too long, or that a stream makes so."""
    here = "registry.example.com"
    bed = Bed(
        stream("app", tag("v1", f"{SOURCE}:v1", imported(1)), namespace="team"),
        stream("b" * 240, tag("v1", f"{here}/{LONG}:1", imported(2, f"{here}/{LONG}")), namespace="team"),
        stream("odd", tag("v1", f"{here}/odd:1", item(f"{here}/odd:1", 3) | {"image": "no digest"}), namespace="team"),
        stream("NO NAME", tag("v1", f"{here}/unnamed:1", imported(5, f"{here}/unnamed")), namespace="team"),
        serveFrom=serve_from,
    )
    for odd in ODD:
        examined = {found.slot.name: found.decision for found in bed.review(pod(odd, f"{SOURCE}:v1")).images}
        assert examined["c1"].target.endswith(digest(1)), odd
        assert "c0" not in examined or examined["c0"].result != "error", odd


@pytest.mark.parametrize("image", ["evil", "evil:1", "sha256:", f"sha256:{'A' * 64}", f"sha256:{'a' * 63}", f"sha256:{'a' * 64}\n"])
def test_an_item_whose_image_is_no_digest_is_not_served(image: str) -> None:
    """An ImageStreamMapping may name its Image so, and nobody can pull it; the item before it still is, by its own reference."""
    odd = item(f"{SOURCE}:v1", 3, 2) | {"image": image}
    bed = Bed(stream("app", tag("v1", f"{SOURCE}:v1", odd, imported(1)), namespace="team"))
    assert bed.image(f"{SOURCE}:v1")[::2] == ("no-stream", "")
    assert bed.image(f"{SOURCE}@{digest(1)}")[2].endswith(digest(1))


def test_an_item_whose_image_is_no_digest_costs_no_other_namespace_its_way() -> None:
    """What the internal registry cannot fetch is remembered by repository: such an item must not be what it is decided by."""
    mirror, source = "mirror.corp:5000/up/team/app", {"source": "registry.example.com", "mirrors": ["mirror.corp:5000/up"]}
    by_tag = {"kind": "ImageTagMirrorSet", "metadata": {"name": "tags"}, "spec": {"imageTagMirrors": [source]}}
    bed = Bed(
        stream("app", tag("v1", f"{SOURCE}:v1", imported(1, mirror)), namespace="team"),
        stream("evil", tag("x", f"{SOURCE}:x", item(f"{mirror}:x", 9) | {"image": "evil"}), namespace="bad"),
        rules=(by_tag, image_config(insecureRegistries=["mirror.corp:5000/up"])),
    )
    assert bed.image(f"{SOURCE}:x", namespace="bad")[2] == ""
    assert bed.image(f"{SOURCE}:v1")[2] == f"{mirror}@{digest(1)}"


def test_a_bug_about_one_image_costs_no_other_its_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted as a failed review, which alerts, and told of the image."""
    bed = Bed(stream("app", tag("v1", f"{SOURCE}:v1", imported(1)), namespace="team"))
    decide = bed.decider.image

    def fail(text: str, *more: Any, **named: Any) -> Any:
        if text == "bad":
            raise ValueError("a bug")
        return decide(text, *more, **named)

    monkeypatch.setattr(bed.decider, "image", fail)
    rewriting = bed.review(pod("bad", f"{SOURCE}:v1"))
    assert [found.decision.result for found in rewriting.images] == ["error", "rewritten"]
    outcome = review_outcome(rewriting, "team")
    assert (outcome.name, outcome.keep, bool(outcome.patch)) == ("failed", False, True)
