"""The OLM bundle and its catalog: what OLM and the catalogs' pipelines accept."""

import base64
import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml

from config.bundle import generate
from config.release.commit import ReleaseError
from config.release.render import IMAGE, render
from e2e.testbed.support.gobuild import BuildError, GoMissingError
from tests.packaging import olm
from tests.packaging.containerfile import ROOT, Containerfile

Object = dict[str, Any]
DIGEST = "sha256:" + 32 * "ab"
OFFLINE = re.compile(r"dial tcp|no such host|i/o timeout|proxyconnect|TLS handshake timeout")
FEATURES = ("cnf", "cni", "csi", "disconnected", "fips-compliant", "proxy-aware", "tls-profiles")
TOKENS = ("token-auth-aws", "token-auth-azure", "token-auth-gcp")


def load(path: Path) -> Object:
    """One YAML document."""
    document: Object = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def rendered() -> list[Object]:
    """What it is made of."""
    if not any(map(shutil.which, ("kubectl", "oc", "kustomize"))):
        pytest.skip("needs kubectl, oc or kustomize")
    return list(yaml.safe_load_all(render(generate.FOLDER, DIGEST)))


@pytest.fixture(scope="module")
def bundle(rendered: list[Object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    folder = tmp_path_factory.mktemp("release") / "bundle"
    generate.write(folder, generate.files(DIGEST))
    return folder


@pytest.fixture(scope="module")
def csv(bundle: Path) -> Object:
    """The ClusterServiceVersion."""
    return load(bundle / "manifests" / "mirrorstream.clusterserviceversion.yaml")


@pytest.fixture(scope="module")
def beside(bundle: Path) -> list[Object]:
    """The other objects."""
    return [load(path) for path in sorted((bundle / "manifests").iterdir()) if "clusterserviceversion" not in path.name]


def judged(judge: Any) -> Any:
    """What OLM's module says; skips where it cannot be had."""
    try:
        return judge()
    except GoMissingError:
        pytest.skip("OLM's own schema and validators need Go")
    except BuildError as error:
        if OFFLINE.search(str(error)):
            pytest.skip("OLM's own schema and validators come from the Go module proxy, which cannot be reached")
        raise


def test_the_csv_is_valid(csv: Object) -> None:
    """By the schema that OLM's API has for it, with no field that it does not know."""
    schema = judged(lambda: olm.schema("clusterserviceversions"))
    errors = [f"{error.json_path}: {error.message}" for error in jsonschema.Draft7Validator(schema).iter_errors(csv)]
    assert errors == []


def test_olms_validators_find_nothing(bundle: Path) -> None:
    """Neither errors nor warnings, of all but the one that pulls images."""
    assert judged(lambda: olm.findings(bundle)) == []


def test_olms_validators_are_asked(bundle: Path, tmp_path: Path) -> None:
    """What is wrong is found, or the test above would show nothing."""
    shutil.copytree(bundle, tmp_path / "bundle")
    file = tmp_path / "bundle" / "manifests" / "mirrorstream.clusterserviceversion.yaml"
    broken = (
        file.read_text(encoding="utf-8")
        .replace("Basic Install", "Everything")
        .replace("minKubeVersion: 1.28.0", "minKubeVersion: x")
    )
    file.write_text(broken, encoding="utf-8")
    found = " ".join(finding.detail for finding in judged(lambda: olm.findings(tmp_path / "bundle")))
    assert '"Everything" is not a valid capabilities level' in found
    assert "MinKubeVersion" in found


@pytest.fixture(scope="module")
def shown() -> list[Object]:
    """The objects that docs/gitops-and-olm.md has people create."""
    text = (ROOT / "docs" / "gitops-and-olm.md").read_text(encoding="utf-8")
    return [
        item for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for item in yaml.safe_load_all(block)
    ]


@pytest.mark.parametrize("kind", ["OperatorGroup", "Subscription"])
def test_what_the_page_shows_is_valid(kind: str, shown: list[Object]) -> None:
    """By the schemas that OLM's API has."""
    (item,) = [item for item in shown if item.get("kind") == kind]
    schema = judged(lambda: olm.schema(f"{kind.lower()}s"))
    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(item)] == []


def test_what_the_page_shows_fits_the_bundle(bundle: Path, csv: Object, shown: list[Object]) -> None:
    """Package, channel, version, and the volume that the configuration of one's own takes the place of in every Deployment."""
    (subscription,) = [item for item in shown if item.get("kind") == "Subscription"]
    annotations = load(bundle / "metadata" / "annotations.yaml")["annotations"]
    prefix = "operators.operatorframework.io.bundle"
    assert subscription["spec"]["name"] == annotations[f"{prefix}.package.v1"]
    assert subscription["spec"]["channel"] == annotations[f"{prefix}.channel.default.v1"]
    (replaced,) = subscription["spec"]["config"]["volumes"]
    for deployment in csv["spec"]["install"]["spec"]["deployments"]:
        (volume,) = [item for item in deployment["spec"]["template"]["spec"]["volumes"] if item["name"] == replaced["name"]]
        assert volume["configMap"]["name"] == "mirrorstream-config"


def test_the_schema_is_strict(csv: Object) -> None:
    """A field of no meaning and a wrong type are found."""
    schema = judged(lambda: olm.schema("clusterserviceversions"))
    broken = {**csv, "spec": {**csv["spec"], "relatedImage": [], "version": 1}}
    errors = {error.json_path for error in jsonschema.Draft7Validator(schema).iter_errors(broken)}
    assert errors == {"$.spec", "$.spec.version"}


def test_names_and_versions(csv: Object) -> None:
    """mirrorstream.vVERSION, of the project's version, which is a semantic one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert csv["metadata"]["name"] == f"mirrorstream.v{project['version']}"
    assert csv["spec"]["version"] == project["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", project["version"])
    assert csv["metadata"]["annotations"]["description"] == project["description"]


def test_what_the_catalog_shows(csv: Object) -> None:
    """Description, icon, links, maintainers; for all namespaces; without custom resources."""
    spec, annotations = csv["spec"], csv["metadata"]["annotations"]
    (icon,) = spec["icon"]
    assert icon["mediatype"] == "image/svg+xml"
    assert ElementTree.fromstring(base64.b64decode(icon["base64data"])).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314  our own
    assert all(
        spec[name] for name in ("displayName", "description", "keywords", "maintainers", "links", "provider", "minKubeVersion")
    )
    assert [mode["type"] for mode in spec["installModes"] if mode["supported"]] == ["AllNamespaces"]
    assert "customresourcedefinitions" not in spec
    assert json.loads(annotations["alm-examples"]) == []
    assert {annotations[f"features.operators.openshift.io/{name}"] for name in FEATURES} <= {"true", "false"}
    assert {annotations[f"features.operators.openshift.io/{name}"] for name in TOKENS} == {"false"}
    assert annotations["operatorframework.io/suggested-namespace"] == "mirrorstream"
    assert all(annotations[name] for name in ("capabilities", "categories", "createdAt", "repository", "support"))


def test_every_image_is_mirrored_by_its_digest(csv: Object) -> None:
    """oc-mirror takes relatedImages; a container with another image would not start in a disconnected cluster."""
    containers = [
        container["image"]
        for deployment in csv["spec"]["install"]["spec"]["deployments"]
        for kind in ("containers", "initContainers")
        for container in deployment["spec"]["template"]["spec"].get(kind, [])
    ]
    related = {image["image"] for image in csv["spec"]["relatedImages"]}
    assert set(containers) == related == {csv["metadata"]["annotations"]["containerImage"]}
    assert related == {f"{IMAGE}@{DIGEST}"}


def test_nothing_is_lost_on_the_way(csv: Object, beside: list[Object], rendered: list[Object]) -> None:
    """Each rendered object is in the bundle, is made by OLM itself, or is left out for the reason that the page gives."""
    install = csv["spec"]["install"]["spec"]
    found = {("Deployment", item["name"]) for item in install["deployments"]}
    found |= {("ServiceAccount", item["serviceAccountName"]) for item in install["clusterPermissions"]}
    found |= {(item["kind"], item["metadata"]["name"]) for item in beside}
    found |= {
        (
            "Namespace",
            json.loads(csv["metadata"]["annotations"]["operatorframework.io/suggested-namespace-template"])["metadata"]["name"],
        )
    }
    missing = {(item["kind"], item["metadata"]["name"]) for item in rendered} - found
    rights = {(kind, name) for kind, name in missing if "Role" in kind}
    ours = {"mirrorstream-controller", "mirrorstream-webhook", "mirrorstream-leader-election", "mirrorstream-pending-pods"}
    assert {name for _, name in rights} <= ours
    others = {("MutatingWebhookConfiguration", "mirrorstream")}
    others |= {("NetworkPolicy", "mirrorstream-controller"), ("NetworkPolicy", "mirrorstream-webhook")}
    assert missing - rights - {("ConfigMap", "mirrorstream-dashboard")} == others


def test_rights_are_those_of_the_roles(csv: Object, rendered: list[Object]) -> None:
    """No more and no less, for the same accounts."""
    roles = {
        (item["kind"], item["metadata"]["name"]): item["rules"] for item in rendered if item["kind"] in ("ClusterRole", "Role")
    }
    pending = roles["ClusterRole", "mirrorstream-pending-pods"]
    install = csv["spec"]["install"]["spec"]
    found = {
        (kind, item["serviceAccountName"]): item["rules"]
        for kind in ("clusterPermissions", "permissions")
        for item in install[kind]
    }
    assert found == {
        ("clusterPermissions", "mirrorstream-controller"): roles["ClusterRole", "mirrorstream-controller"],
        ("clusterPermissions", "mirrorstream-webhook"): [*pending, *roles["ClusterRole", "mirrorstream-webhook"]],
        ("permissions", "mirrorstream-controller"): roles["Role", "mirrorstream-leader-election"],
        ("permissions", "mirrorstream-webhook"): roles["Role", "mirrorstream-pending-pods"],
    }
    # OLM brings no policy that could bound it.
    assert not [rule for rule in pending if "patch" in rule["verbs"]]


def test_the_webhook_serves_with_what_olm_mounts(csv: Object, rendered: list[Object]) -> None:
    """The definition says what the registration says, as far as OLM can; metrics keep the service CA's certificate."""
    (definition,) = csv["spec"]["webhookdefinitions"]
    (registration,) = [item for item in rendered if item["kind"] == "MutatingWebhookConfiguration"]
    (webhook,) = registration["webhooks"]
    same = set(webhook) & set(definition)
    assert {name: definition[name] for name in same} == {name: webhook[name] for name in same}
    assert set(webhook) - same == {"name", "clientConfig", "namespaceSelector", "matchConditions"}
    assert definition["generateName"] == webhook["name"]
    deployments = {item["name"]: item["spec"]["template"]["spec"] for item in csv["spec"]["install"]["spec"]["deployments"]}
    (container,) = deployments[definition["deploymentName"]]["containers"]
    assert definition["targetPort"] in [port["name"] for port in container["ports"]]
    folder = "/tmp/k8s-webhook-server/serving-certs"  # noqa: S108  OLM's
    assert {f"--tls-cert-file={folder}/tls.crt", f"--tls-key-file={folder}/tls.key"} <= set(container["args"])
    assert [argument for argument in container["args"] if argument.startswith("--metrics-tls-cert-file=/etc/mirrorstream-tls/")]
    assert [port for port in container["ports"] if port["name"] == "metrics"]


def test_objects_beside_it(beside: list[Object]) -> None:
    """Of kinds that every OLM from OpenShift 4.15 on takes; in no namespace of their own; with no account that OLM makes."""
    assert {item["kind"] for item in beside} <= generate.SERVED | generate.RIGHTS
    assert not [item["metadata"]["name"] for item in beside if "namespace" in item["metadata"]]
    services = {
        item["metadata"]["name"]: [port["name"] for port in item["spec"]["ports"]] for item in beside if item["kind"] == "Service"
    }
    assert services == {"mirrorstream-controller": ["metrics"], "mirrorstream-webhook": ["metrics"]}


def test_the_images_labels_are_the_annotations(bundle: Path) -> None:
    """OLM reads the files, catalogs the labels."""
    annotations = load(bundle / "metadata" / "annotations.yaml")["annotations"]
    (stage,) = Containerfile.read(bundle / "Containerfile").stages
    assert stage.base == "scratch"
    assert stage.pairs("LABEL") == annotations
    prefix = "operators.operatorframework.io.bundle"
    assert annotations[f"{prefix}.mediatype.v1"] == "registry+v1"
    assert annotations[f"{prefix}.package.v1"] == "mirrorstream"
    assert annotations[f"{prefix}.channel.default.v1"] in annotations[f"{prefix}.channels.v1"].split(",")
    for copy in stage.all("COPY"):
        source, target = copy.text.split()
        assert (bundle / source).is_dir()
        assert target in (f"/{annotations[f'{prefix}.manifests.v1']}", f"/{annotations[f'{prefix}.metadata.v1']}")


BINDING = {"kind": "ClusterRoleBinding", "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"}}
ROLE = {"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [{"verbs": ["get"]}]}
OURS, THEIRS = ({"kind": "ServiceAccount", "name": name} for name in ("ours", "theirs"))


def test_rights_of_others_stay_objects() -> None:
    """A role for the platform's Prometheus, say."""
    binding = {**BINDING, "subjects": [THEIRS]}
    found = generate.rights([binding, ROLE], {"ours"})
    assert (found.cluster, found.namespaced, found.others) == ([], [], [binding, ROLE])


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        pytest.param([{**BINDING, "subjects": [OURS, THEIRS]}, ROLE], "b: OLM can't grant it", id="for-both"),
        pytest.param([{**BINDING, "subjects": [OURS]}], "b: OLM can't grant it", id="role-of-others"),
    ],
)
def test_what_olm_cannot_grant_is_an_error(objects: list[Object], says: str) -> None:
    """Named, and not lost."""
    with pytest.raises(generate.GenerateError, match=says):
        generate.rights(objects, {"ours"})


def test_an_image_without_a_digest_is_an_error() -> None:
    """It could not be mirrored."""
    deployment = {"spec": {"template": {"spec": {"containers": [{"image": "quay.io/a/b:latest"}]}}}}
    with pytest.raises(generate.GenerateError, match="latest: not by digest"):
        generate.images([deployment])


def test_an_object_that_olm_does_not_know_is_an_error(rendered: list[Object]) -> None:
    """Nothing is lost without a word."""
    route = {"apiVersion": "route.openshift.io/v1", "kind": "Route", "metadata": {"name": "r", "namespace": "mirrorstream"}}
    base = load(ROOT / "config" / "bundle" / "base.clusterserviceversion.yaml")
    with pytest.raises(generate.GenerateError, match="Route r: OLM takes no object of this kind"):
        generate.bundle([*rendered, route], base, {"version": "1.0.0", "keywords": []}, b"")


@pytest.mark.parametrize("digest", ["", "latest", "sha256:" + 64 * "0"], ids=["none", "a-tag", "zeros"])
def test_without_an_images_digest_nothing_is_made(digest: str) -> None:
    """It would install an image that does not exist; nor is there one in the checkout to be taken for a real one."""
    with pytest.raises(ReleaseError, match="no digest of an image"):
        generate.files(digest)


def test_opm_takes_the_catalog(csv: Object, tmp_path: Path) -> None:
    """By the checks of `opm validate`, in opm's own module: package, channel, bundle, and how they name each other."""
    text = generate.catalog(csv)
    assert judged(lambda: olm.problem(text, tmp_path / "good")) == ""
    schemas = [item["schema"] for item in yaml.safe_load_all(text)]
    assert schemas == ["olm.package", "olm.channel", "olm.bundle"]
    # What is wrong is found, or this would show nothing.
    assert "stable-v1" in olm.problem(text.replace("defaultChannel: stable-v0", "defaultChannel: stable-v1"), tmp_path / "channel")
    assert "not found in any channel" in olm.problem(
        text.replace(f"- name: {csv['metadata']['name']}", "- name: mirrorstream.v99.0.0"), tmp_path / "entry"
    )


def test_a_catalog_upgrades_every_older_version(csv: Object) -> None:
    """It has no other version: the channel tells which installed ones this one replaces."""
    _, channel, _ = yaml.safe_load_all(generate.catalog(csv))
    assert channel["entries"] == [{"name": csv["metadata"]["name"], "skipRange": f"<{csv['spec']['version']}"}]


def test_the_catalog_names_all_images(csv: Object) -> None:
    """oc-mirror copies what is listed: the program's image by its digest, and the bundle's."""
    *_, entry = yaml.safe_load_all(generate.catalog(csv))
    assert [item["image"] for item in entry["relatedImages"]] == [f"{IMAGE}@{DIGEST}", entry["image"]]
    assert entry["name"] == csv["metadata"]["name"]
