"""Files as oc, kubectl, oc-mirror, must-gather and PowerShell write them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.kube.errors import ConfigurationError
from mirrorstream_cli.main import main
from mirrorstream_cli.object_files import READABLE, read_files

Object = dict[str, Any]


def mirror_set(name: str = "red", mirror: str = "mirror.example.com/up", **more: Any) -> Object:
    """An ImageDigestMirrorSet."""
    spec = {"imageDigestMirrors": [{"source": "registry.example.org", "mirrors": [mirror]}]}
    return {
        "apiVersion": "config.openshift.io/v1",
        "kind": "ImageDigestMirrorSet",
        "metadata": {"name": name},
        "spec": spec,
        **more,
    }


def bare(item: Object) -> Object:
    """As it is in a list of its kind."""
    return {name: value for name, value in item.items() if name not in ("kind", "apiVersion")}


SET, STREAM = mirror_set(), {"kind": "ImageStream", "metadata": {"name": "a", "namespace": "web"}}
SETS = {"kind": "ImageDigestMirrorSetList", "apiVersion": "config.openshift.io/v1", "metadata": {}}
OTHERS = [
    {"apiVersion": "operators.coreos.com/v1alpha1", "kind": "CatalogSource", "metadata": {"name": "cs"}},
    {"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "p"}}]},
    {"apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": {"name": "p"}, "spec": {"images": []}},
    {"apiVersion": "image.openshift.io/v1", "kind": "Image", "metadata": {"name": "sha256:aa"}},
    {"apiVersion": "mirror.openshift.io/v2alpha1", "kind": "ImageSetConfiguration", "mirror": {}},
]


def read(tmp_path: Path, content: str | bytes, name: str = "objects.yaml") -> tuple[list[Object], list[str]]:
    """The objects of a file of that content, and the notes."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = read_files([str(path)])
    return found.objects, found.notes


def written(*items: Object) -> str:
    """A file with several documents."""
    return yaml.safe_dump_all(items)


@pytest.mark.parametrize(
    ("content", "objects"),
    [
        pytest.param(written(SET, STREAM), [SET, STREAM], id="documents"),
        pytest.param("# a comment\n", [], id="comments"),
        pytest.param("---\n" + written(SET) + "---\n---\n", [SET], id="must-gather"),
        pytest.param(written({"kind": "List", "items": [SET, STREAM]}), [SET, STREAM], id="list"),
        pytest.param(json.dumps({"kind": "List", "items": [SET]}, indent="\t"), [SET], id="json-with-tabs"),
        pytest.param("\n".join(map(json.dumps, [SET, STREAM])), [SET, STREAM], id="json-lines"),
        pytest.param(json.dumps({**SETS, "items": [bare(SET)]}), [SET], id="raw-list"),
        pytest.param(
            json.dumps({**SETS, "items": [{**SET, "apiVersion": None, "kind": None}]}), [SET], id="raw-list-of-null-kinds"
        ),
        pytest.param(json.dumps({**SETS, "items": None}), [], id="raw-list-of-nothing"),
        pytest.param(
            written({"kind": "List", "items": [{**SETS, "items": [bare(SET)]}, STREAM]}), [SET, STREAM], id="list-in-list"
        ),
        pytest.param(b"\xef\xbb\xbf" + written(SET).encode(), [SET], id="byte-order-mark"),
        pytest.param(b"\xef\xbb\xbf" + json.dumps(SET).encode(), [SET], id="byte-order-mark-and-json"),
        pytest.param(written(SET).encode("utf-16"), [SET], id="powershell"),
        pytest.param(written(SET, SET), [SET], id="the-same-twice"),
        pytest.param(written(SET, mirror_set("blue")), [SET, mirror_set("blue")], id="two-names"),
        pytest.param(written(bare(SET) | {"kind": SET["kind"]}), [bare(SET) | {"kind": SET["kind"]}], id="no-version"),
        pytest.param(written(STREAM | {"apiVersion": "v1"}), [STREAM | {"apiVersion": "v1"}], id="openshift-3"),
    ],
)
def test_the_objects_of_a_file(tmp_path: Path, content: str | bytes, objects: list[Object]) -> None:
    """In their order, and with nothing to be said."""
    assert read(tmp_path, content) == (objects, [])


def test_other_kinds_are_left_out_with_one_note(tmp_path: Path) -> None:
    """A kind is known by its API group too: cosign and OpenShift's registry have kinds of the same names."""
    objects, notes = read(tmp_path, written(*OTHERS, SET))
    assert objects == [SET]
    assert notes == ["other kinds are left out: CatalogSource, ClusterImagePolicy, Image, ImageSetConfiguration, Pod"]


@pytest.mark.parametrize("version", ["template.openshift.io/v1", "v1"])
def test_a_template_is_to_be_processed_first(tmp_path: Path, version: str) -> None:
    """Its parameters are in the way of its objects."""
    objects, (note,) = read(tmp_path, written({"apiVersion": version, "kind": "Template", "objects": [STREAM]}), "t.yaml")
    assert objects == []
    assert f"`oc process --local -o yaml -f {tmp_path}/t.yaml`" in note


def test_many_other_kinds_are_one_line(tmp_path: Path) -> None:
    """Whatever they are called."""
    _, (note,) = read(tmp_path, written(*({"kind": f"K{number:02}\x1b\n" + "x" * 1000} for number in range(12))))
    assert note.endswith(" and 2 more")
    assert len(note) < 1000
    assert note.isprintable()


def test_of_an_object_that_changed_the_last_counts(tmp_path: Path) -> None:
    """As for `kubectl apply`; it is said, since it may be a mistake."""
    newer = mirror_set(mirror="other.example.com")
    objects, notes = read(tmp_path, written(SET, STREAM, newer))
    assert objects == [STREAM, newer]
    assert notes == ["ImageDigestMirrorSet red is there more than once, and not the same: the last one counts"]


def test_objects_without_a_name_are_all_kept(tmp_path: Path) -> None:
    """Each has rules of its own."""
    nameless = [mirror_set(mirror=mirror, metadata={}) for mirror in ("a.example.com", "b.example.com")]
    assert read(tmp_path, written(*nameless)) == (nameless, [])


def test_a_folder_has_a_file_for_each_object(tmp_path: Path) -> None:
    """As must-gather writes them; like kubectl, it reads no folder within."""
    for name, item in {"a.yaml": SET, "b.json": STREAM, "c.yml": mirror_set("c"), "d.log": {}, "e/f.yaml": mirror_set("f")}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(item))
    assert read_files([str(tmp_path)]).objects == [SET, STREAM, mirror_set("c")]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`oc get … -o yaml | mirrorstream explain … --file -`."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(written(SET).encode())))
    assert read_files(["-"]).objects == [SET]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("- a", "document 1: expected an object, found list"),
        ("metadata: {}", "document 1: kind: expected the kind of an object, found None"),
        ("kind: List\nitems: [{metadata: {}}]", "document 1: kind: expected the kind of an object, found None"),
        ("kind: List\nitems: {}", "document 1: items: expected a list"),
        ("a: 1\n---\nb: [", "not valid YAML"),
        (b"\xff", "cannot be read"),
        *((f"kind: {kind}", f"document 1: metadata: expected a mapping in {kind}") for kind in READABLE),
    ],
)
def test_what_is_no_object_is_an_error(tmp_path: Path, content: str | bytes, says: str) -> None:
    """Which names the file, and the document."""
    with pytest.raises(ConfigurationError, match=says) as raised:
        read(tmp_path, content)
    assert str(raised.value).startswith(str(tmp_path / "objects.yaml"))


def test_nulls_and_dates_in_a_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Null is unset in every place, and a date is text."""
    path = tmp_path / "f.yaml"
    path.write_text("""
kind: ImageStream
apiVersion: image.openshift.io/v1
metadata: {name: a, namespace: null, annotations: null, creationTimestamp: null}
spec:
  dockerImageRepository: null
  lookupPolicy: null
  tags:
  - {name: v1, annotations: null, generation: null, reference: null, importPolicy: null, referencePolicy: {type: null},
     from: {kind: DockerImage, name: "registry.example.org/a:v1", namespace: null}}
status:
  dockerImageRepository: null
  tags:
  - tag: v1
    items: null
    conditions: [{type: ImportSuccess, status: "False", reason: null, message: null, generation: null,
                  lastTransitionTime: 2019-01-01T00:00:00Z}]
  - {tag: v2, conditions: null, items: [{image: null, dockerImageReference: null, created: 2019-01-01T00:00:00Z}]}
""")
    assert main(["explain", "web/a", "--file", str(path)]) == 0
    assert (
        "web/a:v1  from registry.example.org/a:v1\n  State: the import fails since 2019-01-01T00:00:00Z" in capsys.readouterr().out
    )


def test_what_is_left_out_is_in_every_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As text, for programs, and as a pod would have it."""
    path = tmp_path / "f.yaml"
    path.write_text(written(*OTHERS[:1], SET))
    says = "other kinds are left out: CatalogSource"
    arguments = ["explain", "registry.example.org/a:1", "--file", str(path)]
    assert main(arguments) == 0
    assert f"\nNote: {says}\n" in capsys.readouterr().out
    for more in ([], ["--as-pod", "-n", "web"]):
        assert main([*arguments, *more, "-o", "json"]) == 0
        assert says in json.loads(capsys.readouterr().out)["notes"]
