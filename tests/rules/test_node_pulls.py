"""What a node does with mirrors and sources that the rules leave out."""

import pytest
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_reference

from tests.rules.builders import DIGEST, idms, image_config, itms

LOADS, REWRITES, WORKS = "cannot load registries.conf", "does not make a valid reference", ""


@pytest.mark.parametrize(
    ("mirror", "exact", "tag", "digest"),
    [
        ("https://m.io", False, LOADS, LOADS),
        ("http://m.io/x", True, LOADS, LOADS),
        ("", False, LOADS, LOADS),
        ("/", False, LOADS, LOADS),
        ("HTTPS://m.io", False, REWRITES, REWRITES),
        ("oci://m.io", False, REWRITES, REWRITES),
        ("m.io/Team", False, REWRITES, REWRITES),
        ("M.IO/x", False, WORKS, WORKS),
        ("M.io", True, REWRITES, REWRITES),
        ("m.io/a:tag", False, REWRITES, REWRITES),
        ("m.io/a:tag", True, REWRITES, WORKS),
        (f"m.io/a@{DIGEST}", True, REWRITES, REWRITES),
        ("m.io:x", False, REWRITES, REWRITES),
        ("m.io:5000", False, WORKS, WORKS),
        ("NO HOST", False, REWRITES, REWRITES),
        ("mirror/x", False, REWRITES, REWRITES),
        ("index.docker.io/x", False, REWRITES, REWRITES),
        ("*.m.io", False, REWRITES, REWRITES),
        ("m.io/a//b", False, REWRITES, REWRITES),
        ("localhost/x", False, WORKS, WORKS),
    ],
)
def test_what_a_mirror_costs_a_node(mirror: str, exact: bool, tag: str, digest: str) -> None:
    """As containers/image 5.30 answers, which reads registries.conf: the good mirror beside it does not help the node."""
    source = "src.io/team/app" if exact else "src.io/team"
    policy = MirrorPolicy.from_objects([make(source, mirror, "good.io/x") for make in (idms, itms)])
    for reference, expected in ((f"src.io/team/app@{DIGEST}", digest), ("src.io/team/app:v1", tag)):
        resolution = policy.resolve(parse_reference(reference))
        assert expected in resolution.pull_failure
        assert bool(expected) is bool(resolution.pull_failure)
        sources = [source.reference for source in resolution.pull_sources]
        assert [each.startswith(f"{mirror}/" if not exact else mirror) for each in sources].count(True) == (not expected)
        good = reference.replace("src.io/team/app" if exact else "src.io/team", "good.io/x")
        assert good in [candidate.reference for candidate in resolution.candidates]
        # One for another image: the file as a whole counts, a mirror of another rule does not.
        other = policy.resolve(parse_reference("other.io/app:v1"))
        assert bool(other.pull_failure) is (LOADS in (tag, digest))


@pytest.mark.parametrize(
    ("source", "fails"),
    [
        ("https://src.io", True), ("", True), ("*.src.io/x", True), ("*.src.io:5000", True), ("/", True),
        ("src.io/Team", False), ("src.io:x", False), ("NO HOST", False), ("src", False), ("*.", False),
    ],
)  # fmt: skip
def test_what_a_source_costs_a_node(source: str, fails: bool) -> None:
    """As containers/image 5.30 answers: it loads no file with such a source, or the source is of no image."""
    failures = {
        MirrorPolicy.from_objects(objects).resolve(parse_reference("src.io/team/app:v1")).pull_failure
        for objects in (
            [itms(source, "m.io")],
            [image_config(registrySources={"blockedRegistries": [source]})],
            [image_config(registrySources={"insecureRegistries": [source]})],
        )
    }
    assert [LOADS in failure for failure in failures] == [fails] * len(failures)
    only_itself = MirrorPolicy.from_objects([itms(source, source)])  # no mirror set, so that no node is given it
    assert not only_itself.resolve(parse_reference("src.io/team/app:v1")).pull_failure


def test_a_source_whose_mirrors_are_none_keeps_those_of_the_one_around_it() -> None:
    """The controller goes on with them; a node stops, and does not ask a source that must not be contacted."""
    bad = idms("src.io/team", "m.io/Team", name="bad", mirrorSourcePolicy="NeverContactSource")
    policy = MirrorPolicy.from_objects([bad, idms("src.io", "good.io", name="good")])
    resolution = policy.resolve(parse_reference(f"src.io/team/app@{DIGEST}"))
    assert [candidate.reference for candidate in resolution.candidates] == [f"good.io/team/app@{DIGEST}"]
    assert resolution.pull_failure == "m.io/Team in place of src.io/team does not make a valid reference"
    assert resolution.objects == ("ImageDigestMirrorSet/bad", "ImageDigestMirrorSet/good")
    assert policy.resolve(parse_reference("src.io/team/app:v1")).pull_sources[-1].blocked
