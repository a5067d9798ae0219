"""Whether mirrors may stand in for a source whose registry the platform takes for blocked."""

from typing import Any

import pytest
from mirrorstream.imagestream.eligibility import Eligibility, evaluate
from mirrorstream.imagestream.failures import Failure, FailureClass
from mirrorstream.rules.policy import MirrorPolicy

BLOCKED = Failure(FailureClass.FORBIDDEN, "forbidden: registry src.io blocked")


def policy(source_policy: str, *, nested: bool = False, **image: Any) -> MirrorPolicy:
    """A digest mirror for a whole host, perhaps one for a part of it, and an Image config."""
    entries = [{"source": "src.io", "mirrors": ["m.io/x"], "mirrorSourcePolicy": source_policy}]
    entries += [{"source": "src.io/team", "mirrors": ["m.io/team"]}] if nested else []
    mirror_set = {"kind": "ImageDigestMirrorSet", "metadata": {"name": "m"}, "spec": {"imageDigestMirrors": entries}}
    config = {"kind": "Image", "apiVersion": "config.openshift.io/v1", "metadata": {"name": "cluster"}, "spec": image}
    return MirrorPolicy.from_objects([mirror_set, config])


NEVER = "NeverContactSource"
LISTED = {"registrySources": {"blockedRegistries": ["src.io"]}}
ELSEWHERE = {"allowedRegistriesForImport": [{"domainName": "other.io"}]}


@pytest.mark.parametrize(
    ("rules", "failure", "expected"),
    [
        pytest.param(policy(NEVER), BLOCKED, Eligibility.IMPORT, id="by-the-mirror-set"),
        pytest.param(policy(NEVER, nested=True), BLOCKED, Eligibility.IMPORT, id="also-below-another-rule"),
        pytest.param(policy("AllowContactingSource"), BLOCKED, Eligibility.REFUSE, id="by-nothing-that-is-known"),
        pytest.param(policy(NEVER, **LISTED), BLOCKED, Eligibility.REFUSE, id="by-registry-sources"),
        pytest.param(policy(NEVER, **ELSEWHERE), BLOCKED, Eligibility.REFUSE, id="not-in-the-allow-list"),
        pytest.param(policy(NEVER), Failure(FailureClass.INTEGRITY, "x"), Eligibility.REFUSE, id="content"),
    ],
)
def test_a_source_that_a_mirror_set_says_is_never_contacted_heals(
    rules: MirrorPolicy, failure: Failure, expected: Eligibility
) -> None:
    """Older importers refuse it as blocked."""
    assert evaluate(rules, "src.io/team/app:v1", failure).eligibility is expected
