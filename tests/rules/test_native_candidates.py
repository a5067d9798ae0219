"""Which mirrors the platform's importer goes through itself."""

import pytest
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_reference

from tests.rules.builders import BOTH, DIGEST, Object, image_config, itms


@pytest.mark.parametrize(
    ("objects", "reference", "expected"),
    [
        pytest.param(BOTH, "src.io/ns/app:v1", ["t.io/m/app:v1"], id="a-tag"),
        pytest.param(BOTH, f"src.io/ns/app@{DIGEST}", [f"d.io/m/app@{DIGEST}"], id="a-digest"),
        pytest.param([itms("*.src.io", "m.io")], "a.src.io/app:v1", [], id="wildcard"),
        pytest.param([itms("src.io", "i.io", "m.io")], "src.io/app:v1", ["m.io/app:v1"], id="insecure"),
        pytest.param([itms("s.i.io", "i.io")], "s.i.io/app:v1", ["i.io/app:v1"], id="insecure-as-the-source"),
        pytest.param([itms("src.io/ns/app", "m.io", "n.io/app")], "src.io/ns/app:v1", [], id="one-is-not-valid"),
    ],
)
def test_the_platforms_own_candidates(objects: list[Object], reference: str, expected: list[str]) -> None:
    """What its importer can use: less than a node, or the controller."""
    policy = MirrorPolicy.from_objects([*objects, image_config(registrySources={"insecureRegistries": ["i.io", "s.i.io"]})])
    resolution = policy.resolve(parse_reference(reference))
    assert [found.reference for found in resolution.native_candidates(insecure=False)] == expected


def test_an_insecure_tag_is_imported_natively_through_an_insecure_mirror() -> None:
    """The platform uses the source's TLS setting for its mirrors."""
    policy = MirrorPolicy.from_objects([itms("src.io", "i.io"), image_config(registrySources={"insecureRegistries": ["i.io"]})])
    resolution = policy.resolve(parse_reference("src.io/app:v1"))
    assert [found.reference for found in resolution.native_candidates(insecure=True)] == ["i.io/app:v1"]
