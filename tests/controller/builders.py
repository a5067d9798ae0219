"""Objects for the controller's tests, as the API has them."""

from typing import Any

from mirrorstream.rules.policy import MirrorPolicy

NOW = 1_800_000_000.0
SOURCE = "src.io/team/app:v1"
REFUSED = f"Internal error occurred: {SOURCE}: dial tcp 10.0.0.1:443: connect: connection refused"
IDMS = {
    "kind": "ImageDigestMirrorSet",
    "metadata": {"name": "m"},
    "spec": {"imageDigestMirrors": [{"source": "src.io", "mirrors": ["m.io/x"]}]},
}
POLICY = MirrorPolicy.from_objects([IDMS])
Object = dict[str, Any]


def failure(generation: int = 2, message: str = REFUSED, reason: str = "InternalError", **more: Any) -> Object:
    """An ImportSuccess=False condition."""
    return {"type": "ImportSuccess", "status": "False", "reason": reason, "message": message, "generation": generation, **more}


def item(generation: int = 2, image: str = "sha256:aa") -> Object:
    """A tag event."""
    return {"image": image, "dockerImageReference": f"src.io/team/app@{image}", "generation": generation, "created": "x"}


def stream(
    status: Object | None = None, spec: Object | None = None, annotations: Object | None = None, **stream_spec: Any
) -> Object:
    """A stream with one tag `v1` at generation 2."""
    tag = {"name": "v1", "from": {"kind": "DockerImage", "name": SOURCE}, "generation": 2, **(spec or {})}
    return {
        "metadata": {"name": "app", "namespace": "ns", "uid": "u", "generation": 2, "annotations": annotations or {}},
        "spec": {"tags": [tag], **stream_spec},
        "status": {"tags": [{"tag": "v1", **status}] if status else []},
    }
