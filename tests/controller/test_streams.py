"""What the controller keeps of a stream: all that decisions need, and no more."""

from typing import Any

import msgspec
import pytest
from mirrorstream.imagestream.model import decode_imagestream
from mirrorstream.kube.client import Client
from mirrorstream.kube.informer import Change
from mirrorstream.kube.rest_config import RestConfig
from mirrorstream_controller.streams import Streams, pack

from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
DIGESTS = [f"sha256:{number:064x}" for number in range(3)]


def event(digest: str) -> Object:
    """An item of a tag."""
    return {
        "dockerImageReference": f"r.example.com/a@{digest}",
        "image": digest,
        "generation": 2,
        "created": "2026-01-01T00:00:00Z",
    }


FULL: Object = {
    "metadata": {
        "name": "app",
        "namespace": "ns",
        "uid": "u",
        "resourceVersion": "7",
        "generation": 10**30,
        "annotations": {"mirrorstream.github.io/retry": "now", "openshift.io/image.insecureRepository": "true", "other": "x" * 999},
        "labels": {"samples.operator.openshift.io/managed": "true"},
        "managedFields": [{"manager": "x" * 999}],
    },
    "spec": {
        "dockerImageRepository": "r.example.com/a",
        "tags": [
            {
                "name": "v1",
                "from": {"kind": "DockerImage", "name": "r.example.com/a:v1"},
                "generation": 0,
                "importPolicy": {"insecure": True, "scheduled": True, "importMode": "PreserveOriginal"},
                "referencePolicy": {"type": "Local"},
                "annotations": {"importer.image.openshift.io/prefer-arch": "arm64"},
            },
            {"name": "latest", "from": {"kind": "ImageStreamTag", "name": "v1"}, "reference": True},
        ],
    },
    "status": {
        "dockerImageRepository": "registry/ns/app",
        "tags": [
            {"tag": "v1", "items": [event(digest) for digest in DIGESTS]},
            {
                "tag": "latest",
                "items": None,
                "conditions": [{"type": "ImportSuccess", "status": "False", "message": 'é\u0000"', "generation": 3}],
            },
            {"tag": "empty", "items": []},
        ],
    },
}
PLAIN: Object = {"metadata": {"name": "app"}}


@pytest.mark.parametrize("document", [pytest.param(FULL, id="full"), pytest.param(PLAIN, id="plain")])
def test_what_is_kept_is_what_was_read_with_the_newest_items(document: Object) -> None:
    """Whoever asks gets the stream as it was decoded, but for the older items of its tags."""
    whole = decode_imagestream(msgspec.json.encode(document))
    for tag in whole.status.tags or ():
        if tag.items:
            del tag.items[1:]
    assert decode_imagestream(pack(msgspec.json.encode(document))) == whole


def test_what_is_unset_takes_no_bytes() -> None:
    """Of a stream without anything only its name is kept."""
    assert pack(msgspec.json.encode(PLAIN)) == b'{"metadata":{"name":"app"}}'


def test_changes_and_reads_are_streams() -> None:
    """Through an informer on a cluster."""
    changes: list[Change[Any]] = []
    with Simulator() as simulator:
        client = simulator.client("test")
        path = "/apis/image.openshift.io/v1/namespaces/ns/imagestreams"
        made = client.request("POST", path, body={"metadata": {"name": "app"}, "spec": {}})
        streams = Streams(Client(lambda: RestConfig(simulator.url), user_agent="streams"), changes.append)
        streams.informer.start()
        try:
            assert streams.informer.synced.wait(60)
            found = streams.get(("ns", "app"))
            assert found
            assert found.metadata.uid == made["metadata"]["uid"]
            assert (streams.all_keys(), streams.get(("ns", "other"))) == ([("ns", "app")], None)
            client.request("DELETE", f"{path}/app")
            wait_for("it is gone", lambda: len(changes) == 2)
        finally:
            streams.informer.stop()
    assert [(change.old, change.new) for change in changes] == [(None, found), (found, None)]
