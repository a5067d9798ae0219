"""Asking an API server what somebody may do."""

from typing import Any

from mirrorstream.kube.client import Client

ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def is_allowed(client: Client, spec: dict[str, Any]) -> bool:
    """What a SubjectAccessReview answers to `spec`. Raises ClientError."""
    return bool(client.request("POST", ACCESS_REVIEWS, body={"spec": spec})["status"].get("allowed"))
