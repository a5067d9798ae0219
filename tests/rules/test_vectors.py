"""The node's own answers: every pull source of every recorded configuration, in its order."""

import json
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_reference

VECTORS = Path(__file__).parents[1] / "data" / "mirror-vectors.jsonl"
ROWS = [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["id"]))
def test_pull_sources_are_the_nodes(row: dict[str, Any]) -> None:
    """What a node would try is what we say it would try."""
    policy = MirrorPolicy.from_objects(
        row["objects"], insecure_registries=row["insecureRegistries"], blocked_registries=row["blockedRegistries"]
    )
    for case in row["cases"]:
        found = [
            {"reference": source.reference, "insecure": source.insecure, "blocked": source.blocked}
            for source in policy.pull_sources(case["reference"])
        ]
        assert found == case["pullSources"], case["reference"]


@pytest.mark.parametrize("row", ROWS[:50], ids=lambda row: str(row["id"]))
def test_the_order_of_objects_does_not_matter(row: dict[str, Any]) -> None:
    """Rules do not depend on the order in which a cluster lists its objects."""
    one, other = (MirrorPolicy.from_objects(objects) for objects in (row["objects"], row["objects"][::-1]))
    assert one == other
    for case in row["cases"]:
        assert one.import_candidates(case["reference"]) == other.import_candidates(case["reference"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["id"]))
def test_no_pull_of_the_vectors_fails(row: dict[str, Any]) -> None:
    """Where a node has pull sources, mirrors that make no valid reference are at most those for the other kind of reference."""
    policy = MirrorPolicy.from_objects(
        row["objects"], insecure_registries=row["insecureRegistries"], blocked_registries=row["blockedRegistries"]
    )
    for case in row["cases"]:
        assert policy.resolve(parse_reference(case["reference"])).pull_failure == "", case["reference"]
