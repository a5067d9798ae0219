"""Tags whose import failed heal through the mirrors, and only those that may."""

import pytest

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Namespace
from e2e.testbed.streams import IMAGE_API, following, tag
from e2e.testbed.support.waiting import wait_for

RETRY = "mirrorstream.github.io/retry"


def test_a_tag_heals_through_digest_mirrors(ns: Namespace, start: Start) -> None:
    """The platform does not use digest mirrors for tags; this is why sample streams stay empty."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    item = ns.wait_healed("app", "v1", digest)
    assert item["dockerImageReference"] == f"{ns.source('app')}@{digest}", "recorded as the platform itself records it"
    assert item["generation"] == ns.spec_tag("app", "v1")["generation"], "otherwise the platform imports again and again"
    image = ns.image(digest)
    assert image["metadata"]["annotations"]["mirrorstream.github.io/imported-through"] == ns.cluster.host("good")
    assert image["dockerImageReference"] == item["dockerImageReference"]
    assert "through " in ns.wait_event("app", "ImportedFromMirror")
    ns.stays("healed", lambda: ns.healed("app", "v1", digest))


def test_a_tag_that_failed_before_the_start_heals(ns: Namespace, start: Start) -> None:
    """Streams from before the installation heal."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_failed("app", "v1")
    start()
    ns.wait_healed("app", "v1", digest)


def test_icsp_mirrors_count_as_digest_mirrors(ns: Namespace, start: Start) -> None:
    """Clusters that still have ImageContentSourcePolicies heal too."""
    digest = ns.put("good", "app:v1")
    ns.mirror_set("ImageContentSourcePolicy", f"{ns.cluster.host('dead')}/{ns.name}", ns.mirror())
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    assert ns.wait_healed("app", "v1", digest)["dockerImageReference"].startswith(ns.source("app"))


def test_a_tag_heals_through_tag_mirrors_on_a_wildcard(ns: Namespace, start: Start) -> None:
    """The platform never matches wildcards; the mirror itself is recorded, since it would not find the source there."""
    if not ns.cluster.is_ours:
        pytest.skip("the cluster's allow-list does not name the loopback address by number")
    port = ns.cluster.host("dead").partition(":")[2]
    good = ns.cluster.host("good").partition(":")[2]
    digest = ns.cluster.put("good", f"{port}/{ns.name}/app", "v1")
    # A wildcard replaces host and port; what follows the domain, the port included, is appended to the mirror.
    ns.mirror_set("ImageTagMirrorSet", "*.0.0.1", f"127.0.0.1:{good}/wild")
    ns.cluster.registries.stores["good"].put(f"wild/{ns.name}/app", "v1", "docker", "wild")
    start()
    ns.create("app", tag("v1", f"127.0.0.1/{ns.name}/app:v1"))
    item = ns.wait_healed("app", "v1")
    assert item["dockerImageReference"].startswith(f"127.0.0.1:{good}/wild/{ns.name}/app@")
    assert item["image"] != digest


def test_the_second_mirror_serves_when_the_first_is_dead(ns: Namespace, start: Start) -> None:
    """Mirrors are tried in their order."""
    digest = ns.put("other", "app:v1")
    ns.digest_mirrors(f"{ns.cluster.host('dead')}/nothing-{ns.name}", ns.mirror("good"), ns.mirror("other"))
    ns.put("good", "elsewhere:v1")
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_healed("app", "v1", digest)
    assert ns.image(digest)["metadata"]["annotations"]["mirrorstream.github.io/imported-through"] == ns.cluster.host("other")


def test_the_most_specific_source_decides(ns: Namespace, start: Start) -> None:
    """Nested scopes: the longest prefix wins alone, as on the node."""
    wide, narrow = ns.put("good", "sub/app:v1", seed="wide"), ns.put("other", "app:v1", seed="narrow")
    assert wide != narrow
    ns.digest_mirrors(ns.mirror("good"))
    ns.digest_mirrors(ns.mirror("other"), source=f"{ns.cluster.host('dead')}/{ns.name}/sub")
    start()
    ns.create("app", tag("v1", ns.source("sub/app:v1")))
    ns.wait_healed("app", "v1", narrow)


def test_a_source_that_must_never_be_contacted_heals(ns: Namespace, start: Start) -> None:
    """NeverContactSource is the normal disconnected cluster, no refusal."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors(never=True)
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_healed("app", "v1", digest)


def test_a_blocked_source_is_refused_and_says_so(ns: Namespace, start: Start) -> None:
    """Who blocks a registry does not want its images through a mirror either."""
    ns.put("good", "app:v1")
    ns.digest_mirrors(source=f"{ns.cluster.host('blocked')}/{ns.name}")
    start()
    ns.create("app", tag("v1", ns.source("app:v1", "blocked")))
    ns.wait_failed("app", "v1")
    assert "blocked" in ns.wait_event("app", "MirrorImportRefused")
    ns.stays("failed", lambda: ns.failure("app", "v1"))
    assert len(ns.events("app", "MirrorImportRefused")) == 1, "said once"


def test_a_mirror_outside_the_allow_list_is_not_recorded(ns: Namespace, start: Start) -> None:
    """The status write would be refused; the Event names the host that needs an entry."""
    ns.put("disallowed", "app:v1")
    ns.digest_mirrors(ns.mirror("disallowed"))
    start(controller={"recordedReference": "mirror"})
    ns.create("app", tag("v1", ns.source("app:v1")))
    text = ns.wait_event("app", "MirrorImportRefused")
    assert ns.cluster.host("disallowed") in text
    assert "allowedRegistriesForImport" in text


def test_a_mirror_outside_the_allow_list_serves_when_the_source_is_recorded(ns: Namespace, start: Start) -> None:
    """The allow-list is about references in streams, and the recorded one is the source's."""
    digest = ns.put("disallowed", "app:v1")
    ns.digest_mirrors(ns.mirror("disallowed"))
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    assert ns.wait_healed("app", "v1", digest)["dockerImageReference"] == f"{ns.source('app')}@{digest}"


@pytest.mark.parametrize(("bypass", "heals"), [(False, False), (True, True)], ids=["by-default", "with-bypassNotFound"])
def test_what_the_source_says_it_does_not_have(ns: Namespace, start: Start, bypass: bool, heals: bool) -> None:
    """A stale mirror must not bring a deleted tag back, unless the administrator says so."""
    digest = ns.put("good", "app:v1")
    ns.cluster.put("other", f"{ns.name}/app", "another")
    ns.digest_mirrors(source=f"{ns.cluster.host('other')}/{ns.name}")
    start(mirrors={"bypassNotFound": bypass})
    ns.create("app", tag("v1", ns.source("app:v1", "other")))
    if heals:
        ns.wait_healed("app", "v1", digest)
    else:
        assert "not-found" in ns.wait_event("app", "MirrorImportRefused")
        assert ns.failure("app", "v1")


@pytest.mark.parametrize("registry", ["unauthorized", "forbidden", "broken", "throttled", "garbage", "tls"])
def test_every_way_of_not_answering_is_bypassed(ns: Namespace, start: Start, registry: str) -> None:
    """401, 403, 500, 429, a proxy's page, an untrusted certificate: the mirror's answer counts."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors(source=f"{ns.cluster.host(registry)}/{ns.name}")
    start()
    ns.create("app", tag("v1", ns.source("app:v1", registry)))
    ns.wait_healed("app", "v1", digest)


def test_content_that_is_not_its_digest_is_never_bypassed(ns: Namespace, start: Start) -> None:
    """A source that serves something else is an alarm, not an outage."""
    digest = ns.cluster.put("wrongdigest", f"{ns.name}/app", "v1", seed="x")
    ns.cluster.put("good", f"mirror-{ns.name}/app", "v1", seed="x")
    ns.tag_mirrors(ns.mirror(), source=f"{ns.cluster.host('wrongdigest')}/{ns.name}")
    start()
    ns.create("app", tag("v1", f"{ns.source('app', 'wrongdigest')}@{digest}"))
    assert "integrity" in ns.wait_event("app", "MirrorImportRefused")


def test_an_aggregate_is_decided_by_the_source(ns: Namespace, start: Start) -> None:
    """The platform tried a tag mirror that lacks the image, and the source is dead: another mirror may serve."""
    digest = ns.put("good", "app:v1")
    ns.tag_mirrors(ns.mirror("other", "empty"))
    ns.digest_mirrors()
    ns.cluster.put("other", f"empty-{ns.name}/app", "v2")
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_healed("app", "v1", digest)


def test_a_tag_by_digest_heals(ns: Namespace, start: Start) -> None:
    """Content-addressed: the tag mirrors are as good as the digest mirrors, though the platform tries only the latter."""
    digest = ns.put("good", "app:v1")
    ns.tag_mirrors()
    start()
    ns.create("app", tag("v1", f"{ns.source('app')}@{digest}"))
    item = ns.wait_healed("app", "v1", digest)
    assert item["dockerImageReference"] == f"{ns.mirror()}/app@{digest}", "no digest mirror covers the source"


@pytest.mark.parametrize("kind", ["list", "index"])
def test_a_preserved_list_brings_every_sub_manifest(ns: Namespace, start: Start, kind: str) -> None:
    """Without the Images of its parts the internal registry could not serve a manifest list."""
    digest = ns.put("good", "app:v1", kind)
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1"), importPolicy={"importMode": "PreserveOriginal"}))
    ns.wait_healed("app", "v1", digest)
    parts = [part["digest"] for part in ns.image(digest)["dockerImageManifests"]]
    assert len(parts) == 2
    for part in parts:
        assert ns.image(part)["dockerImageReference"] == f"{ns.source('app')}@{part}"


def test_a_legacy_list_prefers_the_annotated_architecture(ns: Namespace, start: Start) -> None:
    """The dry run is named after stream and tag, so that the tag's prefer-arch annotation applies."""
    ns.put("good", "app:v1", "list")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1"), annotations={"importer.image.openshift.io/prefer-arch": "arm64"}))
    item = ns.wait_healed("app", "v1")
    assert ns.image(item["image"])["dockerImageMetadata"]["Architecture"] == "arm64"


def test_a_mirrors_own_tls_setting_counts(ns: Namespace, start: Start) -> None:
    """The tag's `insecure` is about its source; a mirror with a certificate that nobody trusts stays untrusted."""
    ns.put("tls", "app:v1")
    ns.digest_mirrors(ns.mirror("tls"))
    start()
    ns.create("app", tag("v1", ns.source("app:v1"), importPolicy={"insecure": True}))
    assert "tls" in ns.wait_event("app", "MirrorImportFailed")
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors(ns.mirror("good"))
    ns.wait_healed("app", "v1", digest)


def test_tags_that_follow_a_healed_tag_follow_it(ns: Namespace, start: Start) -> None:
    """A status write does not move tracking tags on the platform, so they are moved in the same write; chains too."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1")), following("latest", "v1"), following("best", "app:latest"))
    for name in ("v1", "latest", "best"):
        assert ns.wait_healed("app", name, digest)["dockerImageReference"] == f"{ns.source('app')}@{digest}"


def test_tags_of_other_streams_and_references_are_never_touched(ns: Namespace, start: Start) -> None:
    """ImageStreamTag of another stream, `reference: true` and pushed tags are not ours."""
    ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    ns.create("base", tag("v1", ns.source("base:v1")))
    other = {"name": "v1", "from": {"kind": "ImageStreamTag", "name": "base:v1"}, "referencePolicy": {"type": "Local"}}
    ns.create("app", other, tag("only", ns.source("app:v1"), reference=True))
    ns.wait_event("base", "MirrorImportFailed")
    assert not ns.tag_status("app", "v1")
    assert ns.tag_status("app", "only")["items"][0]["image"] == ""


def test_jenkins_heals_with_all_its_tags(ns: Namespace, start: Start) -> None:
    """The shipped stream: one imported tag, one scheduled, two that follow."""
    image = "ocp-tools-4/jenkins-rhel8:v4.13.0-1686682222"
    digest = ns.put("good", image)
    ns.digest_mirrors()
    start()
    ns.create(
        "jenkins",
        tag("2", ns.source(image)),
        following("latest", "2"),
        following("ocp-upgrade-redeploy", "2"),
        tag("scheduled-upgrade-redeploy", ns.source(image), importPolicy={"scheduled": True}),
    )
    for name in ("2", "latest", "ocp-upgrade-redeploy", "scheduled-upgrade-redeploy"):
        ns.wait_healed("jenkins", name, digest)


def test_a_whole_repository_is_listed_through_the_mirrors(ns: Namespace, start: Start) -> None:
    """The platform leaves neither tag nor condition, and never tries again."""
    digests = {name: ns.put("good", f"app:{name}") for name in ("latest", "v1", "v2")}
    ns.digest_mirrors()
    start()
    stream = ns.create("app", dockerImageRepository=ns.source("app"))
    for name, digest in digests.items():
        ns.wait_healed("app", name, digest)
    generation = stream["metadata"]["generation"]
    assert {t["items"][0]["generation"] for t in ns.get("app")["status"]["tags"]} == {generation}
    assert not ns.get("app")["spec"].get("tags"), "in the status only"


def test_the_platform_takes_the_tags_of_a_repository_in_its_own_order(ns: Namespace) -> None:
    """By which those are chosen that an import of a whole repository brings, also through a mirror: the newest versions first."""
    order = ["latest", "2.10", "v2.9-rc1", "1.0", "v1.0", "v2.1.0", "2.1.0-rc.1", "01.2", "9", "a"]
    for name in order:
        ns.put("good", f"app:{name}")
    repository = {"from": {"kind": "DockerImage", "name": f"{ns.mirror()}/app"}}
    body = {"metadata": {"name": "none"}, "spec": {"import": False, "repository": repository}}
    path = f"{IMAGE_API}/namespaces/{ns.name}/imagestreamimports"
    answer = ns.client.request("POST", path, body=body, timeout=60)
    assert [image["tag"] for image in answer["status"]["repository"]["images"]] == order


def test_a_whole_repository_that_the_platform_imports_is_left_alone(ns: Namespace, start: Start) -> None:
    """Though a mirror covers it, and every tag of the status is in the spec, too."""
    for name in ("v1", "v2"):
        ns.put("good", f"app:{name}", prefix="upstream")
        ns.put("good", f"app:{name}")
    ns.digest_mirrors(source=ns.mirror(prefix="upstream"))
    running = start()
    ns.create("app", dockerImageRepository=f"{ns.mirror(prefix='upstream')}/app")
    wait_for("the platform imports it", lambda: len(ns.get("app")["status"].get("tags") or []) == 2)
    ns.stays("imported once", lambda: not running.lines("importing through mirrors"))
    assert running.metric("mirrorstream_failing_tags", state="failing") == 0
    ns.delete("app")  # its spec is not what we wrote: the platform adds the tags


def test_opting_out_by_annotation(ns: Namespace, start: Start) -> None:
    """`mirrorstream.github.io/import: disabled` leaves a stream to the platform; taking it away brings it back."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    running = start()
    ns.create("app", tag("v1", ns.source("app:v1")), annotations={"mirrorstream.github.io/import": "disabled"})
    ns.create("other", tag("v1", ns.source("app:v1")))
    ns.wait_healed("other", "v1", digest)
    assert ns.failure("app", "v1")
    wait_for("it is counted as such", lambda: running.metric("mirrorstream_failing_tags", state="opted-out") == 1)
    ns.annotate("app", "mirrorstream.github.io/import", "enabled")
    ns.wait_healed("app", "v1", digest)
    wait_for("nothing fails", lambda: running.metric("mirrorstream_failing_tags", state="opted-out") == 0)
    wait_for("nothing fails", lambda: running.metric("mirrorstream_failing_tags", state="failing") == 0)


@pytest.mark.parametrize("exclude", [True, False], ids=["excluded", "not-included"])
def test_only_the_configured_namespaces_are_looked_after(ns: Namespace, start: Start, exclude: bool) -> None:
    """namespaces.include and .exclude are globs; exclusion wins."""
    ns.put("good", "app:v1")
    ns.digest_mirrors()
    running = start(namespaces={"include": [f"{ns.name}*"], "exclude": [ns.name]} if exclude else {"include": ["other-*"]})
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_failed("app", "v1")
    ns.stays("failed", lambda: ns.failure("app", "v1"))
    assert not running.lines("importing through mirrors")
    assert running.metric("mirrorstream_failing_tags", state="opted-out") >= 1


def test_a_mirror_is_recorded_when_the_configuration_says_so(ns: Namespace, start: Start) -> None:
    """For internal registries that do not pull through mirrors."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    start(controller={"recordedReference": "mirror"})
    ns.create("app", tag("v1", ns.source("app:v1")))
    assert ns.wait_healed("app", "v1", digest)["dockerImageReference"] == f"{ns.mirror()}/app@{digest}"


def test_tags_do_not_go_through_digest_mirrors_when_that_is_off(ns: Namespace, start: Start) -> None:
    """With tagsThroughDigestMirrors off, only tag mirrors serve tags."""
    ns.put("good", "app:v1")
    digest = ns.put("other", "app:v1", seed="tag mirror")
    ns.digest_mirrors()
    running = start(mirrors={"tagsThroughDigestMirrors": False})
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_failed("app", "v1")
    ns.stays("failed", lambda: ns.failure("app", "v1"))
    assert not running.lines("importing through mirrors")
    ns.tag_mirrors(ns.mirror("other"))
    ns.wait_healed("app", "v1", digest)


def test_three_hundred_tags_in_one_stream(ns: Namespace, start: Start) -> None:
    """All heal, in a few status writes, also where the platform needs minutes to fail, or never gets to say so."""
    names = [f"v{number}" for number in range(300)]
    digest = ns.put("good", "app:v0")
    for name in names:
        ns.cluster.registries.stores["good"].tags[f"mirror-{ns.name}/app"][name] = digest
    ns.digest_mirrors()
    running = start(controller={"apiRequestsPerSecond": 1000, "stuckAfterSeconds": 40})
    ns.create("app", *(tag(name, ns.source(f"app:{name}")) for name in names))

    def all_healed() -> bool:
        tags = ns.get("app")["status"].get("tags") or []
        return len(tags) == 300 and all(t.get("items") for t in tags)

    wait_for("all heal", all_healed)
    assert all(t["items"][0]["image"] == digest and not t.get("conditions") for t in ns.get("app")["status"]["tags"])
    assert running.metric("mirrorstream_status_writes_total", outcome="written") <= 20


def test_observing_writes_nothing(ns: Namespace, start: Start) -> None:
    """mode: observe decides, logs and counts."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    running = start(mode="observe")
    ns.create("app", tag("v1", ns.source("app:v1")))
    wait_for("it says what it would do", lambda: running.lines("would record"))
    assert running.lines("would record")[0]["reference"] == f"{ns.source('app')}@{digest}"
    assert running.metric("mirrorstream_imports_total", result="observed") == 1
    assert running.metric("mirrorstream_observe_mode") == 1
    wait_for("it is counted as such", lambda: running.metric("mirrorstream_failing_tags", state="observed") == 1)
    assert ns.failure("app", "v1")
    assert not ns.events("app")
    running.configure({"controller": {"namespaces": {"include": [ns.name]}}, "mode": "active"})
    ns.wait_healed("app", "v1", digest)


def test_import_image_before_a_heal_changes_nothing(ns: Namespace, start: Start) -> None:
    """The same failure again writes nothing; when the mirror gets the image, the tag heals by itself."""
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_event("app", "MirrorImportFailed")
    ns.import_image("app", "v1", ns.source("app:v1"))
    digest = ns.put("good", "app:v1")
    ns.wait_healed("app", "v1", digest)
