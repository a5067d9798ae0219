"""What the image API does not accept: the same on every back end, and what mirrorstream makes of it."""

import re
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Namespace
from e2e.testbed.streams import IMAGE_API, tag
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
PRESERVED = {"importMode": "PreserveOriginal"}
NO_PLATFORM = "dockerImageManifests[1].architecture: Required value, dockerImageManifests[1].os: Required value"
EXCEEDED = "requested usage of openshift.io/{} exceeds the maximum limit per openshift.io/ImageStream ({} > {})"
DIGEST = f"sha256:{0:064}"
PART = {"digest": DIGEST, "mediaType": "application/x", "architecture": "amd64", "os": "linux", "manifestSize": 1}


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({}, "dockerImageReference: Required value"),
        ({"dockerImageReference": "h/A"}, 'dockerImageReference: Invalid value: "h/A": repository name must be lowercase'),
        (
            {"dockerImageReference": "h.io/a", "dockerImageManifests": [{**PART, "architecture": ""}]},
            "dockerImageManifests[0].architecture: Required value",
        ),
        (
            {"dockerImageReference": "h.io/a", "dockerImageManifests": [{**PART, "digest": "sha256:1", "mediaType": "x"}]},
            '[dockerImageManifests[0].digest: Invalid value: "sha256:1": digest does not conform with OCI image specification, '
            'dockerImageManifests[0].mediaType: Invalid value: "x": media type does not conform to RFC6838]',
        ),
        (
            {"dockerImageReference": "h.io/a", "metadata": {"annotations": {"a": "x" * (256 * 1024)}}},
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
    ],
    ids=["no-reference", "no-reference-at-all", "no-architecture", "no-digest", "long-annotations"],
)
def test_an_image_that_is_not_valid_is_refused(ns: Namespace, image: Object, said: str) -> None:
    """With every wrong field. Dry runs: nothing is left over where the image is accepted all the same."""
    body = {**image, "metadata": {"name": DIGEST, **image.get("metadata", {})}}
    with pytest.raises(ApiError, match=re.escape(f'Image.image.openshift.io "{DIGEST}" is invalid: {said}')) as refused:
        ns.client.request("POST", f"{IMAGE_API}/images?dryRun=All", body=body)
    assert refused.value.status == 422


def test_a_list_that_the_platform_does_not_store_is_said(ns: Namespace, start: Start) -> None:
    """An index with an entry that has no platform, an artifact's say, can be fetched, but is no Image. Other tags heal."""
    ns.put("good", "app:v1", "bare-index")
    digest = ns.put("good", "app:v2")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1"), importPolicy=PRESERVED), tag("v2", ns.source("app:v2")))
    ns.wait_healed("app", "v2", digest)
    assert NO_PLATFORM in ns.wait_event("app", "MirrorImportFailed")
    assert ns.failure("app", "v1")
    assert not ns.tag_status("app", "v1").get("items")


def test_a_list_that_the_platform_does_not_store_holds_up_the_streams_other_tags(ns: Namespace, start: Start) -> None:
    """The platform always rejects its import of the whole stream, and writes no status. The mirrors serve the other tags."""
    other = f"{ns.cluster.host('other')}/{ns.name}"
    ns.cluster.put("other", f"{ns.name}/app", "v1", "bare-index")
    upstream = ns.cluster.put("other", f"{ns.name}/app", "v2", seed=ns.name)
    with pytest.raises(ApiError, match=re.escape(NO_PLATFORM)):
        ns.import_images("direct", tag("v1", f"{other}/app:v1", importPolicy=PRESERVED), tag("v2", f"{other}/app:v2"))
    assert ns.put("good", "app:v2", seed=ns.name) == upstream
    ns.put("good", "app:v1", "bare-index")
    ns.digest_mirrors(source=other)
    start(controller={"stuckAfterSeconds": 1.5})
    ns.create("app", tag("v1", f"{other}/app:v1", importPolicy=PRESERVED), tag("v2", f"{other}/app:v2"))
    ns.wait_healed("app", "v2", upstream)
    assert NO_PLATFORM in ns.wait_event("app", "MirrorImportFailed")
    assert not ns.tag_status("app", "v1"), "no condition, no item"


def _limit(ns: Namespace, resource: str, most: int) -> str:
    """Limit what a stream may have of `resource`, and wait until the API knows; the LimitRange's path."""
    path = f"/api/v1/namespaces/{ns.name}/limitranges"
    limits = [{"type": "openshift.io/ImageStream", "max": {"openshift.io/image-tags": "9", f"openshift.io/{resource}": str(most)}}]
    ns.client.request("POST", path, body={"metadata": {"name": "streams"}, "spec": {"limits": limits}})
    wait_for("the limit counts", lambda: _refused(ns, 10))
    return f"{path}/streams"


def _refused(ns: Namespace, sources: int) -> str:
    """What the API says to a stream with a tag for each of so many sources, and one more tag for the first; empty if nothing."""
    tags = [tag(f"v{number}", ns.source(f"app:v{number}")) for number in range(sources)]
    body = {"metadata": {"name": "refused"}, "spec": {"tags": [*tags, tag("again", ns.source("app:v0"))]}}
    try:
        ns.client.request("POST", f"{IMAGE_API}/namespaces/{ns.name}/imagestreams?dryRun=All", body=body)
    except ApiError as error:
        return error.message
    return ""


def test_an_import_beyond_a_limit_is_the_platforms_own_failure(ns: Namespace, start: Start) -> None:
    """The source serves, and the namespace's owner wants no more: no mirror helps, and none is asked."""
    other = f"{ns.cluster.host('other')}/{ns.name}"
    upstream = ns.cluster.put("other", f"{ns.name}/app", "v1")
    ns.digest_mirrors(source=other)
    limit = _limit(ns, "images", 0)
    start()
    ns.create("app", tag("v1", f"{other}/app:v1"))
    failure = ns.wait_failed("app", "v1")
    assert failure["reason"] == "Invalid"
    said = EXCEEDED.format("images", 1, 0)
    forbidden = f'ImageStream.image.openshift.io "app" is forbidden: {said}'
    assert failure["message"] == f'ImageStream.image.openshift.io "app" is invalid: []: Internal error: {forbidden}'
    assert said in ns.wait_event("app", "MirrorImportRefused", "must not be bypassed")
    ns.stays("failed", lambda: ns.failure("app", "v1") == failure)
    ns.client.request("DELETE", limit)
    wait_for("the limit is gone", lambda: not _refused(ns, 10))
    ns.import_image("app", "v1", f"{other}/app:v1")
    ns.wait_healed("app", "v1", upstream)


def test_another_image_beyond_a_limit_leaves_a_tag_as_it_is(ns: Namespace) -> None:
    """Only who asked is told: a tag that has a status gets no condition."""
    first = ns.put("good", "app:v1", seed="first")
    _limit(ns, "images", 1)
    ns.create("app", tag("v1", f"{ns.mirror()}/app:v1"))
    ns.wait_healed("app", "v1", first)
    ns.put("good", "app:v1", seed="second")
    before = ns.tag_status("app", "v1")
    with pytest.raises(ApiError, match=re.escape(EXCEEDED.format("images", 2, 1))):
        ns.import_image("app", "v1", f"{ns.mirror()}/app:v1")
    assert ns.tag_status("app", "v1") == before


def test_a_stream_over_a_limit_on_tags_gets_no_image(ns: Namespace, start: Start) -> None:
    """The limit came later, and counts sources. It is about the spec, and the status cannot grow either."""
    digest = ns.put("good", "app:v0")
    ns.digest_mirrors()
    ns.create("app", tag("v0", ns.source("app:v0")), tag("v1", ns.source("app:v1")))
    ns.wait_failed("app", "v1")
    limit = _limit(ns, "image-tags", 1)
    assert not _refused(ns, 1), "two tags, one source"
    assert EXCEEDED.format("image-tags", 2, 1) in _refused(ns, 2)
    start()
    assert EXCEEDED.format("image-tags", 2, 1) in ns.wait_event("app", "MirrorImportRefused")
    assert ns.failure("app", "v0")
    ns.client.request("DELETE", limit)
    ns.wait_healed("app", "v0", digest)
