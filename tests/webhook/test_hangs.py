"""Which images of a pod that hangs may be replaced, and by what: only what has not started, and never by another image."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from mirrorstream_webhook.patch import Decision, Way
from mirrorstream_webhook.pending_pods.hangs import (
    QUIET,
    Hang,
    PendingPod,
    Plan,
    follow_hangs,
    plan,
    read_pending,
    refusal,
)
from mirrorstream_webhook.pending_pods.pod_patch import json_patch

from e2e.testbed.simulator.patches import json_patch as apply_patch
from tests.webhook.builders import (
    ANNOTATION,
    AT_SOURCE,
    HEALED,
    MIRROR_SET,
    OURS,
    REGISTRY,
    SOURCE,
    Bed,
    Object,
    digest,
    hanging,
    image_config,
    imported,
    stream,
    tag,
)


def pending(document: Object) -> PendingPod:
    """As the informer has it."""
    return read_pending(json.dumps(document).encode())


def planned(bed: Bed, document: Object, *, hung: float = 100.0, hangs: Mapping[str, Hang] | None = None, **more: Any) -> Plan:
    """What is done about a pod that has hung for `hung` seconds."""
    found = pending(document)
    subject = bed.decider.subject(found.pod, "team")

    def decide(text: str, without: frozenset[Way]) -> Decision:
        return bed.decider.image(text, subject, without=without)

    if hangs is None:
        hangs = follow_hangs({}, None, found, 1000.0 - hung)
    return plan(found, decide, hangs, 1000.0, **more)


def targets(found: Plan) -> dict[str, str]:
    """What becomes of which container."""
    return {change.slot.name: change.target for change in found.changes}


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"])
def test_a_pod_that_hangs_gets_what_its_reference_stands_for(reason: str) -> None:
    """At once: nothing else will come of the source's reference."""
    found = planned(Bed(HEALED), hanging(f"{SOURCE}:v1", reason=reason), hung=0)
    assert targets(found) == {"c0": OURS}
    assert not found.next_way


@pytest.mark.parametrize(
    "reason", ["ErrImageNeverPull", "InvalidImageName", "ContainerCreating", "CrashLoopBackOff", "CreateContainerConfigError"]
)
def test_what_does_not_hang_on_a_pull_is_not_kept(reason: str) -> None:
    """Of thousands of pods that wait for something else nothing stays in the memory."""
    assert pending(hanging(f"{SOURCE}:v1", reason=reason)) is QUIET


def test_a_pod_that_goes_is_left_to_go() -> None:
    """Its deletion is under way."""
    document = hanging(f"{SOURCE}:v1")
    document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert pending(document) is QUIET


def test_all_images_that_have_not_started_are_replaced_in_one_patch() -> None:
    """Init containers one after another would cost a back-off each."""
    document = hanging(
        f"{SOURCE}:v1",
        f"{SOURCE}:v1",
        "elsewhere.example.com/other:v1",
        which=("init",),
        initContainers=[{"name": "init", "image": f"{SOURCE}:v1"}, {"name": "second", "image": f"{SOURCE}:v1"}],
    )
    assert targets(planned(Bed(HEALED), document)) == dict.fromkeys(("c0", "c1", "init", "second"), OURS)


@pytest.mark.parametrize(
    "state",
    [
        {"state": {"running": {"startedAt": "x"}}},
        {"state": {"terminated": {"exitCode": 0}}},
        {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}},
        {"state": {"waiting": {"reason": "ImagePullBackOff"}}, "restartCount": 1},
    ],
    ids=["running", "terminated", "crashed", "restarted"],
)
def test_what_has_started_is_never_changed(state: Object) -> None:
    """A change would restart it; the others of the pod are mended all the same."""
    document = hanging(f"{SOURCE}:v1", f"{SOURCE}:v1", states={"c1": state})
    assert targets(planned(Bed(HEALED), document)) == {"c0": OURS}


def test_what_is_never_pulled_is_not_changed() -> None:
    """It is on the node under its own name."""
    document = hanging(f"{SOURCE}:v1", f"{SOURCE}:v1")
    document["spec"]["containers"][1]["imagePullPolicy"] = "Never"
    assert targets(planned(Bed(HEALED), document)) == {"c0": OURS}


def test_ephemeral_containers_have_another_door() -> None:
    """The API server would refuse the whole patch."""
    document = hanging(f"{SOURCE}:v1", ephemeralContainers=[{"name": "debug", "image": f"{SOURCE}:v1"}])
    assert targets(planned(Bed(HEALED), document)) == {"c0": OURS}


@pytest.mark.parametrize("image", ["UPPER/case", "a" * 3000, "@@", "example.com/unknown:v1"])
def test_what_has_no_answer_stays(image: str) -> None:
    """An unparsable reference keeps nothing else of the pod from being mended."""
    document = hanging(image, f"{SOURCE}:v1", which=("c0", "c1"))
    assert targets(planned(Bed(HEALED), document)) == {"c1": OURS}


def test_an_unhealed_tag_is_waited_for() -> None:
    """Its tag of the internal registry is no digest: a pod is not pointed at it a second time."""
    bed = Bed(stream("app", tag("v1", f"{SOURCE}:v1", failure="dial tcp: connect: connection refused")))
    assert planned(bed, hanging(f"{SOURCE}:v1")) == Plan()


PENDING_TAG = f"{REGISTRY}/openshift/app:v1"


def test_a_reference_by_tag_of_ours_becomes_the_digest_once_it_is_there() -> None:
    """The kubelet may back off for minutes; the new reference has no back-off."""
    document = hanging(PENDING_TAG, originals={"c0": f"{SOURCE}:v1"})
    assert targets(planned(Bed(HEALED), document, hung=0)) == {"c0": OURS}


@pytest.mark.parametrize(
    ("elapsed", "failures", "waits"),
    [(1, 1, 0), (8.9, 1, 0), (9.5, 1, 16.5), (20, 1, 6), (27, 1, 0), (12, 2, 0), (19.5, 2, 16.5), (500, 0, 0)],
)
def test_a_pull_that_may_succeed_is_not_disturbed(elapsed: float, failures: int, waits: float) -> None:
    """A change in the middle of it costs a restart: when the back-off of the kubelet ends, its pull is waited for."""
    hang = Hang(PENDING_TAG, 0.0, 1000.0 - elapsed, failures)
    found = planned(Bed(HEALED), hanging(PENDING_TAG, originals={"c0": f"{SOURCE}:v1"}), hangs={"c0": hang})
    assert (found.again, bool(found.changes)) == (waits, not waits)


@pytest.mark.parametrize(
    ("present", "expected"), [(OURS, AT_SOURCE), (AT_SOURCE, OURS)], ids=["registry-to-digest", "digest-to-registry"]
)
def test_a_reference_of_ours_that_hangs_gets_the_next_way(present: str, expected: str) -> None:
    """After three seconds: the registry is down, or the secret had no token yet."""
    document = hanging(present, f"{SOURCE}:v1", originals={"c0": f"{SOURCE}:v1"}, which=("c0",))
    document["spec"]["containers"][1]["image"] = present
    document["metadata"]["annotations"][ANNOTATION] = json.dumps({"c0": f"{SOURCE}:v1", "c1": f"{SOURCE}:v1"})
    soon = planned(Bed(HEALED), document, hung=2.0)
    assert (soon.changes, soon.again) == ((), 1.0)
    found = planned(Bed(HEALED), document, hung=3.0)
    assert targets(found) == {"c0": expected, "c1": expected}
    assert found.next_way


@pytest.mark.parametrize(("switches", "seconds"), [(0, 3), (1, 6), (4, 48), (40, 300)])
def test_with_everything_down_nothing_flaps(switches: int, seconds: float) -> None:
    """Each further change of the way takes twice as long."""
    document = hanging(OURS, originals={"c0": f"{SOURCE}:v1"})
    assert planned(Bed(HEALED), document, hung=seconds - 0.5, switches=switches).again == 0.5
    assert planned(Bed(HEALED), document, hung=seconds, switches=switches).changes


def test_one_way_alone_has_no_next() -> None:
    """`serveFrom: [registry]`: the registry is waited for."""
    assert planned(Bed(HEALED, serveFrom=["registry"]), hanging(OURS, originals={"c0": f"{SOURCE}:v1"})) == Plan()


def test_a_digest_never_becomes_another() -> None:
    """The tag has moved since: the pod keeps what it was given."""
    moved = stream("app", tag("v1", f"{SOURCE}:v1", imported(2), imported(1)))
    found = planned(Bed(moved), hanging(OURS, originals={"c0": f"{SOURCE}:v1"}))
    assert targets(found) == {"c0": AT_SOURCE}
    gone = stream("app", tag("v1", f"{SOURCE}:v1", imported(2)))
    assert planned(Bed(gone), hanging(OURS, originals={"c0": f"{SOURCE}:v1"})) == Plan()


STALE = {
    "none": (OURS, None),
    "nonsense": (OURS, "{nonsense"),
    "a list": (OURS, "[1, 2]"),
    "300 kB": (OURS, json.dumps({"c0": "x" * 300_000, "y": 1})),
    "another container": (OURS, {"c9": f"{SOURCE}:v1"}),
    "another stream's": (f"{REGISTRY}/openshift/other@{digest(1)}", {"c0": f"{SOURCE}:v1"}),
    "another tag's": (f"{REGISTRY}/openshift/app:v2", {"c0": f"{SOURCE}:v1"}),
    "a copied pod with another image": ("example.com/unknown:v1", {"c0": f"{SOURCE}:v1"}),
    "another repository's digest": (f"example.com/unknown@{digest(1)}", {"c0": f"{SOURCE}:v1"}),
}


@pytest.mark.parametrize("case", STALE)
def test_an_annotation_counts_only_where_the_image_is_its_own(case: str) -> None:
    """Pods are copied with their annotations, and tenants write what they like: never another image because of it."""
    present, originals = STALE[case]
    assert planned(Bed(HEALED), hanging(present, originals=originals)) == Plan()


def test_a_large_annotation_is_not_kept() -> None:
    """A thousand pods with 256 kB each must not fill the memory."""
    found = pending(hanging(OURS, originals={"c0": f"{SOURCE}:v1", "x": "y" * 250_000}))
    assert found.originals == {"c0": f"{SOURCE}:v1"}
    assert len(repr(found)) < 4000


def test_a_mirrors_own_reference_is_told_not_given() -> None:
    """The policy that bounds the account allows no other repository; a new pod gets it."""
    mirror = "mirror.corp:5000/up/team/app"
    recorded = stream("app", tag("v1", f"{SOURCE}:v1", imported(1, mirror), failure="dial tcp: connect: connection refused"))
    tags = {**MIRROR_SET, "kind": "ImageTagMirrorSet", "spec": {"imageTagMirrors": MIRROR_SET["spec"]["imageDigestMirrors"]}}
    rules = (tags, image_config())
    found = planned(Bed(recorded, serveFrom=["digest"], rules=rules), hanging(f"{SOURCE}:v1"))
    assert not found.changes
    assert f"{mirror}@{digest(1)}" in found.told[0]
    assert "create the pod again" in found.told[0]
    assert targets(planned(Bed(recorded, serveFrom=["digest", "registry"], rules=rules), hanging(f"{SOURCE}:v1"))) == {"c0": OURS}


def test_the_image_of_a_volume_is_told_not_changed() -> None:
    """It is immutable; and while it is what hangs, the containers keep their way."""
    volumes = [{"name": "data", "image": {"reference": f"{SOURCE}:v1"}}]
    found = planned(Bed(HEALED), hanging(OURS, originals={"c0": f"{SOURCE}:v1"}, volumes=volumes))
    assert not found.changes
    assert "volume/data" in found.told[0]


def test_the_reason_may_name_the_image_of_a_volume() -> None:
    """The kubelet tells of it as of the container's; what names neither is of an image that the container had before."""
    volumes = [{"name": "data", "image": {"reference": "m.io/data:v1"}}]
    for named, outdated in ((f"{SOURCE}:v1", False), ("m.io/data:v1", False), ("m.io/before:v1", True)):
        waiting = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{named}"'}
        found = pending(hanging(f"{SOURCE}:v1", states={"c0": {"state": {"waiting": waiting}}}, volumes=volumes))
        assert found.outdated == ({"c0"} if outdated else set())


def test_a_pod_without_its_accounts_secret_gets_the_digest() -> None:
    """A pod that hangs from before its account had one, or with a secret of its own only."""
    document = hanging(f"{SOURCE}:v1", imagePullSecrets=[{"name": "mine"}])
    assert targets(planned(Bed(HEALED), document)) == {"c0": AT_SOURCE}


def test_without_a_registry_the_digest_is_what_is_left() -> None:
    """The internal registry was removed while pods hung on it: its name is nobody's by now."""
    bed = Bed(HEALED, rules=(MIRROR_SET, image_config("")))
    assert targets(planned(bed, hanging(f"{SOURCE}:v1"))) == {"c0": AT_SOURCE}


def test_the_patch_tests_what_it_replaces() -> None:
    """Another pod of this name, or another image by now, and nothing is changed; the original is written down."""
    document = hanging(f"{SOURCE}:v1", f"{SOURCE}:v1", originals={"c1": "old", "gone": "x"})
    document["metadata"]["labels"] = {"app": "x"}
    found = planned(Bed(HEALED), document)
    assert json_patch(pending(document), found.changes) == [
        {"op": "test", "path": "/metadata/uid", "value": "u"},
        {"op": "test", "path": "/spec/containers/0/image", "value": f"{SOURCE}:v1"},
        {"op": "replace", "path": "/spec/containers/0/image", "value": OURS},
        {"op": "test", "path": "/spec/containers/1/image", "value": f"{SOURCE}:v1"},
        {"op": "replace", "path": "/spec/containers/1/image", "value": OURS},
        {
            "op": "add",
            "path": "/metadata/annotations/mirrorstream.github.io~1original-images",
            "value": f'{{"c1":"{SOURCE}:v1","c0":"{SOURCE}:v1"}}',
        },
        {"op": "add", "path": "/metadata/labels/mirrorstream.github.io~1repaired", "value": "true"},
    ]


def test_annotations_and_labels_that_came_since_are_not_lost() -> None:
    """The parents are made only if the pod is as it was seen."""
    document = hanging(f"{SOURCE}:v1")
    operations = json_patch(pending(document), planned(Bed(HEALED), document).changes)
    assert operations[0] == {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}
    added = {operation["path"]: operation["value"] for operation in operations if operation["op"] == "add"}
    assert added == {
        "/metadata/annotations": {"mirrorstream.github.io/original-images": f'{{"c0":"{SOURCE}:v1"}}'},
        "/metadata/labels": {"mirrorstream.github.io/repaired": "true"},
    }


@pytest.mark.parametrize("there", ["annotations", "labels"])
def test_a_field_that_is_not_there_is_made_only_in_the_pod_that_was_seen(there: str) -> None:
    """The other one is there, and nothing of it is lost."""
    document = hanging(f"{SOURCE}:v1")
    document["metadata"][there] = {"a": "b"}
    operations = json_patch(pending(document), planned(Bed(HEALED), document).changes)
    assert operations[0] == {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}
    changed = apply_patch(document, operations)["metadata"]
    assert changed["annotations"].keys() - {"a"} == {"mirrorstream.github.io/original-images"}
    assert changed["labels"].keys() - {"a"} == {"mirrorstream.github.io/repaired"}
    assert changed[there]["a"] == "b"


def test_the_next_way_keeps_annotation_and_label() -> None:
    """They are true already, so they are not written again."""
    document = hanging(OURS, originals={"c0": f"{SOURCE}:v1"})
    document["metadata"]["labels"] = {"mirrorstream.github.io/repaired": "true"}
    operations = json_patch(pending(document), planned(Bed(HEALED), document).changes)
    assert [operation["path"] for operation in operations if operation["op"] != "test"] == ["/spec/containers/0/image"]
    # Without the label the policy would refuse the change for good; so it is a conflict.
    assert {"op": "test", "path": "/metadata/labels/mirrorstream.github.io~1repaired", "value": "true"} in operations


def test_two_hundred_containers_are_one_patch() -> None:
    """And take no time to speak of."""
    images = [f"{SOURCE}:v1"] * 200
    document = hanging(*images)
    assert len(planned(Bed(HEALED), document).changes) == 200


def test_failures_of_a_pull_are_counted_as_they_are_seen() -> None:
    """When the kubelet pulls next follows from how often it failed, as long as somebody saw it fail."""
    first = pending(hanging(OURS, reason="ErrImagePull"))
    known = follow_hangs({}, {}, first, 10.0)
    assert known["c0"] == Hang(OURS, 10.0, 10.0, 1)
    backed_off = pending(hanging(OURS))
    known = follow_hangs(known, first.hangs, backed_off, 11.0)
    assert known["c0"] == Hang(OURS, 10.0, 10.0, 1)
    known = follow_hangs(known, backed_off.hangs, first, 21.0)
    assert known["c0"] == Hang(OURS, 10.0, 21.0, 2)
    other = pending(hanging(AT_SOURCE))
    assert follow_hangs(known, first.hangs, other, 22.0)["c0"] == Hang(AT_SOURCE, 22.0, 22.0, 0)
    assert follow_hangs({}, None, first, 10.0)["c0"].failures == 0


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ('pods "x" is forbidden: unable to validate against any security context constraint: [provider …]', "create the pod again"),
        ('pods "x" is forbidden: exceeded quota: \x1b[31mlots', "exceeded quota: lots"),
    ],
    ids=["scc", "quota"],
)
def test_a_refusal_is_said_so_that_its_owner_can_act(message: str, said: str) -> None:
    """What the API server says of it, made harmless; for a security context what is behind it."""
    assert said in refusal(message)
    assert "create the pod again" in refusal(message)


def test_the_pull_of_the_new_image_is_not_taken_for_a_hang() -> None:
    """While the kubelet pulls a large image, its status still tells of the image before: another change would restart it."""
    before = pending(hanging(f"{SOURCE}:v1"))
    known = follow_hangs({}, {}, before, 10.0)
    document = hanging(OURS, originals={"c0": f"{SOURCE}:v1"})
    waiting = document["status"]["containerStatuses"][0]["state"]["waiting"]
    waiting["message"] = f'Back-off pulling image "{SOURCE}:v1": ErrImagePull: connection refused'
    pulling = pending(document)
    assert follow_hangs(known, before.hangs, pulling, 11.0) == {}
    assert planned(Bed(HEALED), document).changes == ()
    waiting["message"] = f'Back-off pulling image "{OURS}": ErrImagePull: connection refused'
    assert follow_hangs({}, pulling.hangs, pending(document), 50.0)["c0"].since == 50.0


def test_a_failure_of_the_image_before_is_none_of_the_new_one() -> None:
    """Changed just after a failure, whose reason stays until the new image has failed, too."""
    before = pending(hanging(f"{SOURCE}:v1", reason="ErrImagePull"))
    changed = pending(hanging(OURS, reason="ErrImagePull"))
    known = follow_hangs(follow_hangs({}, {}, before, 10.0), before.hangs, changed, 11.0)
    known = follow_hangs(known, changed.hangs, changed, 12.0)
    assert known["c0"].since == float("inf")
    failed = pending(hanging(OURS))
    assert follow_hangs(known, changed.hangs, failed, 20.0)["c0"].since == 20.0
