"""`mirrorstream status` on pods that hang on an image under a signature policy."""

import json
from typing import Any

import pytest
from mirrorstream.kube.client import Client

from tests.cli.simulated import DEAD, Run, cover, create, heal, local, pod

Object = dict[str, Any]


@pytest.mark.parametrize(("identity", "waits"), [({}, "owner"), ({"signedIdentity": {"matchPolicy": "MatchRepository"}}, "repair")])
def test_status_knows_signature_policies(
    identity: Object, waits: str, run: Run, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that would check less of a digest keeps a pod from being changed; one that looks at the repository only does not."""
    cover(client)
    local(client)
    heal(client)
    spec = {"scopes": [DEAD.rpartition(":")[0]], "policy": identity}
    policies = "/apis/config.openshift.io/v1/clusterimagepolicies"
    client.request("POST", policies, body={"metadata": {"name": "signed"}, "spec": spec})
    create(client, pod("web", DEAD))
    run("status", "-n", "ns", "-o", "json")
    (one,) = json.loads(capsys.readouterr().out)["pods"]
    assert one["waitsFor"] == waits
    assert ("ClusterImagePolicy signed guards its image" in one["why"]) is (waits == "owner")
