"""Importing through a mirror without touching a registry: the platform's own importer is asked to try another reference.

mirrorstream needs no credentials for it (see `mirrorstream.imagestream.dry_run`), and a mirror needs no trust but the platform's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mirrorstream.imagestream.dry_run import (
    IMAGE_SECONDS,
    REPOSITORY_SECONDS,
    dry_run,
    image_request,
    is_served,
    repository_request,
    why_not,
)
from mirrorstream.imagestream.failures import Failure, FailureClass
from mirrorstream.imagestream.model import WHOLE_REPOSITORY
from mirrorstream.kube.client import Client, ClientError
from mirrorstream.kube.errors import timed_out
from mirrorstream.rules.candidates import Candidate
from mirrorstream.rules.references import written_name

from mirrorstream_controller.mirror_pace import TOGETHER_SECONDS
from mirrorstream_controller.plan import TagPlan

API = "/apis/image.openshift.io/v1"
REPOSITORY_TAGS = 50


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


Answer = list[FetchedImage] | Failure
"""What a candidate served, or why it served nothing."""


class Importer:
    """Makes dry runs."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def fetch(self, namespace: str, stream: str, wanted: Sequence[tuple[TagPlan, Candidate]]) -> tuple[list[Answer], float]:
        """Ask the platform to fetch what each plan is about through its candidate: tags at one host, or a whole repository alone.

        The answer to each: one image for a tag, at most 50 for a whole repository, or why the mirror does not serve it. And how
        many seconds the platform took. What is asked for alone and takes too long is not served. A request for several tags has no
        answer after TOGETHER_SECONDS: that, as everything else for which the API server gives no answer to the whole request,
        raises ClientError.
        """
        plan, candidate = wanted[0]
        if plan.tag == WHOLE_REPOSITORY:
            request, timeout = repository_request(candidate, import_mode=plan.import_mode), REPOSITORY_SECONDS
        else:
            request = {"images": [_image_request(*each) for each in wanted]}
            timeout = IMAGE_SECONDS if len(wanted) == 1 else TOGETHER_SECONDS
        try:
            status, seconds = self._dry_run(namespace, stream, request, timeout)
        except ClientError as error:
            if len(wanted) > 1 or not timed_out(error):
                raise
            # The next mirror may be faster, and its turn must come.
            return [Failure(FailureClass.TIMEOUT, f"no answer from the platform's import in {timeout:.0f} s")], timeout
        if plan.tag == WHOLE_REPOSITORY:
            return [_fetched_repository(candidate, status)], seconds
        images = [*(status.get("images") or ()), *[{}] * len(wanted)]
        return [_fetched(p.tag, c.reference, image) for (p, c), image in zip(wanted, images, strict=False)], seconds

    def _dry_run(self, namespace: str, stream: str, request: dict[str, Any], timeout: float) -> tuple[dict[str, Any], float]:
        path = f"{API}/namespaces/{namespace}/imagestreamimports"
        took: list[float] = []
        answer: dict[str, Any] = self._client.request(
            "POST", path, body=dry_run(namespace, stream, request), timeout=timeout, answered=took.append
        )
        return answer.get("status") or {}, took[-1]


def _image_request(plan: TagPlan, candidate: Candidate) -> dict[str, Any]:
    return image_request(plan.tag, candidate, import_mode=plan.import_mode, reference_policy=plan.reference_policy)


def _fetched(tag: str, through: str, answer: dict[str, Any]) -> Answer:
    if not is_served(answer):
        return why_not(answer, through)
    return [FetchedImage(tag, through, answer["image"], tuple(answer.get("manifests") or ()))]


def _fetched_repository(candidate: Candidate, status: dict[str, Any]) -> Answer:
    answer = status.get("repository") or {}
    name = written_name(candidate.reference)
    found: list[FetchedImage] = []
    for image in answer.get("images") or ():
        tag = image.get("tag")
        fetched = _fetched(tag, f"{name}:{tag}", image) if tag else ()
        if not isinstance(fetched, Failure):
            found.extend(fetched)
    return found[:REPOSITORY_TAGS] or why_not(answer, candidate.reference)
