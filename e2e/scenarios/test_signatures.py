"""Signature policies of every release: in v1, in v1alpha1, and on clusters that have none, or have them later."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import SIGNATURE_POLICIES, Cluster
from e2e.testbed.programs.hooks import registered, signature_policy, wait_asked
from e2e.testbed.programs.installed import rewrites
from e2e.testbed.programs.program import Webhook, running
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for


@pytest.mark.parametrize("version", ["v1alpha1", "v1"])
def test_signature_policies_that_a_cluster_gets_later_count_at_once(
    version: str, own_cluster: Callable[..., Cluster], start: Start, tmp_path: Path
) -> None:
    """At first it has no such kinds: the webhook is ready, and serves. From a policy of either kind on it walks around none."""
    cluster = own_cluster(without=SIGNATURE_POLICIES)
    with ExitStack() as stack:
        ns = stack.enter_context(cluster.namespace())
        ns.allow_pulls()
        digest = ns.put("good", "app:v1")
        ns.put("good", "other:v1")
        ns.digest_mirrors()
        start(on=cluster, namespaces={})
        names = ("app", "other")
        for name in names:
            ns.create(name, tag("v1", ns.source(f"{name}:v1")))
        ns.wait_healed("app", "v1", digest)
        other = ns.wait_healed("other", "v1")["image"]
        registry = ns.get("app")["status"]["dockerImageRepository"].rpartition("/")[0]
        sources = {name: ns.source(f"{name}:v1") for name in names}
        wanted = {"app": f"{registry}/app@{digest}", "other": f"{registry}/other@{other}"}
        webhook = stack.enter_context(running(Webhook(cluster.webhook, tmp_path, {"webhook": {"pendingPods": "report"}})))
        stack.enter_context(registered(webhook, cluster.client, [ns.name]))
        wait_asked(webhook, ns)
        for name in names:
            wait_for("it is served", partial(rewrites, ns, sources[name], wanted[name]))
        cluster.serve_signature_policies(version)
        for name, kind, path in (
            ("app", "ImagePolicy", f"namespaces/{ns.name}/imagepolicies"),
            ("other", "ClusterImagePolicy", "clusterimagepolicies"),
        ):
            body = {**signature_policy(kind, "signed", ns.source(name)), "apiVersion": f"config.openshift.io/{version}"}
            cluster.client.request("POST", f"/apis/config.openshift.io/{version}/{path}", body=body)
        for name in names:
            wait_for("the policy counts", partial(rewrites, ns, sources[name], sources[name]))
