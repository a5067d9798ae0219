"""The streams of a large cluster: five tags each, imported, with the annotations and managed fields that real ones carry."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from mirrorstream.imagestreams import REPOSITORY_CHECK_ANNOTATION

Object = dict[str, Any]
TAGS = 5
NAMESPACES = 250
FAILING = range(500, 520)
"""These streams of a population have a tag that fails for good: no mirror rule covers its source."""
HISTORY = 3
"""So many items has the first tag of each stream; the others have one."""
REGISTRY = "image-registry.openshift-image-registry.svc:5000"
TIME = "2026-01-01T00:00:00Z"
UNCOVERED = "registry.elsewhere.example.com"


def name_of(number: int) -> str:
    """A stream's name."""
    return f"application-{number}"


def namespace_of(number: int) -> str:
    """A stream's namespace."""
    return f"team-{number % NAMESPACES}"


def digest_of(text: str) -> str:
    """A digest, as images have."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def spec_tag(source: str, name: str) -> Object:
    """A tag of a spec, as the API server shows it."""
    return {
        "name": name,
        "annotations": {"openshift.io/provider-display-name": "Example, Inc.", "tags": "builder,application"},
        "from": {"kind": "DockerImage", "name": f"{source}:{name}"},
        "generation": 2,
        "importPolicy": {"importMode": "Legacy"},
        "referencePolicy": {"type": "Local"},
    }


def imported(source: str, name: str, *, items: int = 1) -> Object:
    """The status of a tag that the platform has imported `items` times."""
    digests = [digest_of(f"{source}:{name}#{item}") for item in range(items)]
    events = [{"created": TIME, "dockerImageReference": f"{source}@{digest}", "image": digest} for digest in digests]
    return {"tag": name, "items": [{**event, "generation": 2} for event in events]}


def failed(source: str, name: str) -> Object:
    """The status of a tag that the platform could not import."""
    host = source.partition("/")[0]
    message = (
        f'Internal error occurred: {source}:{name}: Get "https://{host}/v2/": dial tcp 192.0.2.1:443: connect: connection refused'
    )
    condition = {"type": "ImportSuccess", "status": "False", "reason": "InternalError", "message": message, "generation": 2}
    return {"tag": name, "items": None, "conditions": [{**condition, "lastTransitionTime": TIME}]}


def stream(number: int, registry: str, *, failing: bool = False) -> Object:
    """A stream of the population, imported from `registry`; with `failing` its last tag is not."""
    source = f"{registry}/team/{name_of(number)}"
    sources = [source] * (TAGS - 1) + [f"{UNCOVERED}/team/{name_of(number)}" if failing else source]
    spec = [spec_tag(each, f"v{tag}") for tag, each in enumerate(sources)]
    status = [imported(each, f"v{tag}", items=1 if tag else HISTORY) for tag, each in enumerate(sources)]
    if failing:
        status[-1] = failed(sources[-1], f"v{TAGS - 1}")
    return whole(number, spec, status)


def whole(number: int, spec: list[Object], status: list[Object]) -> Object:
    """A stream with these tags, and with what makes most of the bytes of a real one."""
    namespace, name = namespace_of(number), name_of(number)
    applied = {"apiVersion": "image.openshift.io/v1", "kind": "ImageStream", "metadata": {"name": name, "namespace": namespace}}
    annotations = {
        "kubectl.kubernetes.io/last-applied-configuration": json.dumps({**applied, "spec": {"tags": spec}}),
        "openshift.io/display-name": f"Application {number}",
        REPOSITORY_CHECK_ANNOTATION: TIME,
    }
    owned: Object = {f'k:{{"name":"{tag["name"]}"}}': {".": {}, "f:from": {}, "f:importPolicy": {}, "f:name": {}} for tag in spec}
    managed = {
        "apiVersion": "image.openshift.io/v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:annotations": {".": {}}}, "f:spec": {"f:tags": {".": {}, **owned}}},
        "manager": "kubectl-client-side-apply",
        "operation": "Update",
        "time": TIME,
    }
    metadata = {
        "name": name,
        "namespace": namespace,
        "generation": 2,
        "annotations": annotations,
        "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "a-pipeline"},
        "managedFields": [managed],
    }
    repository = f"{REGISTRY}/{namespace}/{name}"
    return {
        "metadata": metadata,
        "spec": {"lookupPolicy": {"local": False}, "tags": spec},
        "status": {"dockerImageRepository": repository, "tags": status},
    }


def population(first: int, end: int, registry: str) -> Iterator[Object]:
    """The streams from number `first` to before `end`."""
    for number in range(first, end):
        yield stream(number, registry, failing=number in FAILING)
