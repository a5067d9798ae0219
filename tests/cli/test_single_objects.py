"""The single objects that commands read, with fields that are null: these are unset, as for the API."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from mirrorstream.kube.client import Client
from mirrorstream_cli import single_objects
from mirrorstream_cli.single_objects import Configuration


class Answering:
    """A client all of whose requests are answered with one body."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def request(self, _method: str, _path: str, *, decode: Callable[[bytes], Any], body: object = None) -> Any:
        """Decode the body."""
        return decode(self._body)


@pytest.mark.parametrize("body", [b"{}", b'{"metadata": null, "data": null, "status": null, "imagePullSecrets": null}'])
def test_what_is_unset(body: bytes) -> None:
    """Nothing, and nobody may do anything."""
    client = cast("Client", Answering(body))
    assert single_objects.configuration(client) == Configuration("ConfigMap mirrorstream-config", "", [])
    assert single_objects.is_hosted(client) is False
    assert single_objects.namespace_labels(client, "team") == {}
    assert single_objects.pull_secrets(client, "team", "default") == []
    assert single_objects.may_create(client, "config.openshift.io", "imagetagmirrorsets") is False


def test_what_is_null_within() -> None:
    """The rest of the object counts."""
    labels, status = b'{"labels": {"a": "b", "c": null}}', b'{"controlPlaneTopology": null}'
    body = b'{"metadata": %s, "status": %s, "data": {"config.yaml": "x"}}' % (labels, status)
    client = cast("Client", Answering(body))
    assert single_objects.namespace_labels(client, "team") == {"a": "b"}
    assert single_objects.is_hosted(client) is False
    assert single_objects.configuration(client) == Configuration("ConfigMap mirrorstream-config", "x", [])
