"""A cluster with a hosted control plane (HyperShift, ROSA HCP), seen from inside: only the platform writes its mirror rules.

The platform keeps them in one ImageDigestMirrorSet, `cluster`. A ValidatingAdmissionPolicy refuses what anybody else writes to
mirror sets and to the Image config, and the Infrastructure says that the control plane runs elsewhere. HyperShift's own policies
are in control-plane-operator/hostedclusterconfigoperator/controllers/resources/kas of its repository.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mirrorstream.kube.client import ApiError, Client

from e2e.testbed.infrastructure import ELSEWHERE, ON_ITS_OWN_NODES, set_topology
from e2e.testbed.installation import POLICIES, delete
from e2e.testbed.mirrorsets import CONTENT_SOURCES, MIRROR_SETS
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
PLATFORM = "system:hosted-cluster-config"
"""The account of HyperShift's operator for the objects inside a hosted cluster."""
NAME = "mirrorstream-test-hosted"
REFUSAL = "only the platform of a hosted cluster writes this"
WATCH_LIST = {"WatchList": False}
"""Feature gates of a kube-apiserver that cannot send a list as a watch."""


def policy() -> tuple[Object, Object]:
    """The policy, and its binding for the whole cluster."""
    config = {"apiGroups": ["config.openshift.io"], "apiVersions": ["*"]}
    rules = [
        {**config, "operations": ["CREATE", "UPDATE", "DELETE"], "resources": ["imagedigestmirrorsets", "imagetagmirrorsets"]},
        {**config, "operations": ["UPDATE", "DELETE"], "resources": ["images"]},
        {
            "apiGroups": ["operator.openshift.io"],
            "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE", "DELETE"],
            "resources": ["imagecontentsourcepolicies"],
        },
    ]
    validation = {"expression": f"request.userInfo.username == '{PLATFORM}'", "message": REFUSAL, "reason": "Invalid"}
    spec = {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": rules}, "validations": [validation]}
    binding = {"policyName": NAME, "validationActions": ["Deny"]}
    return {"metadata": {"name": NAME}, "spec": spec}, {"metadata": {"name": NAME}, "spec": binding}


def settings_from_outside(settings: Settings, authorities: str) -> Settings:
    """A cluster whose API server trusts CAs (PEM) by files, as additionalTrustBundle has it: no object in the cluster names them.

    Its Image config limits no imports.
    """
    config = {"registrySources": settings.image_config["registrySources"]}
    return replace(settings, image_config=config, trusted_authorities=authorities)


def set_up(client: Client, platform: Client, *, refusing: bool) -> None:
    """Make a cluster one with a hosted control plane.

    `client` is an administrator's, `platform` uses the account PLATFORM. `refusing`: a kube-apiserver evaluates policies.
    """
    config = {"apiVersion": "config.openshift.io/v1", "metadata": {"name": "cluster"}}
    rules = {**config, "kind": "ImageDigestMirrorSet", "spec": {"imageDigestMirrors": []}}
    platform.request("POST", CONTENT_SOURCES.rpartition("/")[0], body=rules)
    set_topology(client, ELSEWHERE)
    if refusing:
        for path, body in zip(POLICIES.values(), policy(), strict=True):
            client.request("POST", path, body=body)
        wait_for("mirror sets of administrators are refused", lambda: REFUSAL in refusal(client))


@contextlib.contextmanager
def hosted(client: Client, platform: Client) -> Iterator[None]:
    """The same with a kube-apiserver, for as long as the context lasts."""
    try:
        set_up(client, platform, refusing=True)
        yield
    finally:
        for path in reversed(POLICIES.values()):
            delete(client, f"{path}/{NAME}")
        wait_for("mirror sets of administrators are accepted", lambda: not refusal(client))
        set_topology(client, ON_ITS_OWN_NODES)
        delete(platform, CONTENT_SOURCES)


def refusal(client: Client, kind: str = "ImageDigestMirrorSet") -> str:
    """Why the API server would refuse a mirror set of this user; empty if it would not. It keeps nothing."""
    version, plural, _ = MIRROR_SETS[kind]
    body = {"apiVersion": version, "kind": kind, "metadata": {"name": "probe"}, "spec": {}}
    try:
        client.request("POST", f"/apis/{version}/{plural}", params={"dryRun": "All"}, body=body)
    except ApiError as error:
        return error.message
    return ""
