"""Tag mirrors for scheduled tags: under them the platform imports by itself, and nothing else changes for the worse."""

import json
from typing import Any

import pytest
from mirrorstream.diagnose.status import Rules, StatusReport, render_status
from mirrorstream.diagnose.suggest import HOSTED, NAME, Suggestion, explanation, nothing_suggested, suggestion
from mirrorstream.diagnose.tag_status import ControllerView, State, TagState, tag_states, with_origins
from mirrorstream.imagestream.model import MANAGED_SAMPLE_LABEL, imagestream_from
from mirrorstream.imagestream.outcomes import Attempt, AttemptHistory, CandidateAnswer
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.text.terminal import layout

from tests.diagnose.builders import DIGEST, NOW, Object, event

HOST = "registry.redhat.io"
JENKINS, AGENT = f"{HOST}/ocp-tools-4/jenkins-rhel8:v4.13", f"{HOST}/ocp-tools-4/jenkins-agent-base-rhel8:v4.13"


def mirror_set(
    source: str = HOST, *mirrors: str, kind: str = "ImageDigestMirrorSet", name: str = "m", never: bool = False
) -> Object:
    """A mirror set with one entry."""
    entries = "imageDigestMirrors" if kind == "ImageDigestMirrorSet" else "imageTagMirrors"
    more = {"mirrorSourcePolicy": "NeverContactSource"} if never else {}
    entry = {"source": source, "mirrors": list(mirrors or ("m.io/redhat", "n.io")), **more}
    return {"kind": kind, "metadata": {"name": name}, "spec": {entries: [entry]}}


def scheduled(
    *objects: Object, source: str = JENKINS, healed: bool = True, namespace: str = "openshift", history: Any = None, **policy: Any
) -> tuple[list[TagState], MirrorPolicy]:
    """A scheduled tag as it stands under these rules, and the rules."""
    rules = MirrorPolicy.from_objects(objects)
    condition = {
        "type": "ImportSuccess",
        "status": "False",
        "reason": "InternalError",
        "message": "connection refused",
        "generation": 1,
    }
    item = {"image": DIGEST, "dockerImageReference": f"{HOST}/x@{DIGEST}", "generation": 1}
    labels = {MANAGED_SAMPLE_LABEL: "true"} if namespace == "openshift" else {}
    stream = imagestream_from(
        {
            "metadata": {"name": "jenkins", "namespace": namespace, "uid": "u", "labels": labels},
            "spec": {
                "tags": [
                    {
                        "name": "redeploy",
                        "generation": 1,
                        "from": {"kind": "DockerImage", "name": source},
                        "importPolicy": {"scheduled": True, **policy},
                    }
                ]
            },
            "status": {"tags": [{"tag": "redeploy", **({"items": [item]} if healed else {"conditions": [condition]})}]},
        }
    )
    states = tag_states(stream, rules, history or AttemptHistory(), ControllerView())
    return with_origins(states, {(DIGEST, ""): "m.io"}), rules


RULES = [
    pytest.param([mirror_set()], id="the-whole-registry"),
    pytest.param([mirror_set(f"{HOST}/ocp-tools-4")], id="the-same-source"),
    pytest.param([mirror_set(f"{HOST}/ocp-tools-4/jenkins-rhel8")], id="the-repository"),
    pytest.param([mirror_set("*.redhat.io")], id="a-wildcard"),
    pytest.param([mirror_set("*.redhat.io", kind="ImageTagMirrorSet")], id="a-wildcard-for-tags"),
    pytest.param(
        [mirror_set("*.redhat.io"), mirror_set("*.redhat.io", "t.io", "n.io", kind="ImageTagMirrorSet", name="t")],
        id="a-wildcard-for-both",
    ),
    pytest.param([mirror_set(never=True)], id="never-the-source"),
    pytest.param([mirror_set(), mirror_set(HOST, "n.io", "o.io/x", name="second")], id="two-sets"),
    pytest.param(
        [mirror_set(), mirror_set(f"{HOST}/ocp-tools-4/jenkins-agent-base-rhel8", "p.io/a", name="beside")], id="one-beside"
    ),
    pytest.param(
        [
            mirror_set(),
            {"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"registrySources": {"insecureRegistries": [JENKINS[:-6]]}}},
        ],
        id="an-insecure-repository",
    ),
    pytest.param(
        [mirror_set(HOST, "m.io/redhat", kind="ImageTagMirrorSet", name="t"), mirror_set(f"{HOST}/ocp-tools-4")], id="hidden"
    ),
]
ELSEWHERE = (f"{HOST}/ubi9/httpd-24", f"{HOST}/ocp-tools", "quay.io/ocp-tools-4/x")
BENEATH = (f"{HOST}/ocp-tools-4/jenkins-rhel8", f"{HOST}/ocp-tools-4/jenkins-agent-base-rhel8", f"{HOST}/ocp-tools-4/x/y")


@pytest.mark.parametrize("objects", RULES)
def test_a_node_pulls_the_tag_from_the_mirrors_and_every_digest_as_before(objects: list[Object]) -> None:
    """By the rules of nodes themselves: the importer asks them for tags, too."""
    states, before = scheduled(*objects)
    found = suggestion(states, before, objects)
    assert [state.name for state in found.tags] == ["openshift/jenkins:redeploy"]
    after = MirrorPolicy.from_objects([*objects, *found.objects])
    assert not after.warnings
    pulled = [source.reference for source in after.pull_sources(JENKINS)]
    assert pulled == [candidate.reference for candidate in before.import_candidates(JENKINS)] + [JENKINS]
    assert not scheduled(*objects, *found.objects)[0][0].fails_on_schedule
    for name in (*BENEATH, *ELSEWHERE):
        assert after.pull_sources(f"{name}@{DIGEST}") == before.pull_sources(f"{name}@{DIGEST}"), name
        assert after.pull_sources(f"{name}:v1")[-1] == before.pull_sources(f"{name}:v1")[-1], name
        references = [candidate.reference for candidate in after.import_candidates(f"{name}:v1")]
        assert references == [candidate.reference for candidate in before.import_candidates(f"{name}:v1")], name
    for name in ELSEWHERE:
        assert after.pull_sources(f"{name}:v1") == before.pull_sources(f"{name}:v1"), name


@pytest.mark.parametrize(
    ("source", "expected", "kinds"),
    [
        pytest.param(HOST, f"{HOST}/ocp-tools-4", ["ImageDigestMirrorSet", "ImageTagMirrorSet"], id="narrower"),
        pytest.param(f"{HOST}/ocp-tools-4", f"{HOST}/ocp-tools-4", ["ImageTagMirrorSet"], id="equal"),
        pytest.param(JENKINS[:-6], JENKINS[:-6], ["ImageTagMirrorSet"], id="longer"),
        pytest.param("*.redhat.io", f"{HOST}/ocp-tools-4", ["ImageDigestMirrorSet", "ImageTagMirrorSet"], id="wildcard"),
    ],
)
def test_the_source_is_no_wider_than_needed(source: str, expected: str, kinds: list[str]) -> None:
    """The repositories next to the tag's, and the digest mirrors' own source where that is narrower."""
    objects = [mirror_set(source)]
    found = suggestion(*scheduled(*objects), objects)
    assert [item["kind"] for item in found.objects] == kinds
    for item in found.objects:
        ((entry,),) = item["spec"].values()
        assert entry["source"] == expected


def test_a_repository_of_a_registrys_top_stands_alone() -> None:
    """A rule for a whole registry is more than a tag needs."""
    objects = [mirror_set()]
    found = suggestion(*scheduled(*objects, source=f"{HOST}/jenkins:1"), objects)
    assert found.objects[1]["spec"] == {
        "imageTagMirrors": [{"source": f"{HOST}/jenkins", "mirrors": ["m.io/redhat/jenkins", "n.io/jenkins"]}]
    }


def test_tags_of_one_source_share_an_entry() -> None:
    """Jenkins has two."""
    objects = [mirror_set()]
    (first,), rules = scheduled(*objects)
    (second,), _ = scheduled(*objects, source=AGENT)
    found = suggestion([first, second], rules, objects)
    assert [len(entries) for item in found.objects for entries in item["spec"].values()] == [1, 1]


def test_what_was_suggested_before_stays() -> None:
    """`oc apply` replaces the spec of the object that has the name."""
    objects = [mirror_set(), mirror_set(f"{HOST}/other", "m.io/other", kind="ImageTagMirrorSet", name=NAME)]
    found = suggestion(*scheduled(*objects), objects)
    (tags,) = (item for item in found.objects if item["kind"] == "ImageTagMirrorSet")
    assert [entry["source"] for entry in tags["spec"]["imageTagMirrors"]] == [f"{HOST}/other", f"{HOST}/ocp-tools-4"]


FAILED = AttemptHistory(
    [
        event(
            Attempt("redeploy", "failed", JENKINS, candidates=(CandidateAnswer("m.io/x", "m", "not-found"),)),
            involvedObject={"kind": "ImageStream", "namespace": "openshift", "name": "jenkins", "uid": "u"},
        )
    ]
)
SERVED = AttemptHistory(
    [
        event(
            Attempt("redeploy", "imported", JENKINS, candidates=(CandidateAnswer("m.io/x", "m"),)),
            involvedObject={"kind": "ImageStream", "namespace": "openshift", "name": "jenkins", "uid": "u"},
        )
    ]
)
INSECURE = {"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"registrySources": {"insecureRegistries": ["m.io"]}}}


@pytest.mark.parametrize(
    ("objects", "more", "why"),
    [
        pytest.param([mirror_set()], {"hosted": True}, HOSTED, id="hosted"),
        pytest.param([mirror_set()], {"healed": False}, "no mirror is known to have its image", id="nothing-tried"),
        pytest.param(
            [mirror_set()], {"healed": False, "history": FAILED}, "no mirror is known to have its image", id="not-in-a-mirror"
        ),
        pytest.param([mirror_set(), INSECURE], {}, "m.io is insecure where the source is not", id="insecure-mirror"),
        pytest.param([mirror_set()], {"healed": False, "history": SERVED}, None, id="about-to-be-healed"),
        pytest.param([mirror_set(), INSECURE], {"insecure": True}, None, id="insecure-tag"),
    ],
)
def test_where_tag_mirrors_would_not_help_there_are_none(objects: list[Object], more: dict[str, Any], why: str | None) -> None:
    """And the reason is told."""
    hosted = more.pop("hosted", False)
    found = suggestion(*scheduled(*objects, **more), objects, hosted=hosted)
    assert bool(found.objects) is (why is None)
    said = " ".join(nothing_suggested(found))
    assert why is None or why in said
    assert "add jenkins to spec.skippedImagestreams" in said


@pytest.mark.parametrize(
    ("objects", "more"),
    [
        pytest.param([mirror_set(), mirror_set(f"{HOST}/ocp-tools-4", kind="ImageTagMirrorSet", name="t")], {}, id="tag-mirrors"),
        pytest.param([mirror_set()], {"scheduled": False}, id="not-scheduled"),
        pytest.param([mirror_set()], {"source": f"{JENKINS[:-6]}@{DIGEST}"}, id="a-digest"),
        pytest.param([], {"healed": False}, id="unmirrored"),
    ],
)
def test_other_tags_are_not_spoken_of(objects: list[Object], more: dict[str, Any]) -> None:
    """Those that the platform imports itself, or cannot be helped."""
    found = suggestion(*scheduled(*objects, **more), objects)
    assert found == Suggestion()
    assert nothing_suggested(found) == ["Nothing to suggest: no scheduled tag is known to fail at the platform's own imports."]
    assert explanation(found) == []


def test_the_explanation_names_tags_and_what_changes() -> None:
    """Who applies it reads it first."""
    objects = [mirror_set()]
    found = suggestion(*scheduled(*objects), objects)
    said = "\n".join(explanation(found))
    assert f"  openshift/jenkins:redeploy  from {JENKINS}" in said
    assert "nodes pull tags of these sources from the mirrors first" in said
    assert "Apply both objects together" in said
    same = [mirror_set(f"{HOST}/ocp-tools-4")]
    assert "Apply both" not in "\n".join(explanation(suggestion(*scheduled(*same), same)))
    json.dumps(found.objects)


def test_status_names_the_tags_and_both_ways_out() -> None:
    """The alert of the samples operator fires for them, though all is well."""
    states, _ = scheduled(mirror_set())
    assert states[0].state is State.HEALED
    shown = layout(render_status(StatusReport("openshift", 1, tuple(states), Rules(True)), NOW))
    section = shown[shown.index("Failing at each scheduled import") :]
    assert "\n  openshift/jenkins:redeploy\n" in section
    assert "`mirrorstream suggest` prints mirror sets" in section
    assert "add jenkins to spec.skippedImagestreams of configs.samples.operator.openshift.io cluster" in section
    assert "SamplesImagestreamImportFailing" in section
    own, _ = scheduled(mirror_set(), namespace="team")
    shown = layout(render_status(StatusReport("team", 1, tuple(own), Rules(True)), NOW))
    assert "`mirrorstream suggest`" in shown
    assert "amples" not in shown


def test_status_does_not_point_to_what_a_hosted_cluster_refuses() -> None:
    """Nobody may create mirror sets there."""
    states, _ = scheduled(mirror_set())
    shown = layout(render_status(StatusReport("openshift", 1, tuple(states), Rules(True), hosted=True), NOW))
    assert "mirrorstream suggest" not in shown
    assert "add jenkins to spec.skippedImagestreams" in shown
    own, _ = scheduled(mirror_set(), namespace="team")
    shown = layout(render_status(StatusReport("team", 1, tuple(own), Rules(True), hosted=True), NOW))
    assert "suggest" not in shown
    assert "in a hosted cluster" in shown
