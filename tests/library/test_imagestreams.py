"""What a cluster's streams cost to keep."""

import msgspec
from mirrorstream.imagestreams import decode_imagestream


def test_what_most_tags_have_alike_is_kept_once() -> None:
    """Names of tags, and their policies: of ten thousand streams a fifth of all that is kept."""
    tag = {"name": "v1", "importPolicy": {"importMode": "Legacy"}, "referencePolicy": {"type": "Local"}}
    document = {"metadata": {"name": "app"}, "spec": {"tags": [tag]}, "status": {"tags": [{"tag": "v1"}]}}
    one, other = (decode_imagestream(msgspec.json.encode(document)) for _ in range(2))
    (first,), (second,) = one.spec_tags, other.spec_tags
    assert first is not second
    assert first.import_policy is second.import_policy
    assert first.reference_policy is second.reference_policy
    assert first.name is second.name
    assert one.status_tag("v1").tag is first.name  # type: ignore[union-attr]
    assert first.reference_policy.type == "Local"
    assert first.import_policy.import_mode == "Legacy"
