"""What the manifests promise: pods that restricted-v2 takes, rights without secrets, one image by digest, parts that fit."""

import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.runtime.settings import Settings, parse_settings
from mirrorstream_webhook.pending_pods import patch_policy
from mirrorstream_webhook.pods import REPAIRED_LABEL

from e2e.testbed.support.kustomize import CONFIG, any_kubectl, render, write_overlay
from tests.manifests.conftest import NAMES, Render

Object = dict[str, Any]
IMAGE = "quay.io/mirrorstream/mirrorstream"


def of_kind(items: list[Object], *kinds: str) -> list[Object]:
    """Those of some kinds."""
    return [item for item in items if item["kind"] in kinds]


def named(items: list[Object], kind: str) -> dict[str, Object]:
    """Those of a kind, by name."""
    return {item["metadata"]["name"]: item for item in of_kind(items, kind)}


def pods(items: list[Object]) -> Iterator[tuple[Object, Object, Object]]:
    """Each Deployment with its pod's spec and its one container."""
    for deployment in of_kind(items, "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        yield deployment, spec, container


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_labelled_and_in_our_namespace(name: str, rendered: Render) -> None:
    """So that all of it can be found, and removed; only the console's dashboard lives elsewhere."""
    for item in rendered(name):
        metadata = item["metadata"]
        assert metadata["labels"]["app.kubernetes.io/name"] == "mirrorstream", metadata["name"]
        dashboard = "console.openshift.io/dashboard" in metadata["labels"]
        assert metadata.get("namespace", "mirrorstream") == ("openshift-config-managed" if dashboard else "mirrorstream")


@pytest.mark.parametrize("name", NAMES)
def test_pods_are_restricted(name: str, rendered: Render) -> None:
    """Pod Security `restricted`, OpenShift's restricted-v2: no fixed user or group, nothing writable, no host."""
    for deployment, spec, container in pods(rendered(name)):
        template = deployment["spec"]["template"]
        assert template["metadata"]["annotations"]["openshift.io/required-scc"] == "restricted-v2"
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
        assert all({"configMap", "secret"} & volume.keys() for volume in spec["volumes"])
        assert all(mount["readOnly"] for mount in container["volumeMounts"])


@pytest.mark.parametrize("name", NAMES)
def test_pods_ask_for_resources_and_limit_none(name: str, rendered: Render) -> None:
    """Requests without limits; probes of all three kinds on ports that exist; the webhook is among the last to be evicted."""
    for deployment, spec, container in pods(rendered(name)):
        assert container["resources"].keys() == {"requests"}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        ports = {port["name"] for port in container["ports"]}
        assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")} <= ports
        webhook = deployment["metadata"]["labels"]["app.kubernetes.io/component"] == "webhook"
        assert spec.get("priorityClassName") == ("system-cluster-critical" if webhook else None)


@pytest.mark.parametrize("name", ["openshift", "cert-manager"])
def test_two_replicas_never_share_a_node_and_a_rollout_fits_on_two(name: str, rendered: Render) -> None:
    """Hard anti-affinity, and so no surge; spread over zones where there are any; a drain leaves one."""
    items = rendered(name)
    budgets = named(items, "PodDisruptionBudget")
    for deployment, spec, _ in pods(items):
        labels = deployment["spec"]["selector"]["matchLabels"]
        assert deployment["spec"]["replicas"] == 2
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
        (rule,) = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert rule == {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
        (spread,) = spec["topologySpreadConstraints"]
        assert (spread["topologyKey"], spread["labelSelector"]) == ("topology.kubernetes.io/zone", {"matchLabels": labels})
        budget = budgets[deployment["metadata"]["name"]]["spec"]
        assert (budget["maxUnavailable"], budget["selector"]) == (1, {"matchLabels": labels})


@pytest.mark.parametrize("name", ["single-node", "dev"])
def test_one_replica_has_nothing_to_keep_apart(name: str, rendered: Render) -> None:
    """No budget that would keep the only node from being drained; the new pod is there before the old one goes."""
    items = rendered(name)
    assert not of_kind(items, "PodDisruptionBudget")
    for deployment, spec, _ in pods(items):
        assert deployment["spec"]["replicas"] == 1
        assert "topologySpreadConstraints" not in spec
        assert spec["affinity"].keys() == {"nodeAffinity"}
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_with_parameters_matches_repaired_pods_only(name: str, rendered: Render) -> None:
    """While kube-apiserver has no parameters, it denies everything that such a policy matches, by any user."""
    items = rendered(name)
    policies = [item["spec"] for item in of_kind(items, "ValidatingAdmissionPolicy") if "paramKind" in item["spec"]]
    assert bool(policies) == ("mirrorstream-pending-pods" in named(items, "ClusterRole"))
    for policy in policies:
        assert policy["matchConstraints"]["objectSelector"] == {"matchLabels": {REPAIRED_LABEL: "true"}}


@pytest.mark.parametrize("name", NAMES)
def test_rights_are_few_and_apart(name: str, rendered: Render) -> None:
    """No secrets, no wildcards; pods are changed only where a policy bounds that; no two accounts share a role."""
    items = rendered(name)
    roles = of_kind(items, "Role", "ClusterRole")
    for role in roles:
        for rule in role["rules"]:
            words = {word for field in ("apiGroups", "resources", "verbs") for word in rule.get(field, [])}
            assert not words & {"*", "secrets", "escalate", "bind", "impersonate"}, role["metadata"]["name"]
            if "pods" in words and role["metadata"]["name"] == "mirrorstream-pending-pods":
                assert set(rule["verbs"]) == {"list", "watch", "patch"}
                for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
                    assert set(patch_policy.NAMES) <= named(items, kind).keys()
            elif "pods" in words:  # Prometheus looks for what it scrapes
                assert role["metadata"]["name"] == "mirrorstream-prometheus"
                assert set(rule["verbs"]) == {"get", "list", "watch"}
    subjects = defaultdict(set)
    for binding in of_kind(items, "RoleBinding", "ClusterRoleBinding"):
        assert binding["roleRef"]["name"] in {role["metadata"]["name"] for role in roles}
        for subject in binding["subjects"]:
            subjects[subject["name"]].add(binding["roleRef"]["name"])
    accounts = {spec["serviceAccountName"] for _, spec, _ in pods(items)}
    assert accounts == named(items, "ServiceAccount").keys()
    ours = {account: subjects[account] for account in accounts}
    assert len(set().union(*ours.values())) == sum(map(len, ours.values())), "a role that two accounts share"


def test_every_rule_says_which_request_needs_it() -> None:
    """Each rule of each role has a comment just before it."""
    found = 0
    for path in CONFIG.rglob("*role.yaml"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if line.startswith("  - apiGroups:"):
                assert lines[number - 1].startswith("  # "), f"{path}:{number + 1}"
                found += 1
    assert found > 10


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_fit_together(name: str, rendered: Render) -> None:
    """Selectors, ports, Services, Secrets and mounts name what is there."""
    items = rendered(name)
    services = named(items, "Service")
    templates = [deployment["spec"]["template"] for deployment in of_kind(items, "Deployment")]
    for service in services.values():
        (template,) = [t for t in templates if service["spec"]["selector"].items() <= t["metadata"]["labels"].items()]
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for hook in of_kind(items, "MutatingWebhookConfiguration"):
        for webhook in hook["webhooks"]:
            target = webhook["clientConfig"]["service"]
            assert target["port"] in {port["port"] for port in services[target["name"]]["spec"]["ports"]}
            assert (target["namespace"], target["path"]) == ("mirrorstream", "/mutate-pods")
    for monitor in of_kind(items, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (service,) = [s for s in services.values() if wanted <= s["metadata"]["labels"].items()]
        assert {e["port"] for e in monitor["spec"]["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
    for _, spec, container in pods(items):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
        assert volumes["configuration"]["configMap"]["name"] in named(items, "ConfigMap")
        mounts = tuple(f"{mount['mountPath']}/" for mount in container["volumeMounts"])
        paths = [argument.partition("=")[2] for argument in container["args"] if "=/" in argument]
        assert all(path.startswith(mounts) for path in paths)


@pytest.mark.parametrize("name", ["openshift", "cert-manager", "single-node", "dev"])
def test_the_webhook_has_exactly_one_way_to_its_certificate(name: str, rendered: Render) -> None:
    """And metrics and their probes and scrapes agree on TLS."""
    items = rendered(name)
    monitors = {m["metadata"]["labels"]["app.kubernetes.io/component"]: m for m in of_kind(items, "ServiceMonitor")}
    for deployment, _, container in pods(items):
        component = deployment["metadata"]["labels"]["app.kubernetes.io/component"]
        flags = {argument.partition("=")[0] for argument in container["args"]}
        if component == "webhook":
            assert ("--tls-cert-file" in flags) + ("--self-signed" in flags) == 1
        secure = "--metrics-tls-cert-file" in flags
        schemes = {container[f"{kind}Probe"]["httpGet"].get("scheme", "HTTP") for kind in ("startup", "readiness", "liveness")}
        assert schemes == {"HTTPS" if secure else "HTTP"}
        if monitor := monitors.get(component):
            assert monitor["spec"]["endpoints"][0]["scheme"] == ("https" if secure else "http")


def test_monitoring_adapts_to_each_way_of_certificates(rendered: Render, tmp_path: Path) -> None:
    """Listed before them, as they say: the authority of cert-manager's Secret, plain HTTP beside certificates of one's own."""
    rendered("base")  # skips where nothing renders
    kubectl = any_kubectl()
    assert kubectl
    for component, tls in (("cert-manager", "secret"), ("service-ca", "configMap"), ("self-signed", "")):
        folder = write_overlay(
            tmp_path / component, resources=["base"], components=["components/monitoring", f"components/{component}"]
        )
        items = render(kubectl, folder)
        for monitor in of_kind(items, "ServiceMonitor"):
            (endpoint,) = monitor["spec"]["endpoints"]
            if not tls:
                assert endpoint["scheme"] == "http"
                assert "tlsConfig" not in endpoint
                continue
            source = endpoint["tlsConfig"]["ca"][tls]
            if tls == "configMap":
                assert source["name"] in named(items, "ConfigMap")
            else:
                assert source["name"] in {certificate["spec"]["secretName"] for certificate in of_kind(items, "Certificate")}
        assert ("mirrorstream-metrics-ca" in named(items, "ConfigMap")) == (component == "service-ca")


@pytest.mark.parametrize(("name", "gone"), [("with webhook-only", "controller"), ("with controller-only", "webhook")])
def test_half_an_installation_has_nothing_of_the_other_half(name: str, gone: str, rendered: Render) -> None:
    """By the component's label, and by every name."""
    items = rendered(name)
    assert of_kind(items, "Deployment")
    for item in items:
        assert item["metadata"]["labels"].get("app.kubernetes.io/component") != gone
        assert item["metadata"]["name"] != f"mirrorstream-{gone}"


@pytest.mark.parametrize("name", NAMES)
def test_a_checkout_installs_the_image_that_it_builds(name: str, rendered: Render) -> None:
    """Which one entry of the base says: the name that `make image` gives it. No digest stands for an image that does not exist."""
    version = tomllib.loads((CONFIG.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for _, _, container in pods(rendered(name)):
        assert container["image"] == f"{IMAGE}:{version}"
    entries = [
        entry
        for path in CONFIG.rglob("kustomization.yaml")
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")).get("images", [])
    ]
    assert entries == [{"name": IMAGE, "newTag": version}]


def test_the_overlay_observe_changes_nothing_but_the_mode(rendered: Render) -> None:
    """Its objects are those for OpenShift."""
    observe, usual = rendered("observe"), rendered("openshift")
    configuration = named(observe, "ConfigMap")["mirrorstream-config"]["data"]["config.yaml"]
    assert parse_settings(configuration, "config.yaml") == Settings(mode="observe")
    assert {name: item for name, item in _by_name(observe).items() if name[1] != "mirrorstream-config"} == {
        name: item for name, item in _by_name(usual).items() if name[1] != "mirrorstream-config"
    }


def _by_name(items: list[Object]) -> dict[tuple[str, str, str], Object]:
    return {(item["kind"], item["metadata"]["name"], item["metadata"].get("namespace", "")): item for item in items}


def test_an_overlay_of_ones_own_names_the_mirrors_copy_and_a_configuration(rendered: Render, tmp_path: Path) -> None:
    """One `images` entry moves both programs to a mirror; a file of one's own takes the default's place."""
    rendered("base")
    kubectl = any_kubectl()
    assert kubectl
    copy = {"name": IMAGE, "newName": "mirror.example.com:5000/mirrorstream", "digest": f"sha256:{'a' * 64}"}
    folder = tmp_path / "mine"
    generator = {"name": "mirrorstream-config", "namespace": "mirrorstream", "behavior": "replace", "files": ["config.yaml"]}
    write_overlay(folder, resources=["overlays/openshift"], images=[copy], configMapGenerator=[generator])
    (folder / "config.yaml").write_text("mode: observe\n", encoding="utf-8")
    items = render(kubectl, folder)
    for _, _, container in pods(items):
        assert container["image"] == f"{copy['newName']}@{copy['digest']}"
    configuration = named(items, "ConfigMap")["mirrorstream-config"]["data"]["config.yaml"]
    assert parse_settings(configuration, "config.yaml").mode == "observe"


def test_the_configuration_that_is_installed_is_the_default_and_shows_every_field() -> None:
    """What a user sees in the ConfigMap is what holds without one."""
    text = (CONFIG / "base" / "configuration" / "config.yaml").read_text(encoding="utf-8")
    assert parse_settings(text, "config.yaml") == Settings()
    assert _paths(yaml.safe_load(text)) == _paths(Settings().model_dump(mode="json"))


def _paths(value: Any, prefix: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {prefix}
    return {path for key, item in value.items() for path in _paths(item, f"{prefix}.{key}")}


def test_network_policies_let_out_what_the_api_server_and_dns_need(rendered: Render) -> None:
    """No other port, to nobody; every pod is covered."""
    items = rendered("openshift")
    policies = of_kind(items, "NetworkPolicy")
    for deployment in of_kind(items, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        (policy,) = [p for p in policies if p["spec"]["podSelector"]["matchLabels"].items() <= labels.items()]
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        to_anywhere = [rule for rule in policy["spec"]["egress"] if "to" not in rule]
        assert {port["port"] for rule in to_anywhere for port in rule["ports"]} == {443, 6443}
        to_some = [rule for rule in policy["spec"]["egress"] if "to" in rule]
        assert {port["port"] for rule in to_some for port in rule["ports"]} == {53, 5353}


def test_only_monitoring_reaches_the_metrics(rendered: Render) -> None:
    """By the network policies; the webhook's other port is for API servers, which no policy can name."""
    for policy in of_kind(rendered("openshift"), "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            ports = {port["port"] for port in rule["ports"]}
            if ports & {8080, "metrics"}:
                assert ports <= {8080, "metrics"}, rule
                names = {
                    name
                    for peer in rule["from"]
                    for expression in peer["namespaceSelector"]["matchExpressions"]
                    for name in expression["values"]
                }
                assert names == {"openshift-monitoring", "openshift-user-workload-monitoring", "monitoring"}
            else:
                assert ports <= {8443, "admission"}, rule


def test_the_webhook_keeps_out_of_the_platforms_and_its_own_namespaces(rendered: Render) -> None:
    """Twice: by conditions, and by the label of its own namespace."""
    items = rendered("openshift")
    (hook,) = of_kind(items, "MutatingWebhookConfiguration")
    (webhook,) = hook["webhooks"]
    expressions = " ".join(condition["expression"] for condition in webhook["matchConditions"])
    assert all(f"'{name}'" in expressions for name in ("kube-", "openshift-", "mirrorstream"))
    assert (webhook["failurePolicy"], webhook["timeoutSeconds"], webhook["sideEffects"]) == ("Ignore", 3, "None")
    (namespace,) = of_kind(items, "Namespace")
    label = namespace["metadata"]["labels"]["mirrorstream.github.io/rewrite"]
    assert label in webhook["namespaceSelector"]["matchExpressions"][0]["values"]
