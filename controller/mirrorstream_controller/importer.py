"""Importing through a mirror without touching a registry: the platform's own importer is asked to try another reference.

An ImageStreamImport with `import: false` makes the API server fetch the manifest, with the namespace's secrets, the node's pull
secret, the trusted CAs and the proxy, and write nothing. So mirrorstream needs no credentials, and a mirror needs no trust but the
platform's.
"""

from dataclasses import dataclass
from typing import Any

from mirrorstream.candidates import Candidate
from mirrorstream.failures import Failure, classify
from mirrorstream.imagestreams import IMPORTED_THROUGH_ANNOTATION, WHOLE_REPOSITORY
from mirrorstream.kube.client import ApiError, Client
from mirrorstream.references import written_name

from mirrorstream_controller.plan import TagPlan

API = "/apis/image.openshift.io/v1"
IMAGE_SECONDS = 60.0
"""The platform gives up on a registry that drops packets after 15 s, and may ask for more than one manifest."""
REPOSITORY_SECONDS = 180.0
"""A whole repository is imported serially, 50 tags at two per second."""
REPOSITORY_TAGS = 50


class ImportFailed(Exception):  # noqa: N818  the platform's word for it
    """A candidate did not serve the image; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """What a dry run brought: an Image, its sub-manifests' Images, and the tag that it belongs to."""

    tag: str
    through: str
    """The reference that served it."""
    image: dict[str, Any]
    manifests: tuple[dict[str, Any], ...] = ()

    @property
    def digest(self) -> str:
        """The Image's name, which is its manifest's digest."""
        return str(self.image["metadata"]["name"])


class Importer:
    """Dry runs and Image objects."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ours: dict[str, bool] = {}

    def fetch(self, namespace: str, stream: str, plan: TagPlan, candidate: Candidate) -> list[FetchedImage]:
        """Ask the platform to fetch what `plan` is about through `candidate`.

        One image for a tag, at most 50 for a whole repository. Raises ImportFailed when the mirror does not serve it, ClientError
        when the API server could not be asked.
        """
        if plan.tag == WHOLE_REPOSITORY:
            return self._fetch_repository(namespace, stream, plan, candidate)
        request = {
            "images": [
                {
                    "from": {"kind": "DockerImage", "name": candidate.reference},
                    "to": {"name": plan.tag},
                    "importPolicy": _import_policy(plan, candidate),
                    **({"referencePolicy": {"type": plan.reference_policy}} if plan.reference_policy else {}),
                    "includeManifest": False,
                }
            ]
        }
        answer = self._dry_run(namespace, stream, request, IMAGE_SECONDS)
        images = answer.get("images") or [{}]
        return [_fetched(plan.tag, candidate.reference, images[0])]

    def _fetch_repository(self, namespace: str, stream: str, plan: TagPlan, candidate: Candidate) -> list[FetchedImage]:
        request = {
            "repository": {
                "from": {"kind": "DockerImage", "name": written_name(candidate.reference)},
                "importPolicy": _import_policy(plan, candidate),
                "includeManifest": False,
            }
        }
        answer = self._dry_run(namespace, stream, request, REPOSITORY_SECONDS).get("repository") or {}
        images = [i for i in answer.get("images") or [] if (i.get("status") or {}).get("status") == "Success" and i.get("tag")]
        if not images:
            raise ImportFailed(_failure(answer.get("status") or {}, candidate.reference))
        name = written_name(candidate.reference)
        return [_fetched(image["tag"], f"{name}:{image['tag']}", image) for image in images[:REPOSITORY_TAGS]]

    def _dry_run(self, namespace: str, stream: str, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        body = {
            "apiVersion": "image.openshift.io/v1",
            "kind": "ImageStreamImport",
            "metadata": {"name": stream, "namespace": namespace},
            "spec": {"import": False, **request},
        }
        path = f"{API}/namespaces/{namespace}/imagestreamimports"
        answer: dict[str, Any] = self._client.request("POST", path, body=body, timeout=timeout)
        return answer.get("status") or {}

    def create_images(self, fetched: FetchedImage, recorded_name: str) -> None:
        """Create the Image, and before it every sub-manifest, without which a manifest list could not be pulled.

        Images that exist already are left as they are. An Image belongs to every stream that has its digest, and
        the platform shows it to their owners: so it says which host served it first, and not whose repository.
        Raises ClientError.
        """
        for image in (*fetched.manifests, fetched.image):
            self._create(image, recorded_name, fetched.through)

    def _create(self, image: dict[str, Any], recorded_name: str, through: str) -> None:
        metadata = image["metadata"]
        annotations = {**(metadata.get("annotations") or {}), IMPORTED_THROUGH_ANNOTATION: through.partition("/")[0]}
        body = {
            **image,
            "apiVersion": "image.openshift.io/v1",
            "kind": "Image",
            "metadata": {"name": metadata["name"], "annotations": annotations},
            "dockerImageReference": f"{recorded_name}@{metadata['name']}",
        }
        try:
            self._client.request("POST", f"{API}/images", body=body)
        except ApiError as error:
            if error.status != 409:
                raise

    def is_ours(self, digest: str) -> bool:
        """Whether mirrorstream made the Image `digest`; an Image that is gone counts as ours, there is nothing to keep.

        Raises ClientError.
        """
        if digest not in self._ours:
            try:
                image = self._client.get(f"{API}/images/{digest}")
            except ApiError as error:
                if error.status != 404:
                    raise
                return True
            annotations = image["metadata"].get("annotations") or {}
            if len(self._ours) > 10000:
                self._ours.clear()
            self._ours[digest] = IMPORTED_THROUGH_ANNOTATION in annotations
        return self._ours[digest]


def _import_policy(plan: TagPlan, candidate: Candidate) -> dict[str, Any]:
    """The tag's import policy with the candidate's own TLS setting; a dry run is never scheduled."""
    policy: dict[str, Any] = {"insecure": True} if candidate.insecure else {}
    if plan.import_mode:
        policy["importMode"] = plan.import_mode
    return policy


def _fetched(tag: str, through: str, answer: dict[str, Any]) -> FetchedImage:
    status = answer.get("status") or {}
    image = answer.get("image")
    if status.get("status") != "Success" or not isinstance(image, dict):
        raise ImportFailed(_failure(status, through))
    return FetchedImage(tag, through, image, tuple(answer.get("manifests") or ()))


def _failure(status: dict[str, Any], through: str) -> Failure:
    return classify(str(status.get("reason") or ""), str(status.get("message") or "no answer"), (through,))
