"""The ImageStreamImport that has the platform ask a registry for an image and write nothing, and what it answers.

With `import: false` the API server fetches the manifest, with the namespace's secrets, the node's pull secret, the trusted CAs
and the proxy. The caller needs no credentials of a registry, and no connection to one.
"""

from typing import Any

import msgspec

from mirrorstream.imagestream.failures import Failure, classify
from mirrorstream.rules.candidates import Candidate
from mirrorstream.rules.references import written_name

IMAGE_SECONDS = 60.0
"""The platform gives up on a registry that drops packets after 15 s, and may ask for more than one manifest."""
REPOSITORY_SECONDS = 180.0
"""A whole repository is imported serially, 50 tags at two per second."""


def dry_run(namespace: str, stream: str, request: dict[str, Any]) -> dict[str, Any]:
    """The ImageStreamImport for an `image_request`, several of one stream, or a `repository_request`.

    It is named after the stream, and an image's request says for which tag it is, so that their annotations count.
    """
    return {
        "apiVersion": "image.openshift.io/v1",
        "kind": "ImageStreamImport",
        "metadata": {"name": stream, "namespace": namespace},
        "spec": {"import": False, **request},
    }


def image_request(tag: str, candidate: Candidate, *, import_mode: str = "", reference_policy: str = "") -> dict[str, Any]:
    """What asks `candidate` for the image of a tag: an item of a dry run's `images`."""
    return {
        "from": {"kind": "DockerImage", "name": candidate.reference},
        "to": {"name": tag},
        "importPolicy": _import_policy(candidate, import_mode),
        **({"referencePolicy": {"type": reference_policy}} if reference_policy else {}),
        "includeManifest": False,
    }


def repository_request(candidate: Candidate, *, import_mode: str = "") -> dict[str, Any]:
    """A dry run that asks for a whole repository, by its name alone."""
    source = {"kind": "DockerImage", "name": written_name(candidate.reference)}
    return {"repository": {"from": source, "importPolicy": _import_policy(candidate, import_mode), "includeManifest": False}}


def _import_policy(candidate: Candidate, import_mode: str) -> dict[str, Any]:
    """The tag's import mode with the candidate's own TLS setting; a dry run is never scheduled."""
    policy: dict[str, Any] = {"insecure": True} if candidate.insecure else {}
    if import_mode:
        policy["importMode"] = import_mode
    return policy


class _Name(msgspec.Struct):
    name: str


class _Named(msgspec.Struct):
    metadata: _Name


class _Imported(msgspec.Struct):
    status: dict[str, Any] | None = None
    image: _Named | None = None


class _Repository(msgspec.Struct):
    status: dict[str, Any] | None = None
    images: list[_Imported] | None = None


class _ImportStatus(msgspec.Struct):
    images: list[_Imported] | None = None
    repository: _Repository | None = None


class _Import(msgspec.Struct):
    status: _ImportStatus | None = None


# Made before any thread: see `Client.request`.
_decode_import = msgspec.json.Decoder(dict[str, Any]).decode


def decode_import(data: bytes) -> dict[str, Any]:
    """The API server's answer to an ImageStreamImport. Raises msgspec.MsgspecError if it is none."""
    found = _decode_import(data)
    msgspec.convert(found, _Import)
    return found


def served_digest(answer: dict[str, Any], candidate: Candidate) -> str | Failure:
    """The digest of the image that `candidate` served, or why it served none; of a repository the digest of one of its images."""
    status = answer.get("status") or {}
    repository = status.get("repository") or {}
    images = status.get("images") or repository.get("images") or []
    for image in images:
        if is_served(image):
            return str(image["image"]["metadata"]["name"])
    return why_not(repository or (images or [{}])[0], candidate.reference)


def is_served(answer: dict[str, Any]) -> bool:
    """Whether the platform fetched the image that `answer`, one of a dry run's, is about."""
    return (answer.get("status") or {}).get("status") == "Success" and isinstance(answer.get("image"), dict)


def why_not(answer: dict[str, Any], reference: str) -> Failure:
    """Why `reference` did not serve the image or the repository that `answer` is about."""
    said = answer.get("status") or {}
    return classify(str(said.get("reason") or ""), str(said.get("message") or "no answer"), (reference,))
