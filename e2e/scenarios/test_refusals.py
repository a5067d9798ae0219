"""What the image API does not accept: the same on every back end, and what mirrorstream makes of it."""

import re
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Namespace
from e2e.testbed.streams import IMAGE_API, tag

Object = dict[str, Any]
PRESERVED = {"importMode": "PreserveOriginal"}
NO_PLATFORM = "dockerImageManifests[1].architecture: Required value, dockerImageManifests[1].os: Required value"
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
    """The platform refuses its own import as a whole, for ever, and says nothing in the stream; the mirrors serve the others."""
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
