"""`make bundle DIGEST=sha256:…`: the OLM bundle (registry+v1), made of this folder's kustomization and of what else is known.

DIGEST is the image's. `make release` writes a bundle with the digest of its own image, and a catalog.

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
import os
import shutil
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from config.release.commit import ReleaseError
from config.release.render import render

Object = dict[str, Any]
FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
NAME, CHANNEL = "mirrorstream", "stable-v0"
OLM_CERTIFICATES = "/tmp/k8s-webhook-server/serving-certs"  # noqa: S108  where OLM mounts tls.crt and tls.key
SERVED = {"ConfigMap", "PodDisruptionBudget", "PrometheusRule", "Service", "ServiceMonitor"}
RIGHTS = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
LEFT_OUT = {"NetworkPolicy", "ServiceAccount"}
BUNDLE_IMAGE = "quay.io/mirrorstream/mirrorstream-bundle"
_DESCRIBED = (
    "description",
    "displayName",
    "installModes",
    "keywords",
    "links",
    "maintainers",
    "maturity",
    "minKubeVersion",
    "provider",
)
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


class GenerateError(ReleaseError):
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


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
_Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]


def dump(*documents: Object) -> str:
    """Objects as the text of a YAML file."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=10**6, explicit_start=len(documents) > 1)


def files(digest: str, command: list[str] | None = None) -> dict[str, str]:
    """Everything that is generated for an image, by its path in the bundle's folder; `command` renders. Raises ReleaseError."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = yaml.safe_load((FOLDER / "base.clusterserviceversion.yaml").read_text(encoding="utf-8"))
    made = bundle(list(yaml.safe_load_all(render(FOLDER, digest, command))), base, project, (FOLDER / "icon.svg").read_bytes())
    documents = {f"manifests/{name}": item for name, item in made.items()}
    documents["metadata/annotations.yaml"] = {"annotations": ANNOTATIONS}
    labels = "".join(f"LABEL {key}={value}\n" for key, value in ANNOTATIONS.items())
    image = "# podman build dist/bundle\nFROM scratch\n" + labels
    texts = {name: MADE + dump(item) for name, item in documents.items()}
    return {**texts, "Containerfile": MADE + image + "COPY manifests /manifests/\nCOPY metadata /metadata/\n"}


def catalog(csv: Object) -> str:
    """The file-based catalog with a bundle of this ClusterServiceVersion: what `opm render` says of it, and its channel."""
    name, spec = csv["metadata"]["name"], csv["spec"]
    (icon,) = spec["icon"]
    image = f"{BUNDLE_IMAGE}:v{spec['version']}"
    described = {key: spec[key] for key in _DESCRIBED if key in spec}
    properties = [
        {"type": "olm.package", "value": {"packageName": NAME, "version": spec["version"]}},
        {"type": "olm.csv.metadata", "value": {"annotations": csv["metadata"]["annotations"], **described}},
    ]
    return dump(
        {
            "schema": "olm.package",
            "name": NAME,
            "defaultChannel": CHANNEL,
            "description": spec["description"],
            "icon": {"base64data": icon["base64data"], "mediatype": icon["mediatype"]},
        },
        {
            "schema": "olm.channel",
            "package": NAME,
            "name": CHANNEL,
            "entries": [{"name": name, "skipRange": f"<{spec['version']}"}],
        },
        {
            "schema": "olm.bundle",
            "package": NAME,
            "name": name,
            "image": image,
            "properties": properties,
            "relatedImages": [*spec["relatedImages"], {"name": "", "image": image}],
        },
    )


def write(folder: Path, texts: dict[str, str]) -> None:
    """Replace the folder by these files."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if not os.environ.get("DIGEST"):
        sys.exit("make bundle: DIGEST=sha256:… says which image it installs; `make release` makes an image and its bundle")
    try:
        write(ROOT / "dist" / "bundle", files(os.environ["DIGEST"]))
    except ReleaseError as error:
        sys.exit(f"make bundle: {error}")
    print("dist/bundle")  # noqa: T201
