"""What users of kubectl, and of GitOps tools that work like it, see of a heal: Events, and no difference to what they applied."""

from pathlib import Path

import pytest
import yaml

from e2e.scenarios.conftest import Kubectl, Start
from e2e.testbed.backends import Choice
from e2e.testbed.cluster import Namespace
from e2e.testbed.streams import following, tag


def _manifest(ns: Namespace, path: Path) -> str:
    """A stream as it lies in a repository."""
    document = {
        "apiVersion": "image.openshift.io/v1",
        "kind": "ImageStream",
        "metadata": {"name": "app", "labels": {"team": "web"}},
        "spec": {"tags": [tag("v1", ns.source("app:v1")), following("latest", "v1")]},
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


def test_a_healed_stream_is_still_what_was_applied(ns: Namespace, start: Start, kubectl: Kubectl, tmp_path: Path) -> None:
    """`kubectl diff` finds nothing after a heal, and applying again undoes nothing."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    manifest = _manifest(ns, tmp_path / "app.yaml")
    done = kubectl("apply", "-f", manifest)
    assert done.returncode == 0, done.stderr
    ns.wait_healed("app", "v1", digest)
    difference = kubectl("diff", "-f", manifest)
    assert (difference.returncode, difference.stdout) == (0, ""), difference
    item = ns.wait_healed("app", "v1", digest)
    assert kubectl("apply", "-f", manifest).returncode == 0
    ns.stays("healed", lambda: ns.healed("app", "v1", digest))
    assert ns.tag_status("app", "v1")["items"] == [item]
    assert ns.wait_healed("app", "latest", digest)


def test_a_gitops_tool_that_applies_on_the_server_sees_no_drift(
    ns: Namespace, start: Start, kubectl: Kubectl, chosen: Choice, tmp_path: Path
) -> None:
    """Our status writes own no field of the spec: no conflict, no difference, for a field manager that applies again and again."""
    if not chosen.platform:
        pytest.skip("the simulator keeps no managed fields")
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    manifest = _manifest(ns, tmp_path / "app.yaml")
    arguments = ("--server-side", "--field-manager", "gitops", "-f", manifest)
    done = kubectl("apply", *arguments)
    assert done.returncode == 0, done.stderr
    ns.wait_healed("app", "v1", digest)
    difference = kubectl("diff", *arguments)
    assert (difference.returncode, difference.stdout) == (0, ""), difference
    again = kubectl("apply", *arguments)
    assert again.returncode == 0, again.stderr
    ns.stays("healed", lambda: ns.healed("app", "v1", digest))
    managers = {entry["manager"]: entry for entry in ns.get("app")["metadata"]["managedFields"]}
    ours = [entry for name, entry in managers.items() if name.startswith("mirrorstream")]
    assert all(set(entry["fieldsV1"]) <= {"f:status"} for entry in ours), ours


def test_describe_tells_what_happened(ns: Namespace, start: Start, kubectl: Kubectl) -> None:
    """The Events of a healed and of a hopeless tag stand where people look for them."""
    ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1")), tag("v2", ns.source("app:v2")))
    ns.wait_healed("app", "v1")
    ns.wait_event("app", "ImportedFromMirror")
    ns.wait_event("app", "MirrorImportFailed")
    described = kubectl("describe", "imagestreams.image.openshift.io", "app")
    assert described.returncode == 0, described.stderr
    _, found, events = described.stdout.partition("Events:")
    assert found
    assert "ImportedFromMirror" in events
    assert "mirrorstream" in events
    assert "MirrorImportFailed" in events
    assert ns.mirror() in events, "which mirror it was"
