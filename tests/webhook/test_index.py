"""What streams claim, and who wins."""

import itertools
import random

import pytest
from mirrorstream.rules.references import parse_or_none
from mirrorstream_webhook.claims import ClaimKey, StreamClaims, claim_key
from mirrorstream_webhook.index import Index

from tests.webhook.builders import REGISTRY, SOURCE, digest, imported, item, stream, tag

APP = f"{REGISTRY}/openshift/app"
REFUSED = f"Internal error occurred: {SOURCE}:v1: dial tcp 10.0.0.1:443: connect: connection refused"


def found(entry: StreamClaims, reference: str) -> str:
    """What a reference becomes by the claims of one stream; empty if nothing."""
    index = Index()
    index.apply(None, entry)
    parsed = parse_or_none(reference)
    assert parsed
    claims = index.find(entry.stream.namespace, claim_key(parsed))
    return f"{APP}@{claims[0].digest}" if claims and claims[0].digest and not claims[0].standing else ""


HISTORY = stream("app", tag("v1", f"{SOURCE}:v1", imported(2), imported(1), item("other.example.com/old:v0", 9)))
FAILED = stream("app", tag("v1", f"{SOURCE}:v1", imported(2), failure=REFUSED, generation=2))
MIRRORED = stream("app", tag("v1", f"{SOURCE}:v1", item(f"mirror.corp:5000/up/team/app@{digest(4)}", 4)))


@pytest.mark.parametrize(
    ("entry", "reference", "target"),
    [
        pytest.param(HISTORY, f"{SOURCE}:v1", f"{APP}@{digest(2)}", id="from-is-the-newest"),
        pytest.param(HISTORY, f"{SOURCE}@{digest(1)}", f"{APP}@{digest(1)}", id="history-is-its-own-digest"),
        pytest.param(HISTORY, f"{SOURCE}:v7@{digest(1)}", f"{APP}@{digest(1)}", id="a-tag-before-the-digest-does-not-count"),
        pytest.param(HISTORY, "other.example.com/old:v0", f"{APP}@{digest(9)}", id="history-by-tag"),
        pytest.param(HISTORY, f"{SOURCE}@{digest(9)}", f"{APP}@{digest(9)}", id="source-repository-with-a-historic-digest"),
        pytest.param(HISTORY, f"{SOURCE}@{digest(3)}", "", id="digest-that-it-never-had"),
        pytest.param(HISTORY, f"{SOURCE}:v2", "", id="another-tag"),
        pytest.param(HISTORY, "registry.example.com/team/application:v1", "", id="a-longer-name"),
        pytest.param(FAILED, f"{SOURCE}:v1", f"{APP}@{digest(2)}", id="newest-import-failed"),
        pytest.param(MIRRORED, f"{SOURCE}:v1", f"{APP}@{digest(4)}", id="through-a-mirror"),
        pytest.param(MIRRORED, f"mirror.corp:5000/up/team/app@{digest(4)}", f"{APP}@{digest(4)}", id="the-mirrors-own-reference"),
        pytest.param(MIRRORED, f"{SOURCE}@{digest(4)}", f"{APP}@{digest(4)}", id="source-with-the-mirrors-digest"),
        pytest.param(
            stream("app", tag("v1", "busybox", imported(1, "docker.io/library/busybox"))),
            "docker.io/library/busybox:latest",
            f"{APP}@{digest(1)}",
            id="from-is-normalised",
        ),
        pytest.param(
            stream("app", tag("v1", f"{SOURCE}:v1", imported(1), referencePolicy={"type": "Source"})),
            f"{SOURCE}:v1",
            "",
            id="source",
        ),
        pytest.param(
            stream("app", tag("v1", f"{SOURCE}:v1", imported(1), reference=True)), f"{SOURCE}:v1", "", id="reference-only"
        ),
        pytest.param(
            stream("app", tag("v1", f"{SOURCE}:v2", imported(1), generation=2)), f"{SOURCE}:v2", "", id="a-from-just-changed"
        ),
        pytest.param(
            stream("app", tag("v1", f"{SOURCE}:v2", imported(1), generation=2)),
            f"{SOURCE}@{digest(1)}",
            f"{APP}@{digest(1)}",
            id="a-digest-stays-itself-whatever-from-says",
        ),
        pytest.param(stream("app", tag("v1", f"{SOURCE}:v1", failure=REFUSED)), f"{SOURCE}:v1", "", id="never-imported"),
        pytest.param(
            stream("app", tag("latest", None, imported(1), **{"from": {"kind": "ImageStreamTag", "name": "v1"}})),
            f"{SOURCE}@{digest(1)}",
            f"{APP}@{digest(1)}",
            id="a-tag-that-follows-another",
        ),
    ],
)
def test_what_a_reference_becomes(entry: StreamClaims, reference: str, target: str) -> None:
    """`from` is the newest item, a historic reference is itself, and only a Local tag with an image counts."""
    assert found(entry, reference) == target


def test_among_tags_the_name_decides() -> None:
    """Two streams and two tags claim one reference: the least stream, then the least tag; one with an image comes first."""
    reference = parse_or_none(f"{SOURCE}:v1")
    assert reference
    source = f"{SOURCE}:v1"
    streams = [
        stream("b", tag("a", source, imported(1))),
        stream("a", tag("z", source, imported(2)), tag("b", source, imported(3)), tag("a", source, failure=REFUSED)),
    ]
    for order in itertools.permutations(streams):
        index = Index()
        for entry in order:
            index.apply(None, entry)
        names = [claim.name for claim in index.find("openshift", claim_key(reference))]
        assert names == ["openshift/a:b", "openshift/a:z", "openshift/b:a", "openshift/a:a"]


def test_the_index_is_what_the_streams_are_whatever_came_before() -> None:
    """Adding, changing and deleting in any order leaves what a fresh index of the last state has; nothing is left behind."""
    source = f"{SOURCE}:v1"
    variants = [
        None,
        stream("a", tag("x", source, imported(1))),
        stream("a", tag("x", source, imported(2), imported(1))),
        stream("b", tag("x", source, failure=REFUSED)),
        stream("b", tag("y", source, imported(3), generation=2)),
        stream("b"),
    ]
    keys = [ClaimKey(SOURCE, version) for version in ("v1", *map(digest, (1, 2, 3)))]
    chance = random.Random(5)  # noqa: S311  the same every time
    for _ in range(200):
        index, present = Index(), dict.fromkeys(("a", "b"))
        for _ in range(12):
            name = chance.choice(("a", "b"))
            new = chance.choice([v for v in variants if v is None or v.stream.name == name])
            index.apply(present[name], new)
            present[name] = new  # type: ignore[assignment]
        fresh = Index()
        for entry in present.values():
            fresh.apply(None, entry)
        assert all(index.find("openshift", key) == fresh.find("openshift", key) for key in keys)
        assert index.references() == fresh.references()


def test_a_change_never_leaves_a_moment_without_a_claim() -> None:
    """A review that runs while a stream changes finds the old or the new, never nothing."""
    key = ClaimKey(SOURCE, "v1")
    seen = []

    class Watched(Index):
        def _remove(self, entry: StreamClaims) -> None:
            seen.append(len(self.find("openshift", key)))
            super()._remove(entry)
            seen.append(len(self.find("openshift", key)))

    index = Watched()
    first, second = (stream("a", tag("x", f"{SOURCE}:v1", imported(n))) for n in (1, 2))
    index.apply(None, first)
    index.apply(first, second)
    assert seen == [2, 1]
    assert index.find("openshift", key)[0].digest == digest(2)


def test_tags_with_one_architectures_image_are_counted() -> None:
    """Each once, whatever its history, and only where it has an image of its source."""
    index = Index()
    index.apply(
        None,
        stream("a", tag("v1", f"{SOURCE}:v1", imported(1), imported(2)), tag("v2", f"{SOURCE}:v2"), tag("v3", None, imported(3))),
    )
    index.apply(
        None, stream("b", tag("v1", f"{SOURCE}:v1", imported(1), importPolicy={"importMode": "PreserveOriginal"}), namespace="team")
    )
    index.apply(None, stream("c", tag("v1", f"{SOURCE}:v1", imported(1), importPolicy={"importMode": "Legacy"}), namespace="team"))
    assert index.legacy_tags() == 2
