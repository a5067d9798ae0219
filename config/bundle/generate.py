"""`make bundle`: the OLM bundle (registry+v1), made of the manifests in this folder's kustomization and of what else is known.

OLM brings some things itself, and can't bring others. What becomes of each rendered object:

    Deployment                       the install strategy; the webhook serves with the certificate that OLM mounts
    ServiceAccount                   left out: OLM creates those that have permissions
    (Cluster)Role and their bindings permissions of our service accounts; those for others stay objects
    MutatingWebhookConfiguration     webhookdefinitions, without namespaceSelector and matchConditions, which OLM does not have
    Service                          an object, without the port of the webhook: OLM makes a Service for it
    Namespace                        the annotation that the console makes it of
    NetworkPolicy                    left out: OLM takes them since May 2025 only; an older one refuses the bundle
    an object of another namespace   left out: OLM puts everything into one
    anything else                    an object if OLM knows its kind, else an error: nothing is lost without a word

docs/gitops-and-olm.md says what follows for those who install it.
"""

import base64
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
NAME, CHANNEL = "mirrorstream", "stable-v0"
OLM_CERTIFICATES = "/tmp/k8s-webhook-server/serving-certs"  # noqa: S108  where OLM mounts tls.crt and tls.key
SERVED = {"ConfigMap", "PodDisruptionBudget", "PrometheusRule", "Service", "ServiceMonitor"}
RIGHTS = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
LEFT_OUT = {"NetworkPolicy", "ServiceAccount"}
_WEBHOOK_FIELDS = ("admissionReviewVersions", "failurePolicy", "matchPolicy", "objectSelector", "reinvocationPolicy", "rules")
_PREFIX = "operators.operatorframework.io.bundle"
ANNOTATIONS = {
    f"{_PREFIX}.mediatype.v1": "registry+v1",
    f"{_PREFIX}.manifests.v1": "manifests/",
    f"{_PREFIX}.metadata.v1": "metadata/",
    f"{_PREFIX}.package.v1": NAME,
    f"{_PREFIX}.channels.v1": CHANNEL,
    f"{_PREFIX}.channel.default.v1": CHANNEL,
    "com.redhat.openshift.versions": "v4.15",  # and later
}
MADE = "# Made by `make bundle` of config/bundle and what it refers to: change that.\n"


class GenerateError(Exception):
    """The manifests have something that a bundle can't."""


@dataclass(frozen=True)
class Rights:
    """What our service accounts may do, in the CSV's form, and the roles and bindings that are for others."""

    cluster: list[Object]
    namespaced: list[Object]
    others: list[Object] = field(default_factory=list)


def rights(objects: list[Object], accounts: set[str]) -> Rights:
    """Sort roles and bindings. Raises GenerateError for a binding that is for both, or without its role."""
    roles = {(item["kind"], item["metadata"]["name"]): item for item in objects if item["kind"] in ("Role", "ClusterRole")}
    rules: dict[str, dict[str, list[Object]]] = {"ClusterRoleBinding": {}, "RoleBinding": {}}
    others, used = [], set()
    for binding in objects:
        if binding["kind"] not in rules:
            continue
        ours = [subject["kind"] == "ServiceAccount" and subject["name"] in accounts for subject in binding["subjects"]]
        role = (binding["roleRef"]["kind"], binding["roleRef"]["name"])
        if not any(ours):
            others.append(binding)
        elif not all(ours) or role not in roles:
            raise GenerateError(f"{binding['kind']} {binding['metadata']['name']}: OLM can't grant it")
        else:
            used.add(role)
            for subject in binding["subjects"]:
                rules[binding["kind"]].setdefault(subject["name"], []).extend(roles[role]["rules"])
    others += [role for key, role in roles.items() if key not in used]
    cluster, namespaced = (
        [{"serviceAccountName": account, "rules": found} for account, found in sorted(rules[kind].items())]
        for kind in ("ClusterRoleBinding", "RoleBinding")
    )
    return Rights(cluster, namespaced, others)


def webhook_definition(configuration: Object, services: dict[str, Object], deployments: list[Object]) -> Object:
    """The one webhook of the configuration, as OLM registers it. Raises GenerateError when nothing serves it."""
    (webhook,) = configuration["webhooks"]
    wanted = webhook["clientConfig"]["service"]
    service = services[wanted["name"]]["spec"]
    ports = [port for port in service["ports"] if port["port"] == wanted["port"]]
    serving = [
        item for item in deployments if service["selector"].items() <= item["spec"]["template"]["metadata"]["labels"].items()
    ]
    if len(ports) != 1 or len(serving) != 1:
        raise GenerateError(f"{configuration['kind']} {configuration['metadata']['name']}: no one Deployment serves it")
    return {
        "type": "MutatingAdmissionWebhook",
        "generateName": webhook["name"],
        "deploymentName": serving[0]["metadata"]["name"],
        "containerPort": wanted["port"],
        "targetPort": ports[0]["targetPort"],
        "webhookPath": wanted["path"],
        "sideEffects": webhook["sideEffects"],
        "timeoutSeconds": webhook["timeoutSeconds"],
        **{name: webhook[name] for name in _WEBHOOK_FIELDS if name in webhook},
    }


def deployment(item: Object, *, serves: bool) -> Object:
    """One of the install strategy. Raises GenerateError when the webhook's has no certificate to replace."""
    spec = item["spec"]
    if serves:
        (container,) = spec["template"]["spec"]["containers"]
        files = {"--tls-cert-file": "tls.crt", "--tls-key-file": "tls.key"}
        names = [argument.partition("=")[0] for argument in container["args"]]
        if not set(files) <= set(names):
            raise GenerateError(f"Deployment {item['metadata']['name']}: which certificate it serves reviews with is not given")
        arguments = [
            f"{name}={OLM_CERTIFICATES}/{files[name]}" if name in files else argument
            for name, argument in zip(names, container["args"], strict=True)
        ]
        pod = {**spec["template"]["spec"], "containers": [{**container, "args": arguments}]}
        spec = {**spec, "template": {**spec["template"], "spec": pod}}
    return {"name": item["metadata"]["name"], "label": item["metadata"]["labels"], "spec": spec}


def images(deployments: Iterable[Object]) -> list[Object]:
    """Every container's image, once. Raises GenerateError for one without a digest: mirroring goes by digests."""
    found = {}
    for item in deployments:
        pod = item["spec"]["template"]["spec"]
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            repository, _, digest = container["image"].partition("@")
            if not digest:
                raise GenerateError(f"{container['image']}: not by digest")
            found[container["image"]] = repository.rpartition("/")[2]
    return [{"name": name, "image": image} for image, name in sorted(found.items())]


def bundle(objects: list[Object], base: Object, project: Object, icon: bytes) -> dict[str, Object]:
    """The CSV and the objects beside it, by file name. Raises GenerateError."""
    kinds = {kind: [item for item in objects if item["kind"] == kind] for kind in {item["kind"] for item in objects}}
    (namespace,), deployments = kinds["Namespace"], kinds["Deployment"]
    accounts = {item["metadata"]["name"] for item in kinds["ServiceAccount"]}
    found = rights([item for item in objects if item["kind"] in RIGHTS], accounts)
    services = {item["metadata"]["name"]: item for item in kinds["Service"]}
    (configuration,) = kinds["MutatingWebhookConfiguration"]
    definition = webhook_definition(configuration, services, deployments)
    asked = configuration["webhooks"][0]["clientConfig"]["service"]
    beside = list(found.others)
    for item in objects:
        kind, home = item["kind"], item["metadata"].get("namespace")
        if kind in SERVED and home == namespace["metadata"]["name"]:
            beside.append(_without_port(item, asked["port"]) if item is services.get(asked["name"]) else item)
        elif kind not in SERVED | RIGHTS | LEFT_OUT | {"Namespace", "Deployment", "MutatingWebhookConfiguration"}:
            raise GenerateError(f"{kind} {item['metadata']['name']}: OLM takes no object of this kind")
    related = images(deployments)
    annotations = {
        **base["metadata"]["annotations"],
        "containerImage": related[0]["image"],
        "operatorframework.io/suggested-namespace-template": json.dumps(namespace, sort_keys=True),
    }
    install = {
        "clusterPermissions": found.cluster,
        "permissions": found.namespaced,
        "deployments": [deployment(item, serves=item["metadata"]["name"] == definition["deploymentName"]) for item in deployments],
    }
    csv = {
        **base,
        "metadata": {"name": f"{NAME}.v{project['version']}", **base["metadata"], "annotations": dict(sorted(annotations.items()))},
        "spec": {
            **base["spec"],
            "version": project["version"],
            "keywords": project["keywords"],
            "icon": [{"mediatype": "image/svg+xml", "base64data": base64.b64encode(icon).decode()}],
            "install": {"strategy": "deployment", "spec": install},
            "webhookdefinitions": [definition],
            "relatedImages": related,
        },
    }
    return {f"{NAME}.clusterserviceversion.yaml": csv, **{_file(item): _homeless(item) for item in beside}}


def _without_port(service: Object, port: int) -> Object:
    return {**service, "spec": {**service["spec"], "ports": [item for item in service["spec"]["ports"] if item["port"] != port]}}


def _homeless(item: Object) -> Object:
    """OLM says in which namespace things are."""
    return {**item, "metadata": {key: value for key, value in item["metadata"].items() if key != "namespace"}}


def _file(item: Object) -> str:
    return f"{item['metadata']['name']}_{item['apiVersion'].replace('/', '_')}_{item['kind']}.yaml".lower()


def render(folder: Path) -> list[Object]:
    """What kustomize makes of a folder. Raises GenerateError."""
    command = next(
        (tool for tool in (["kubectl", "kustomize"], ["oc", "kustomize"], ["kustomize", "build"]) if shutil.which(tool[0])), None
    )
    if not command:
        raise GenerateError("needs kubectl, oc or kustomize")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)  # noqa: S603  no shell, a tool's fixed name
    if done.returncode:
        raise GenerateError(done.stderr.strip())
    return list(yaml.safe_load_all(done.stdout))


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
_Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]


def files(folder: Path = FOLDER) -> dict[str, str]:
    """Everything that is generated, by its path from the project's root. Raises GenerateError."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = yaml.safe_load((FOLDER / "base.clusterserviceversion.yaml").read_text(encoding="utf-8"))
    made = bundle(render(folder), base, project, (FOLDER / "icon.svg").read_bytes())
    documents = {f"bundle/manifests/{name}": item for name, item in made.items()}
    documents["bundle/metadata/annotations.yaml"] = {"annotations": ANNOTATIONS}
    labels = "".join(f"LABEL {key}={value}\n" for key, value in ANNOTATIONS.items())
    image = "# podman build --file bundle.Containerfile bundle\nFROM scratch\n" + labels
    texts = {name: MADE + yaml.dump(item, Dumper=_Dumper, sort_keys=False, width=10**6) for name, item in documents.items()}
    return {**texts, "bundle.Containerfile": MADE + image + "COPY manifests /manifests/\nCOPY metadata /metadata/\n"}


def write(root: Path, texts: dict[str, str]) -> None:
    """Replace the bundle by these files."""
    shutil.rmtree(root / "bundle", ignore_errors=True)
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        write(ROOT, files())
    except GenerateError as error:
        sys.exit(f"make bundle: {error}")
