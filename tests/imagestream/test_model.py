"""What is kept of a cluster's streams, and what it costs."""

import json
import tracemalloc

import msgspec
import pytest
from mirrorstream.imagestream.model import decode_imagestream, imagestream_from


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


def test_ten_thousand_streams_fit_in_sixty_megabytes() -> None:
    """Projected while decoding: managedFields and annotations are never kept."""
    item = {
        "metadata": {
            "name": "x",
            "namespace": "ns",
            "uid": "u" * 36,
            "resourceVersion": "1",
            "annotations": {"last-applied": "x" * 3000},
        },
        "spec": {
            "tags": [
                {"name": f"v{n}", "from": {"kind": "DockerImage", "name": f"registry.example.com/team/app:v{n}"}, "generation": 2}
                for n in range(5)
            ]
        },
        "status": {
            "tags": [
                {"tag": f"v{n}", "items": [{"image": "sha256:" + "a" * 64, "dockerImageReference": "r" * 110, "generation": 2}]}
                for n in range(5)
            ]
        },
    }
    raw = msgspec.json.encode(item)
    tracemalloc.start()
    kept = [decode_imagestream(raw) for _ in range(1000)]
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(kept) == 1000
    assert used * 10 < 60e6, f"{used / 1000:.0f} bytes a stream"


TAG = {"name": "v1", "from": {"kind": "DockerImage", "name": "registry.example.com/a:v1"}}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("metadata", ["namespace", "uid", "resourceVersion", "generation", "annotations"]),
        ("spec", ["dockerImageRepository"]),
        ("spec.tags.0", ["generation", "reference", "importPolicy", "referencePolicy"]),
        ("spec.tags.0.from", ["namespace"]),
        ("status", ["dockerImageRepository"]),
        ("status.tags.0", ["items", "conditions"]),
    ],
)
def test_null_is_unset(path: str, fields: list[str]) -> None:
    """For an object of the API and one of a file alike."""
    unset = {"metadata": {"name": "app"}, "spec": {"tags": [TAG]}, "status": {"tags": [{"tag": "v1"}]}}
    document = json.loads(json.dumps(unset))
    place = document
    for part in path.split("."):
        place = place[int(part) if part.isdigit() else part]
    place.update(dict.fromkeys(fields))
    assert decode_imagestream(json.dumps(document).encode()) == imagestream_from(document) == imagestream_from(unset)
