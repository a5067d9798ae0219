"""Which tags would survive without their sources, by the rules and by what the mirrors answer."""

from typing import Any

import pytest
from mirrorstream.diagnose.check import Fate, Skipped, checks_of, missing_of, skipped_tags
from mirrorstream.diagnose.missing import Absence
from mirrorstream.diagnose.tag_status import ControllerView
from mirrorstream.imagestream.dry_run import repository_request, served_digest
from mirrorstream.imagestream.failures import Bypass, Failure, FailureClass
from mirrorstream.imagestream.model import ImageStream
from mirrorstream.rules.candidates import Candidate
from mirrorstream.rules.policy import MirrorPolicy

from tests.diagnose.builders import (
    ABSENT,
    DIGEST,
    DOWN,
    FIRST,
    IDMS,
    NOT_FOUND,
    OTHER,
    POLICY,
    SECOND,
    SOURCE,
    Object,
    asked,
    failure,
    item,
    stream,
)


@pytest.mark.parametrize(
    ("answers", "fate", "reason", "through"),
    [
        pytest.param((DIGEST,), Fate.SURVIVES, "", FIRST, id="the-first-serves-it"),
        pytest.param((ABSENT, DIGEST), Fate.SURVIVES, "", SECOND, id="the-second-serves-it"),
        pytest.param((ABSENT, ABSENT), Fate.LOST, "no mirror has it", "", id="nobody-has-it"),
        pytest.param((ABSENT, DOWN), Fate.LOST, f"{SECOND} does not serve it: timeout: i/o timeout", "", id="one-is-down"),
        pytest.param((None, ABSENT), Fate.UNKNOWN, "you may not", "", id="one-is-not-asked"),
        pytest.param((None, DIGEST), Fate.SURVIVES, "", SECOND, id="the-other-serves-it"),
        pytest.param((None, None), Fate.UNKNOWN, "you may not", "", id="none-is-asked"),
    ],
)
def test_the_fate_is_what_the_mirrors_answer(
    answers: tuple[str | Failure | None, ...], fate: Fate, reason: str, through: str
) -> None:
    """In the order of the rules, until one serves the image."""
    check = asked(*answers)
    assert (check.fate, check.reason, check.through) == (fate, reason, through)


BLOCKED = {"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"registrySources": {"blockedRegistries": ["src.io"]}}}
NOT_ALLOWED: Object = {
    "kind": "Image",
    "metadata": {"name": "cluster"},
    "spec": {"allowedRegistriesForImport": [{"domainName": "x.io"}]},
}
ITMS = {
    "kind": "ImageTagMirrorSet",
    "metadata": {"name": "t"},
    "spec": {"imageTagMirrors": [{"source": "src.io", "mirrors": ["t.io"]}]},
}
OPTED_OUT = stream(annotations={"mirrorstream.github.io/import": "disabled"})


@pytest.mark.parametrize(
    ("objects", "of", "view", "reason"),
    [
        pytest.param([], stream(), {}, "no rule covers it", id="no-rule"),
        pytest.param([IDMS, BLOCKED], stream(), {}, "blockedRegistries of the Image config", id="blocked"),
        pytest.param([IDMS, NOT_ALLOWED], stream(), {}, "allowedRegistriesForImport", id="not-allowed"),
        pytest.param([IDMS], stream(), {"tags_through_digest_mirrors": False}, "every mirror is skipped", id="digest-mirrors-only"),
        pytest.param([IDMS], OPTED_OUT, {}, "the stream's annotation", id="opted-out"),
        pytest.param([IDMS], stream(), {"covers": lambda namespace: False}, "controller.namespaces", id="namespace-left-out"),
    ],
)
def test_without_a_mirror_that_may_be_used_it_is_lost(
    objects: list[Object], of: ImageStream, view: dict[str, Any], reason: str
) -> None:
    """Nobody is asked, and the reason is told; what no rule covers is missing, what is refused is not."""
    through = view.get("tags_through_digest_mirrors", True)
    check = asked(of=of, policy=MirrorPolicy.from_objects(objects, tags_through_digest_mirrors=through), **view)
    assert check.fate is Fate.LOST
    assert reason in check.reason
    listed = [(image.image, image.absence) for image in missing_of([check])]
    expected = {"no rule covers it": [(SOURCE, Absence.MISSING)], "every mirror is skipped": [(SOURCE, Absence.UNKNOWN)]}
    assert listed == expected.get(reason, [])


def test_the_platform_imports_what_is_opted_out_through_tag_mirrors() -> None:
    """So these are asked, and the digest mirrors of the same source are not."""
    check = asked(DIGEST, of=OPTED_OUT, policy=MirrorPolicy.from_objects([IDMS, ITMS]))
    assert (check.fate, check.through) == (Fate.SURVIVES, "t.io/team/app:v1")


@pytest.mark.parametrize(
    "entry", [{"source": "*.io"}, {"source": "src.io", "mirrors": ["t.io:5000"]}], ids=["wildcard", "insecure"]
)
def test_what_the_platform_cannot_use_does_not_save_what_is_opted_out(entry: Object) -> None:
    """A tag mirror for a wildcard, or one that is insecure where the source is not."""
    spec = {"imageTagMirrors": [{"mirrors": ["t.io"], **entry}]}
    policy = MirrorPolicy.from_objects([{**ITMS, "spec": spec}], insecure_registries=["t.io:5000"])
    assert asked(of=OPTED_OUT, policy=policy).fate is Fate.LOST
    assert asked(DIGEST, policy=policy).fate is Fate.SURVIVES


def test_of_an_opted_out_stream_an_image_by_digest_survives_and_a_whole_repository_does_not() -> None:
    """The platform imports a digest through digest mirrors itself, and lists a repository's tags at the source only."""
    tag = {"name": "fixed", "from": {"kind": "DockerImage", "name": f"src.io/team/app@{DIGEST}"}}
    of = stream(None, tag, annotations=OPTED_OUT.metadata.annotations, dockerImageRepository="src.io/team/whole")
    checks = {check.tag: check for check in checks_of(of, MirrorPolicy.from_objects([IDMS, ITMS]), ControllerView())}
    assert [c.reference for c in checks["fixed"].candidates] == [f"m.io/x/team/app@{DIGEST}", f"n.io/y/team/app@{DIGEST}"]
    assert (checks[""].fate, checks[""].candidates) == (Fate.LOST, ())


@pytest.mark.parametrize(("rules", "fate"), [([IDMS], Fate.LOST), ([ITMS], Fate.SURVIVES)], ids=["digest-mirrors", "tag-mirrors"])
def test_while_mirrorstream_observes_only_the_platform_imports(rules: list[Object], fate: Fate) -> None:
    """The mirrors are asked all the same, and what they have is not missing."""
    check = asked(DIGEST, policy=MirrorPolicy.from_objects(rules), observing=True)
    assert check.fate is fate
    assert missing_of([check]) == []


def test_the_failure_of_now_is_told_where_it_would_not_be_bypassed() -> None:
    """The source answers that there is no such image: no mirror stands in."""
    check = asked(DIGEST, of=stream(failure(NOT_FOUND, "NotFound")))
    assert check.remark == "not while its import fails as it does now (not-found), which mirrorstream does not bypass"
    assert asked(DIGEST, of=stream(failure())).remark == ""
    assert asked(DIGEST, of=stream(failure(NOT_FOUND, "NotFound")), bypass=Bypass(not_found=True)).remark == ""


def test_another_image_than_the_present_one_is_told() -> None:
    """The mirror is older, or newer, than what the tag has."""
    assert asked(DIGEST, of=stream(item())).remark == ""
    assert asked(OTHER, of=stream(item())).remark == f"with another image: it has {DIGEST}, {FIRST} has {OTHER}"


def test_a_request_is_the_controllers() -> None:
    """A dry run, named after the stream, for the tag, with the mirror's TLS setting and the tag's import mode."""
    policy = MirrorPolicy.from_objects([IDMS], insecure_registries=["m.io"])
    tag = {
        "name": "multi",
        "from": {"kind": "DockerImage", "name": f"src.io/team/app@{DIGEST}"},
        "importPolicy": {"importMode": "PreserveOriginal", "scheduled": True},
    }
    checks = {check.tag: check for check in checks_of(stream(None, tag), policy, ControllerView())}
    candidate = checks["multi"].candidates[0]
    assert checks["multi"].request(candidate) == {
        "apiVersion": "image.openshift.io/v1",
        "kind": "ImageStreamImport",
        "metadata": {"name": "app", "namespace": "ns"},
        "spec": {
            "import": False,
            "images": [
                {
                    "from": {"kind": "DockerImage", "name": f"m.io/x/team/app@{DIGEST}"},
                    "to": {"name": "multi"},
                    "importPolicy": {"insecure": True, "importMode": "PreserveOriginal"},
                    "includeManifest": False,
                }
            ],
        },
    }


def test_a_whole_repository_is_asked_for_by_its_name() -> None:
    """As the controller does, which lists its tags; with tags it has nothing to ask."""
    whole = stream(dockerImageRepository="src.io/team/whole")
    (check,) = (check for check in checks_of(whole, POLICY, ControllerView()) if not check.tag)
    request = check.request(check.candidates[0])
    assert request["spec"]["repository"]["from"]["name"] == "m.io/x/team/whole"
    assert "images" not in request["spec"]
    (image,) = missing_of([check.answered(check.candidates[0], ABSENT).answered(check.candidates[1], ABSENT)])
    assert (image.image, image.repository) == ("src.io/team/whole", True)


CANDIDATE = Candidate("m.io/x/team/app:v1", False, "ImageDigestMirrorSet/m")
SUCCESS = {"status": {"status": "Success"}, "image": {"metadata": {"name": DIGEST}}}
FAILED = {"status": {"status": "Failure", "reason": "NotFound", "message": "not found"}}


@pytest.mark.parametrize(
    ("status", "digest", "kind"),
    [
        pytest.param({"images": [SUCCESS]}, DIGEST, None, id="an-image"),
        pytest.param({"images": [FAILED]}, "", FailureClass.NOT_FOUND, id="no-image"),
        pytest.param(
            {"repository": {"images": [FAILED, SUCCESS], "status": FAILED["status"]}}, DIGEST, None, id="some-of-a-repository"
        ),
        pytest.param({"repository": {"images": [FAILED], "status": FAILED["status"]}}, "", FailureClass.NOT_FOUND, id="none-of-it"),
        pytest.param({"repository": {"status": {"status": "Success"}}}, "", FailureClass.UNKNOWN, id="an-empty-repository"),
        pytest.param({}, "", FailureClass.UNKNOWN, id="nothing"),
    ],
)
def test_an_answer_is_a_digest_or_a_failure(status: Object, digest: str, kind: FailureClass | None) -> None:
    """Whatever the API server leaves out."""
    found = served_digest({"status": status}, CANDIDATE)
    assert found == digest if kind is None else isinstance(found, Failure) and found.kind is kind


def test_what_is_not_asked_for_is_counted() -> None:
    """By the reason; tags that follow an importable tag share its fate."""
    others = stream(
        {"items": [{"image": DIGEST}]},
        {"name": "latest", "from": {"kind": "ImageStreamTag", "name": "v1"}},
        {"name": "newest", "from": {"kind": "ImageStreamTag", "name": "latest"}},
        {"name": "ref", "reference": True, "from": {"kind": "DockerImage", "name": SOURCE}},
        {"name": "isi", "from": {"kind": "ImageStreamImage", "name": f"app@{DIGEST}"}},
        {"name": "other", "from": {"kind": "ImageStreamTag", "name": "base:1", "namespace": "openshift"}},
        {"name": "lost", "from": {"kind": "ImageStreamTag", "name": "none"}},
        {"name": "mine"},
    )
    found = skipped_tags(others)
    assert found == {
        Skipped.REFERENCE: 1,
        Skipped.IMAGE: 1,
        Skipped.OTHER_STREAM: 1,
        Skipped.NOTHING: 1,
        Skipped.PUSHED: 1,
    }
    (check,) = checks_of(others, POLICY, ControllerView())
    assert check.followers == ("latest", "newest")


def test_a_tag_of_the_status_alone_was_pushed() -> None:
    """Nothing in the spec asked for it; what a whole repository brought is none."""
    pushed = stream(item())
    bare = ImageStream(pushed.metadata, type(pushed.spec)(), pushed.status)
    assert skipped_tags(bare) == {Skipped.PUSHED: 1}
    assert skipped_tags(ImageStream(pushed.metadata, type(pushed.spec)("src.io/team/app"), pushed.status))[Skipped.PUSHED] == 0


def test_a_repository_is_asked_for_without_a_tag() -> None:
    """Its candidate may have the default tag: the platform wants the repository alone."""
    assert repository_request(Candidate("m.io/x/team/whole:latest", True, "m")) == {
        "repository": {
            "from": {"kind": "DockerImage", "name": "m.io/x/team/whole"},
            "importPolicy": {"insecure": True},
            "includeManifest": False,
        }
    }
