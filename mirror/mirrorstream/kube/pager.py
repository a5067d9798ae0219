"""Reading a whole collection page by page, each object straight into the few fields that are wanted."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from mirrorstream.kube.answers import UNREADABLE
from mirrorstream.kube.client import JSON, ApiError, Client
from mirrorstream.kube.objects import PAGE

T = TypeVar("T")
PAGE_SIZE = 500
"""As client-go has it."""
ATTEMPTS = 3
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
"""The form in which an API server leaves out everything but the metadata, where it knows it."""


def read_all(
    client: Client,
    path: str,
    read: Callable[[bytes], T],
    *,
    params: Mapping[str, str] | None = None,
    accept: str = JSON,
    on_malformed: Callable[[str], None] = lambda why: None,
) -> list[T]:
    """Every object of a collection, as `read` makes it of its JSON; what it cannot read is told to `on_malformed` and left out.

    A list whose pages expire while they are read is begun again. Raises ClientError.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _pages(client, path, read, dict(params or {}), accept, on_malformed)
        except ApiError as error:
            if error.status != 410 or attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _pages(
    client: Client, path: str, read: Callable[[bytes], T], params: dict[str, str], accept: str, on_malformed: Callable[[str], None]
) -> list[T]:
    found: list[T] = []
    query = {**params, "limit": str(PAGE_SIZE)}
    while True:
        page = client.request("GET", path, params=query, decode=PAGE.decode, accept=accept)
        for raw in page.items or ():
            try:
                found.append(read(bytes(raw)))
            except UNREADABLE as error:
                on_malformed(str(error))
        if not page.metadata.continue_:
            return found
        query["continue"] = page.metadata.continue_
