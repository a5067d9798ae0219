"""Mirror sets and the Image config, as the API has them."""

from typing import Any

from mirrorstream.rules.policy import MirrorPolicy

DIGEST = "sha256:" + "0" * 64
Object = dict[str, Any]


def idms(source: str, *mirrors: str, name: str = "digests", **more: Any) -> Object:
    """An ImageDigestMirrorSet with one entry."""
    entry = {"source": source, "mirrors": list(mirrors), **more}
    return {"kind": "ImageDigestMirrorSet", "metadata": {"name": name}, "spec": {"imageDigestMirrors": [entry]}}


def itms(source: str, *mirrors: str, **more: Any) -> Object:
    """An ImageTagMirrorSet with one entry."""
    entry = {"source": source, "mirrors": list(mirrors), **more}
    return {"kind": "ImageTagMirrorSet", "metadata": {"name": "tags"}, "spec": {"imageTagMirrors": [entry]}}


def image_config(**spec: Any) -> Object:
    """The Image config `cluster`."""
    return {"kind": "Image", "metadata": {"name": "cluster"}, "spec": spec}


def candidates(policy: MirrorPolicy, reference: str) -> list[tuple[str, str]]:
    """(reference, mirror set) of every candidate."""
    return [(c.reference, c.mirror_set) for c in policy.import_candidates(reference)]


BOTH = [idms("src.io/ns", "d.io/m"), itms("src.io/ns", "t.io/m")]
