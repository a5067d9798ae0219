"""`mirrorstream status` on pods that hang on an image of a Local tag: what each waits for, and what would help."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.diagnose.hanging_pods import (
    Claims,
    HangingPod,
    Known,
    Pod,
    WaitsFor,
    decode_pod,
    hanging_pods,
    pod_groups,
)
from mirrorstream.diagnose.pods import REASONS
from mirrorstream.diagnose.status import Rules, StatusReport, render_status
from mirrorstream.diagnose.tag_status import ControllerView, tag_states
from mirrorstream.imagestream.model import ImageStream, imagestream_from
from mirrorstream.imagestream.outcomes import AttemptHistory
from mirrorstream.kube.client import Client
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.runtime.settings import Settings
from mirrorstream.text.terminal import layout

from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.waiting import wait_for
from tests.cli.simulated import DEAD, Run, configure, cover, create, event, fail, heal, local, pod
from tests.diagnose.builders import DIGEST, NOW, POLICY, SOURCE, attempt, failure, history, item

Object = dict[str, Any]
HERE = "registry.internal:5000/ns/app"
OURS = f"{HERE}@{DIGEST}"


def stream(status: Object, name: str = "app", namespace: str = "ns", policy: str = "Local", source: str = SOURCE) -> ImageStream:
    """A stream with a tag `v1` and one that follows it."""
    tags = [
        {"name": "v1", "from": {"kind": "DockerImage", "name": source}, "generation": 2, "referencePolicy": {"type": policy}},
        {"name": "latest", "from": {"kind": "ImageStreamTag", "name": "v1"}, "referencePolicy": {"type": policy}},
    ]
    return imagestream_from(
        {
            "metadata": {"name": name, "namespace": namespace, "uid": "u", "generation": 2},
            "spec": {"tags": tags},
            "status": {"dockerImageRepository": HERE.replace("ns", namespace), "tags": [{"tag": "v1", **status}]},
        }
    )


def read(document: Object) -> Pod:
    """A pod as it is read."""
    return decode_pod(json.dumps(document).encode())


def found(
    *pods: Object, known: Known | None = None, status: Object | None = None, history: AttemptHistory | None = None, **more: Any
) -> tuple[HangingPod, ...]:
    """What is told of pods beside a stream, which is well unless `status` says otherwise."""
    streams = [stream(item() if status is None else status, **more)]
    states = [state for one in streams for state in tag_states(one, POLICY, history or AttemptHistory(), ControllerView())]
    return hanging_pods([read(one) for one in pods], Claims(streams), states, known or Known(DEFAULTS))


CHANGED = {"annotations": {"mirrorstream.github.io/original-images": json.dumps({"c0": SOURCE})}}
OPTED_OUT = {"labels": {"mirrorstream.github.io/rewrite": "disabled"}}
ANSWERED = history(attempt("failed", "not-found", "not-found"))
UNREACHED = history(attempt("failed", "not-found", "unreachable"))
DEFAULTS, OBSERVES = Settings(), Settings(mode="observe")
EXCLUDES = Settings.model_validate({"webhook": {"excludeOwners": ["Database.apps.example.com"]}})
REPORTS = Settings.model_validate({"webhook": {"pendingPods": "report"}})


RAN = {"terminated": {"exitCode": 1}}


def started(document: Object, **status: Any) -> Object:
    """The pod whose container ran before."""
    document["status"]["containerStatuses"][0].update(status)
    return document


def GUARDED(image: str, namespace: str, digest: str) -> str:  # noqa: N802  a constant to its readers
    """A policy for one image, which would not check its digest as it checks its tag."""
    return "ImagePolicy ns/p" if (image, namespace, digest) == (SOURCE, "ns", DIGEST) else ""


@pytest.mark.parametrize(
    ("document", "more", "waits", "why", "helps"),
    [
        pytest.param(pod(), {}, "repair", "ns/app:v1 has an image", "longer than a minute", id="about to be repaired"),
        pytest.param(pod(), {"status": failure()}, "import", "no attempt is known", "controller runs", id="failing"),
        pytest.param(
            pod(),
            {"status": failure(), "history": ANSWERED},
            "import",
            "m.io does not have it",
            "mirror it",
            id="lost",
        ),
        pytest.param(
            pod(),
            {"status": failure(), "history": UNREACHED},
            "import",
            "n.io cannot be reached",
            "check that n.io runs",
            id="down",
        ),
        pytest.param(pod(), {"status": {}}, "import", "the platform has not finished", "wait", id="pending"),
        pytest.param(
            pod(),
            {"status": failure("not found", "NotFound")},
            "import",
            "must not be bypassed",
            "another `from`",
            id="refused import",
        ),
        pytest.param(
            pod(),
            {"known": Known(DEFAULTS, told={"web-uid": "cannot be changed"})},
            "owner",
            "cannot be changed",
            "create",
            id="not changed",
        ),
        pytest.param(pod(**OPTED_OUT), {}, "owner", "the pod's label", "owner", id="pod opted out"),
        pytest.param(
            pod(),
            {"known": Known(DEFAULTS, opted_out=frozenset({"ns"}))},
            "owner",
            "the namespace's label",
            "owner",
            id="namespace",
        ),
        pytest.param(pod(), {"known": Known(OBSERVES)}, "owner", "mode: observe", "mode: active", id="observes"),
        pytest.param(
            pod(), {"known": Known(REPORTS)}, "owner", "webhook.pendingPods: report", "create the pod again", id="reports"
        ),
        pytest.param(
            pod(),
            {"known": Known(DEFAULTS, policy=MirrorPolicy.from_objects([]))},
            "owner",
            "no mirror set covers",
            "a mirror set",
            id="scope",
        ),
        pytest.param(
            pod(ownerReferences=[{"apiVersion": "apps.example.com/v1", "kind": "Database", "name": "x"}]),
            {"known": Known(EXCLUDES)},
            "owner",
            "webhook.excludeOwners has Database.apps.example.com",
            "owner",
            id="excluded owner",
        ),
        pytest.param(pod("web", OURS, **CHANGED), {}, "pull", "Back-off", "oc describe pod", id="the internal registry's"),
        pytest.param(
            pod("web", f"{HERE}:v1", **CHANGED),
            {"status": failure()},
            "import",
            "no attempt is known",
            "controller runs",
            id="the pending tag's",
        ),
        pytest.param(
            pod("web", f"{HERE}:latest"),
            {"status": failure()},
            "import",
            "no attempt is known",
            "controller runs",
            id="a tag that follows",
        ),
        pytest.param(
            pod(annotations={"kubernetes.io/config.mirror": "x"}), {}, "owner", "a static pod", "owner", id="a static pod"
        ),
        pytest.param(started(pod(), restartCount=1), {}, "owner", "has started before", "create", id="restarted"),
        pytest.param(
            started(pod(), lastState=RAN), {"status": failure()}, "owner", "has started before", "create", id="ran before"
        ),
        pytest.param(
            started(pod("web", OURS, **CHANGED), restartCount=1), {}, "pull", "Back-off", "oc describe pod", id="ours, restarted"
        ),
        pytest.param(pod(), {"known": Known(DEFAULTS, guard=GUARDED)}, "owner", "p guards its image", "accepts", id="signatures"),
    ],
)
def test_what_a_pod_waits_for(document: Object, more: Object, waits: str, why: str, helps: str) -> None:
    """And what would help it."""
    (one,) = found(document, **more)
    assert (one.waits_for, one.name, one.container, one.reason) == (waits, "ns/web", "c0", "ImagePullBackOff")
    assert why in one.why
    assert helps in one.helps


@pytest.mark.parametrize(
    ("document", "more"),
    [
        pytest.param(pod("web", "other.io/a/b:1"), {}, id="another image"),
        pytest.param(pod(), {"policy": "Source"}, id="a tag that is not Local"),
        pytest.param(pod(namespace="other"), {}, id="a stream of another namespace"),
        pytest.param(pod(reason="ContainerCreating"), {}, id="it does not hang"),
        pytest.param(pod(reason="ErrImageNeverPull"), {}, id="it must not pull"),
    ],
)
def test_what_is_no_pod_of_a_local_tag(document: Object, more: Object) -> None:
    """It is not listed."""
    assert found(document, **more) == ()


DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_way_to_hang_counts(reason: str) -> None:
    """Kubelet and CRI-O have different words; the guide names all of them."""
    assert f"`{reason}`" in (DOCS / "cli.md").read_text(encoding="utf-8")
    assert f"`{reason}`" in (DOCS / "how-it-decides.md").read_text(encoding="utf-8")
    assert [one.reason for one in found(pod(reason=reason))] == [reason]


def test_an_image_of_a_shared_namespace() -> None:
    """Its own namespace's streams come first."""
    (one,) = found(pod(namespace="web"), namespace="openshift")
    assert one.tag == "openshift/app:v1"


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"c0": 1}', "[" * 100_000], ids=["text", "list", "number", "deep"])
def test_an_annotation_with_nonsense_tells_nothing(text: str) -> None:
    """A tenant may write anything; the image itself still counts."""
    (one,) = found(pod(annotations={"mirrorstream.github.io/original-images": text}))
    assert one.waits_for is WaitsFor.REPAIR


def text_of(pods: tuple[HangingPod, ...] | None) -> str:
    """What people see."""
    return layout(render_status(StatusReport("ns", 1, (), Rules(True), (), pods), NOW))


def test_pods_are_grouped_by_what_would_help() -> None:
    """The largest group first, three of it by name."""
    lost = [pod(f"lost-{number}") for number in range(12)]
    gone = [pod("b"), pod("a", SOURCE, SOURCE)]
    pods = (
        *found(*gone, known=Known(DEFAULTS, told={"a-uid": "one", "b-uid": "two"})),
        *found(*lost, status=failure(), history=ANSWERED),
    )
    assert [len(group) for group in pod_groups(pods)] == [12, 3]
    shown = text_of(pods)
    assert "  12 pods wait for the import of ns/app:v1: m.io does not have it, n.io does not have it\n" in shown
    assert "ns/lost-0, ns/lost-1, ns/lost-10 and 9 more\n" in shown
    assert "  2 pods are not changed by mirrorstream\n" in shown
    assert "ns/a, ns/b\n" in shown
    assert "  1 pod waits for the import of ns/app:v1: no attempt is known" in text_of(found(pod(), status=failure()))


def test_nothing_is_said_where_nothing_hangs() -> None:
    """Nor where it is not known: a note says that."""
    assert "Pods" not in text_of(())
    assert "Pods" not in text_of(None)


# On a cluster.


def tell(client: Client, told: Mapping[str, Any], message: str) -> None:
    """Write the webhook's Event about a pod."""
    involved = {"kind": "Pod", "namespace": "ns", "name": told["metadata"]["name"], "uid": told["metadata"]["uid"]}
    body = {"metadata": {"name": "e2"}, "involvedObject": involved, "reason": "PendingPodNotRepaired", "message": message}
    client.request("POST", "/api/v1/namespaces/ns/events", body={**body, "lastTimestamp": "2027-01-01T00:00:00Z", "count": 1})


def test_status_tells_of_pods(run: Run, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """As text and as JSON, from the tag's failure to the pod that may not be changed."""
    cover(client)
    local(client)
    outcome = {"tag": "v1", "result": "failed", "source": DEAD, "failure": "unreachable"}
    answer = {"reference": "localhost:2/mirror/team/app:v1", "mirrorSet": "m", "failure": "not-found", "message": "no"}
    event(client, {**outcome, "candidates": [answer]})
    made = create(client, pod("web", DEAD))
    create(client, pod("runs", DEAD, reason="ContainerCreating"))
    assert run("status", "-n", "ns", "-o", "json") == 3
    (one,) = json.loads(capsys.readouterr().out)["pods"]
    assert one == {
        "namespace": "ns",
        "pod": "web",
        "container": "c0",
        "image": DEAD,
        "tag": "ns/app:v1",
        "reason": "ImagePullBackOff",
        "waitsFor": "import",
        "why": "localhost:2 does not have it",
        "helps": "mirror it: `mirrorstream missing -o imageset` lists all for oc-mirror",
    }
    heal(client)
    tell(client, made, "hangs on its pull, and may not be changed\x1b[2J")
    assert run("status", "-n", "ns") == 0
    shown = capsys.readouterr().out
    assert "1 pod is not changed by mirrorstream" in shown
    assert "hangs on its pull, and may not be changed\n" in shown
    assert "create the pod again" in shown


def test_status_reads_shared_streams_for_pods_of_a_namespace(run: Run, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever namespace the configuration shares."""
    local(client)
    client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": "web"}})
    # As on a cluster, no pod is taken before its account is there.
    wait_for("the account is there", lambda: client.get("/api/v1/namespaces/web/serviceaccounts").get("items"))
    create(client, pod("web", DEAD, namespace="web"))
    run("status", "-n", "web", "-o", "json")
    assert json.loads(capsys.readouterr().out)["pods"] == []
    configure(client, "webhook: {sharedNamespaces: [ns]}")
    run("status", "-n", "web", "-o", "json")
    assert [one["tag"] for one in json.loads(capsys.readouterr().out)["pods"]] == ["ns/app:v1"]


@pytest.mark.parametrize(
    ("path", "verb", "note", "pods"),
    [
        ("pods", "list", "you may not list pods, so which pods hang is not known", None),
        ("namespaces/ns$", "get", "you may not get namespace 'ns', so whether it opted out is not known", 1),
        ("events", "list", "you may not list Events, so which pods mirrorstream may not change is not known", 1),
        ("namespaces/openshift/imagestreams", "list", "you may not list imagestreams in openshift", 1),
        ("clusterimagepolicies", "list", "you may not list ClusterImagePolicy, so whether one keeps pods from being changed", 1),
    ],
    ids=["pods", "namespace", "events", "shared-streams", "signature-policies"],
)
def test_a_missing_right_is_told(
    path: str,
    verb: str,
    note: str,
    pods: int | None,
    run: Run,
    client: Client,
    simulator: Simulator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And never taken for nothing that hangs."""
    local(client)
    create(client, pod("web", DEAD))
    fail(simulator, 403, path, verb)
    run("status", "-n", "ns", "-o", "json")
    document = json.loads(capsys.readouterr().out)
    assert any(text.startswith(note) for text in document["notes"]), document["notes"]
    assert (None if document["pods"] is None else len(document["pods"])) == pods


def test_an_api_server_that_is_busy_in_the_end_hides_only_the_pods(
    run: Run, client: Client, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tags have been read by then, perhaps after minutes of waiting."""
    local(client)
    fail(simulator, 503, "/pods", "list")
    assert run("status", "-n", "ns", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["pods"], len(document["tags"])) == (None, 1)
    assert "which pods hang is not known: not now" in document["notes"]


def test_a_namespace_that_opted_out_is_told(run: Run, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """By its label."""
    local(client)
    create(client, pod("web", DEAD))
    namespace = client.get("/api/v1/namespaces/ns")
    namespace["metadata"]["labels"] = {"mirrorstream.github.io/rewrite": "disabled"}
    client.request("PUT", "/api/v1/namespaces/ns", body=namespace)
    run("status", "-n", "ns", "-o", "json")
    (one,) = json.loads(capsys.readouterr().out)["pods"]
    assert (one["waitsFor"], one["why"]) == ("owner", "the namespace's label mirrorstream.github.io/rewrite says so")
