"""Which images no mirror has, and the file that has oc-mirror fetch them."""

import dataclasses
from typing import Any

import pytest
import yaml
from mirrorstream.diagnose.missing import Absence, MissingImage, imageset, missing_images, render_missing
from mirrorstream.diagnose.tag_status import ControllerView, tag_states
from mirrorstream.imagestream.model import imagestream_from
from mirrorstream.imagestream.outcomes import AttemptHistory, AttemptResult
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.text.terminal import layout

from e2e.testbed.support.imageset import SCHEMA, check, check_imageset
from tests.diagnose.builders import FIRST, IDMS, NOT_FOUND, POLICY, SECOND, SOURCE, attempt, failure, history, item, stream

GONE, OPEN = Absence.MISSING, Absence.UNKNOWN
EMPTY = MirrorPolicy.from_objects([])
TAGS_ONLY = MirrorPolicy.from_objects([IDMS], tags_through_digest_mirrors=False)
DIGEST = "sha256:" + "b" * 64
CHECKED = {"openshift.io/image.dockerRepositoryCheck": "2027-01-15T07:00:00Z"}


def missing(known: AttemptHistory, policy: MirrorPolicy | None = POLICY, found: Any = None) -> list[MissingImage]:
    """What is missing of one failing tag."""
    return missing_images(tag_states(found or stream(failure()), policy, known, ControllerView()))


@pytest.mark.parametrize(
    ("known", "policy", "absence", "why"),
    [
        pytest.param(AttemptHistory(), EMPTY, GONE, "no mirror rule covers it", id="no-rule"),
        pytest.param(history(attempt("failed", "not-found", "not-found")), POLICY, GONE, "every mirror", id="nobody"),
        pytest.param(history(attempt("failed", "not-found", "timeout")), POLICY, OPEN, f"{SECOND}: timeout", id="timeout"),
        pytest.param(history(attempt("failed", "unauthorized", "not-found")), POLICY, OPEN, FIRST, id="credentials"),
        pytest.param(AttemptHistory(), POLICY, OPEN, "no attempt is known", id="no-event"),
        pytest.param(history(attempt("failed", "not-found")), POLICY, OPEN, f"{SECOND}: not known", id="a-new-mirror"),
        pytest.param(history(attempt("error", message="refused by x")), POLICY, OPEN, "refused by x", id="not-let"),
        pytest.param(history(attempt(AttemptResult.IMPORTED, "")), POLICY, OPEN, f"{FIRST} served it before", id="served-before"),
        pytest.param(history(attempt("failed", "not-found")), None, GONE, "the mirror does not", id="rules-unseen"),
        pytest.param(AttemptHistory(), None, OPEN, "no attempt is known", id="rules-unseen-and-no-event"),
        pytest.param(AttemptHistory(), TAGS_ONLY, OPEN, "every mirror is skipped", id="every-mirror-is-skipped"),
        pytest.param(history(attempt("not-recorded")), POLICY, OPEN, FIRST, id="not-recorded-by-an-older-version"),
        pytest.param(history(attempt("failed")), None, OPEN, "not known", id="an-event-without-candidates"),
    ],
)
def test_what_is_missing_and_what_is_not_known(
    known: AttemptHistory, policy: MirrorPolicy | None, absence: Absence, why: str
) -> None:
    """A mirror that could not be asked may well have the image."""
    (image,) = missing(known, policy)
    assert (image.image, image.absence, image.tags) == (SOURCE, absence, ("ns/app:v1",))
    assert why in image.why
    assert image.document()["state"] == str(absence)


@pytest.mark.parametrize(
    "known",
    [
        history(attempt("held", "", message="serves another image")),
        history(attempt("not-recorded", "not-found", "", message="the API server refused to record the import: a quota")),
    ],
    ids=["held", "not-recorded"],
)
def test_an_image_that_a_mirror_served_is_not_missing(known: AttemptHistory) -> None:
    """Whatever kept it from being recorded."""
    found = stream({**item(1), "conditions": failure()["conditions"]})
    assert not missing(known, found=found)
    assert not missing(known, None, found)


@pytest.mark.parametrize(
    "found",
    [
        stream(item()),
        stream(),
        stream(failure(NOT_FOUND, "NotFound")),
        stream(failure(), annotations={"mirrorstream.github.io/import": "disabled"}),
    ],
    ids=["well", "pending", "the-source-does-not-have-it", "opted-out"],
)
def test_nothing_is_said_of_what_nobody_looks_for(found: Any) -> None:
    """No mirror was asked, or none would help."""
    assert not missing(AttemptHistory(), found=found)


def test_an_image_that_several_tags_want_is_said_once() -> None:
    """As missing, if it is for one of them."""
    more: Any = {"name": "v2", "from": {"kind": "DockerImage", "name": SOURCE}, "generation": 1}
    found = stream(failure(), more)
    both = list(tag_states(found, POLICY, history(attempt("failed", "not-found", "not-found")), ControllerView()))
    unknown = tag_states(stream(failure()), POLICY, AttemptHistory(), ControllerView())
    (image,) = missing_images([*unknown, *both])
    assert (image.absence, image.tags) == (Absence.MISSING, ("ns/app:v1", "ns/app:v1"))


def test_a_whole_repository_is_none_that_oc_mirror_can_fetch() -> None:
    """It would take it for its tag latest."""
    document = {
        "metadata": {"name": "app", "namespace": "ns", "annotations": CHECKED},
        "spec": {"dockerImageRepository": "src.io/team/app"},
    }
    found = imagestream_from(document)
    (image,) = missing(AttemptHistory(), EMPTY, found)
    assert (image.image, image.repository, image.tags) == ("src.io/team/app", True, ("ns/app",))
    made, left_out = imageset([image])
    assert made["mirror"] == {}
    assert left_out == "1 for a whole repository, whose tags are not known"


def _image(name: str, absence: Absence = Absence.MISSING) -> MissingImage:
    return MissingImage(name, absence, "why", ("ns/app:v1",), covered=True, cause="cause")


def test_the_image_set_is_one_that_oc_mirror_takes() -> None:
    """Fully written references, once each; what is not known to be missing is left out, and said."""
    images = [
        _image("docker.io/library/busybox:latest"),
        _image(f"src.io/app:v1@{DIGEST}"),
        _image(f"src.io/app@{DIGEST}"),
        _image("src.io/unknown:v1", Absence.UNKNOWN),
        _image("NOT VALID\n  - name: evil"),
    ]
    document, left_out = imageset(images)
    names = check_imageset(yaml.safe_load(yaml.safe_dump(document)))
    assert names == ["docker.io/library/busybox:latest", f"src.io/app@{DIGEST}"]
    assert left_out == "1 not known to be missing, 1 that is no valid reference"


@pytest.mark.parametrize(("policy", "covered"), [(POLICY, True), (None, False), (EMPTY, False)], ids=["rule", "unseen", "no-rule"])
def test_only_what_a_rule_covers_is_for_the_image_set(policy: MirrorPolicy | None, covered: bool) -> None:
    """An Event may say anything, so where the rules are not seen it covers nothing."""
    (image,) = missing(history(attempt("failed", "not-found", "not-found")), policy)
    assert image.absence is GONE
    for unmirrored in (False, True):
        document, left_out = imageset([image], unmirrored=unmirrored)
        assert check_imageset(document) == ([SOURCE] if covered or unmirrored else [])
        assert bool(left_out) is not (covered or unmirrored)


def test_an_empty_image_set_is_valid() -> None:
    """A script may make one at any time."""
    assert check_imageset(imageset([])[0]) == []


@pytest.mark.parametrize(
    "document",
    [{"mirror": {"additionalImages": [{"image": "x"}]}}, {"mirror": {"additionalImages": ["x"]}}, {"storageConfig": {}}],
    ids=["another-field", "no-mapping", "a-field-of-version-1"],
)
def test_the_check_would_see_a_mistake(document: Any) -> None:
    """Or it would prove nothing."""
    with pytest.raises(AssertionError):
        check(document, SCHEMA)


def test_the_text() -> None:
    """Missing first, then what is not known; a line an image below the reason."""
    images = [_image("b.io/x:1", Absence.UNKNOWN), _image("a.io/x:1"), _image("b.io/longer:1")]
    images.append(dataclasses.replace(_image("c.io/x"), tags=("ns/app", "ns/b:1", "ns/c:1"), repository=True))
    assert layout(render_missing(images, "Namespace ns")) == (
        "Namespace ns: 3 missing, 1 unknown\n\n"
        "3 missing: cause\n"
        "  a.io/x:1       for ns/app:v1\n"
        "  b.io/longer:1  for ns/app:v1\n"
        "  c.io/x         for ns/app and 2 more, the whole repository\n\n"
        "1 unknown: cause\n"
        "  b.io/x:1  for ns/app:v1\n"
    )
    assert layout(render_missing([], "Namespace ns")) == "Namespace ns: no image of a failing tag is missing from the mirrors\n"
