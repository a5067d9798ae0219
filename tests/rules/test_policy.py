"""Import candidates, refusals, warnings: what the library adds to the node's rules."""

from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mirrorstream.rules.candidates import Candidate
from mirrorstream.rules.merge import merge_mirror_lists
from mirrorstream.rules.objects import read_objects
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import ReferenceError, parse_reference
from mirrorstream.rules.scopes import enclosing_scopes, lies_in

from tests.rules.builders import BOTH, DIGEST, Object, candidates, idms, image_config, itms


@pytest.mark.parametrize(
    ("objects", "reference", "expected"),
    [
        pytest.param(BOTH, "src.io/ns/app:v1", ["t.io/m/app:v1", "d.io/m/app:v1"], id="tag-mirrors-first-for-a-tag"),
        pytest.param(
            BOTH,
            f"src.io/ns/app@{DIGEST}",
            [f"d.io/m/app@{DIGEST}", f"t.io/m/app@{DIGEST}"],
            id="digest-mirrors-first-for-a-digest",
        ),
        pytest.param(
            BOTH, f"src.io/ns/app:v1@{DIGEST}", [f"d.io/m/app:v1@{DIGEST}", f"t.io/m/app:v1@{DIGEST}"], id="keeps-its-tag"
        ),
        pytest.param(BOTH, "src.io/other/app:v1", [], id="not-covered"),
        pytest.param(BOTH, "src.io/nsx/app:v1", [], id="a-prefix-of-a-name-is-no-scope"),
        pytest.param([idms("src.io", "src.io", "m.io")], "src.io/a/b:v1", ["m.io/a/b:v1"], id="never-the-source"),
        pytest.param(
            [idms("src.io", "m.io"), itms("src.io", "m.io")], "src.io/a/b:v1", ["m.io/a/b:v1"], id="the-same-mirror-counts-once"
        ),
        pytest.param([itms("*.src.io", "m.io/x")], "a.src.io/app:v1", ["m.io/x/app:v1"], id="wildcard"),
        pytest.param([itms("*.src.io", "m.io/x")], "src.io/app:v1", [], id="wildcard-is-not-the-apex"),
        pytest.param([itms("*.src.io", "m.io/x")], "notsrc.io/app:v1", [], id="wildcard-needs-the-dot"),
        pytest.param([idms("src.io/ns", "m.io/x/")], "src.io/ns/app:v1", ["m.io/x/app:v1"], id="trailing-slash"),
        pytest.param([idms("src.io/ns/app", "m.io")], "src.io/ns/app:v1", [], id="host-only-mirror-of-an-exact-repository"),
        pytest.param(
            [idms("src.io/ns/app", "m.io", "n.io/app")],
            "src.io/ns/app:v1",
            ["n.io/app:v1"],
            id="which-does-not-take-others-with-it",
        ),
        pytest.param([idms("docker.io/library", "m.io/lib")], "busybox", ["m.io/lib/busybox:latest"], id="docker-hub"),
        pytest.param(
            [idms("src.io", "m.io"), image_config(registrySources={"blockedRegistries": ["m.io"]})],
            "src.io/a/b:v1",
            [],
            id="blocked",
        ),
        pytest.param(
            [idms("src.io", "m.io", mirrorSourcePolicy="NeverContactSource")], "src.io/a/b:v1", ["m.io/a/b:v1"], id="never-contact"
        ),
        pytest.param([idms("a.io", "b.io"), idms("b.io", "c.io", name="two")], "a.io/x/y:v1", ["b.io/x/y:v1"], id="not-chained"),
    ],
)
def test_import_candidates(objects: list[Object], reference: str, expected: list[str]) -> None:
    """What the controller tries, in order."""
    assert [c.reference for c in MirrorPolicy.from_objects(objects).import_candidates(reference)] == expected


def test_a_candidate_names_its_object_and_its_own_tls_setting() -> None:
    """So that Events and `explain` can say where a mirror comes from."""
    policy = MirrorPolicy.from_objects([*BOTH, image_config(registrySources={"insecureRegistries": ["t.io"]})])
    assert policy.import_candidates("src.io/ns/app:v1") == [
        Candidate("t.io/m/app:v1", True, "ImageTagMirrorSet/tags"),
        Candidate("d.io/m/app:v1", False, "ImageDigestMirrorSet/digests"),
    ]


def test_digest_mirrors_can_be_kept_from_tags() -> None:
    """mirrors.tagsThroughDigestMirrors: false."""
    policy = MirrorPolicy.from_objects(BOTH, tags_through_digest_mirrors=False)
    assert candidates(policy, "src.io/ns/app:v1") == [("t.io/m/app:v1", "ImageTagMirrorSet/tags")]
    assert len(candidates(policy, f"src.io/ns/app@{DIGEST}")) == 2
    assert "tagsThroughDigestMirrors" in policy.resolve(parse_reference("src.io/ns/app:v1")).skipped_mirrors[0].reason


@pytest.mark.parametrize(
    ("source", "lists", "merged"),
    [
        ("s", [["b", "c"], ["a", "b"]], ["a", "b", "c"]),
        ("s", [["b"], ["a"]], ["a", "b"]),
        ("s", [["a", "b"], ["b", "a"]], ["a", "b"]),
        ("s", [["a", "s", "b"]], ["a", "s", "b"]),
        ("s", [["a", "s"]], ["a"]),
    ],
    ids=["chain", "lexical", "cycle", "source-in-the-middle", "source-at-the-end"],
)
def test_merging_lists(source: str, lists: list[list[str]], merged: list[str]) -> None:
    """Preferences of several objects are kept where they can be."""
    assert merge_mirror_lists(source, lists) == merged


@given(st.lists(st.lists(st.sampled_from("abcdefs"), min_size=1, max_size=6, unique=True), min_size=1, max_size=8))
def test_merging_loses_no_mirror(lists: list[list[str]]) -> None:
    """Every mirror stays, once; no list can make it fail."""
    lists = [mirrors for mirrors in lists if mirrors != ["s"]] or [["a"]]
    merged = merge_mirror_lists("s", lists)
    assert sorted(set(merged) | {"s"}) == sorted({mirror for mirrors in lists for mirror in mirrors} | {"s"})
    assert len(set(merged)) == len(merged)


@pytest.mark.parametrize(
    ("objects", "warning"),
    [
        pytest.param(["nonsense"], "object 0: : expected a mapping, found text", id="not-an-object"),
        pytest.param(
            [{**idms("a.io", "b.io"), "spec": []}],
            "ImageDigestMirrorSet/digests: spec: expected a mapping, found a list",
            id="spec",
        ),
        pytest.param([{**idms("a.io", "b.io"), "spec": {"imageDigestMirrors": {}}}], None, id="an-empty-mapping-is-nothing"),
        pytest.param(
            [{**idms("a.io", "b.io"), "spec": {"imageDigestMirrors": "x"}}],
            "ImageDigestMirrorSet/digests: spec.imageDigestMirrors: expected a list, found text",
            id="entries",
        ),
        pytest.param(
            [idms("a.io", "http://b.io")],
            "ImageDigestMirrorSet/digests: spec.imageDigestMirrors[0].mirrors[0]: 'http://b.io' is not a registry host",
            id="mirror",
        ),
        pytest.param([idms("a.io", "M/x")], "mirrors[0]: 'M/x' is not a registry host", id="mirror-without-a-host"),
        pytest.param([idms("", "b.io")], "spec.imageDigestMirrors[0].source: a source is required", id="no-source"),
        pytest.param([idms("*.a.io/x", "b.io")], "source: '*.a.io/x' is not a registry host", id="wildcard-with-a-path"),
        pytest.param([idms("a.io", "b.io", mirrorSourcePolicy="Never")], "mirrorSourcePolicy: 'Never' is neither", id="policy"),
        pytest.param(
            [idms("a.io", "b.io", mirrorSourcePolicy="NeverContactSource"), itms("a.io", "c.io")],
            "ImageDigestMirrorSet/digests: mirrorSourcePolicy: ImageTagMirrorSet/tags has another one for a.io",
            id="two-policies-for-a-source",
        ),
        pytest.param(
            [idms("a.io", "b.io", "a.io", mirrorSourcePolicy="NeverContactSource")],
            "spec.imageDigestMirrors[0].mirrors: a.io is among its own mirrors, and never to be contacted",
            id="never-contacted-and-a-mirror",
        ),
        pytest.param(
            [image_config(registrySources={"blockedRegistries": ["https://x"]})],
            "Image/cluster: spec.registrySources.blockedRegistries[0]: 'https://x' is not a registry host",
            id="blocked",
        ),
        pytest.param(
            [image_config(allowedRegistriesForImport=[{"domain": "x"}])],
            "Image/cluster: spec.allowedRegistriesForImport[0].domainName: None is not a registry host",
            id="allow-list",
        ),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_else_suffers(objects: list[Any], warning: str | None) -> None:
    """One bad entry never disables another."""
    policy = MirrorPolicy.from_objects([*objects, idms("good.io", "m.io", name="good")])
    texts = [str(w) for w in policy.warnings]
    assert any(warning in text for text in texts) if warning else not texts
    assert candidates(policy, "good.io/a/b:v1") == [("m.io/a/b:v1", "ImageDigestMirrorSet/good")]


_scopes = st.sampled_from(["a.io", "a.io/x", "a.io/x/y", "*.io", "b.a.io", "b.io"])
_mirrors = st.lists(
    st.sampled_from(["m.io", "m.io/x", "b.io", "a.io/x", "https://m.io", "m.io/a:1"]), min_size=1, max_size=3, unique=True
)
_sets = st.lists(
    st.builds(
        lambda make, source, mirrors, name, **more: make(source, *mirrors, name=name, **more),
        st.sampled_from([idms, itms]),
        _scopes,
        _mirrors,
        st.sampled_from(["one", "two"]),
        mirrorSourcePolicy=st.sampled_from(["AllowContactingSource", "NeverContactSource"]),
    ),
    max_size=4,
)
_image_configs = st.builds(
    lambda insecure, blocked: image_config(registrySources={"insecureRegistries": insecure, "blockedRegistries": blocked}),
    st.lists(_scopes, max_size=2),
    st.lists(_scopes, max_size=2),
)


@given(st.lists(st.tuples(_sets, st.just(image_config()) | _image_configs), min_size=2, max_size=4))
def test_rules_that_are_taken_over_are_those_that_would_be_made(changes: list[tuple[list[Object], Object]]) -> None:
    """A policy that is made from the one before answers as one that is made from nothing; and nothing happens to the one before."""
    references = [
        f"{name}{suffix}" for name in ("a.io/x/y/z", "a.io/q/r", "b.a.io/x/y", "b.io/x") for suffix in (":v1", f"@{DIGEST}")
    ]

    def answers(policy: MirrorPolicy) -> list[object]:
        found = [policy.resolve(parse_reference(each)) for each in references]
        names = ("pull_sources", "candidates", "skipped_mirrors", "scope", "objects", "pull_failure")
        return [attrgetter(*names)(each) for each in found]

    policy, before = MirrorPolicy.from_objects([]), list[object]()
    for sets, config in changes:
        read = read_objects([*sets, config])
        following = MirrorPolicy(read, previous=policy)
        afresh = MirrorPolicy(read_objects([*sets, config]))
        assert following == afresh
        assert answers(following) == answers(afresh)
        assert not before or answers(policy) == before
        policy, before = following, answers(following)


def test_rules_that_stay_are_not_made_again() -> None:
    """Of ten thousand rules one changes: were all built again, reviews would wait for the interpreter."""
    first = MirrorPolicy(read_objects([idms("a.io", "m.io"), itms("b.io", "m.io")]))
    second = MirrorPolicy(read_objects([idms("a.io", "m.io"), itms("b.io", "n.io")]), previous=first)
    assert second != first
    assert [name for name, rule in second.scope_rules.by_scope.items() if rule is first.scope_rules.by_scope[name]] == ["a.io"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["spec", "source", "mirrors", "metadata", "name"]), inner)
    ),
    max_leaves=12,
)


@given(
    kind=st.sampled_from(["ImageDigestMirrorSet", "ImageTagMirrorSet", "ImageContentSourcePolicy", "Image", None]),
    item=_json,
    entry=_json,
)
def test_no_object_makes_it_fail(kind: Any, item: Any, entry: Any) -> None:
    """Whatever an object looks like, it is read as far as it goes."""
    objects = [
        item,
        {"kind": kind, "metadata": item, "spec": entry},
        {
            "kind": kind,
            "metadata": {"name": "cluster"},
            "spec": {
                "imageDigestMirrors": [entry],
                "imageTagMirrors": entry,
                "repositoryDigestMirrors": [{"source": entry, "mirrors": entry}],
                "registrySources": entry,
                "allowedRegistriesForImport": [entry],
            },
        },
    ]
    policy = MirrorPolicy.from_objects([*objects, idms("good.io", "m.io")])
    assert policy.pull_sources("good.io/a/b:v1")[-1].reference == "good.io/a/b:v1"


@pytest.mark.parametrize(
    ("sources", "reference", "refused"),
    [
        ({"blockedRegistries": ["bad.io"]}, "bad.io/a/b", True),
        ({"blockedRegistries": ["bad.io/a"]}, "bad.io/b/c", False),
        ({"blockedRegistries": ["*.bad.io"]}, "x.bad.io/a/b", True),
        ({"blockedRegistries": ["bad.io"]}, "bad.io:5000/a/b", False),
        ({"allowedRegistries": ["good.io"]}, "other.io/a/b", True),
        ({"allowedRegistries": ["good.io/a/b"]}, "good.io/a/b:v1", False),
        ({}, "any.io/a/b", False),
    ],
)
def test_refusals_come_from_registry_sources(sources: Object, reference: str, refused: bool) -> None:
    """And they name the rule."""
    refusal = MirrorPolicy.from_objects([image_config(registrySources=sources)]).resolve(parse_reference(reference)).refusal
    assert (refusal is not None) is refused
    assert refusal is None or "spec.registrySources" in refusal


def test_never_contact_source_is_no_refusal() -> None:
    """It is the normal disconnected cluster, and the node knows it as blocked."""
    policy = MirrorPolicy.from_objects([idms("src.io", "m.io", mirrorSourcePolicy="NeverContactSource")])
    assert policy.resolve(parse_reference("src.io/a/b")).refusal is None
    assert policy.pull_sources("src.io/a/b:v1")[-1].blocked


@pytest.mark.parametrize(
    ("entry", "reference", "insecure", "allowed"),
    [
        ({"domainName": "good.io"}, "good.io/a", False, True),
        ({"domainName": "good.io"}, "good.io:443/a", False, True),
        ({"domainName": "good.io"}, "good.io:5000/a", False, False),
        ({"domainName": "good.io:5000"}, "good.io:5000/a", False, True),
        ({"domainName": "good.io:*"}, "good.io:5000/a", False, True),
        ({"domainName": "*.io"}, "x.good.io/a", False, True),
        ({"domainName": "good.io", "insecure": True}, "good.io/a", False, False),
        ({"domainName": "good.io", "insecure": True}, "good.io/a", True, True),
        ({"domainName": "docker.io"}, "busybox", False, True),
        ({"domainName": "good.io"}, "other.io/a", True, False),
    ],
)
def test_the_import_allow_list(entry: Object, reference: str, insecure: bool, allowed: bool) -> None:
    """The API server's own matching of hosts and ports."""
    policy = MirrorPolicy.from_objects([image_config(allowedRegistriesForImport=[entry])])
    assert policy.import_allowed(reference, insecure=insecure) is allowed
    assert MirrorPolicy.from_objects([]).import_allowed(reference)


@pytest.mark.parametrize(
    ("objects", "mode", "recorded"),
    [
        ([idms("src.io", "m.io")], "auto", "src.io/a/b"),
        ([itms("src.io", "m.io")], "auto", "m.io/a/b"),
        ([idms("*.io", "m.io")], "auto", "m.io/a/b"),
        ([idms("src.io", "m.io")], "mirror", "m.io/a/b"),
        ([itms("src.io", "m.io")], "source", "src.io/a/b"),
    ],
    ids=["digest-mirror", "tag-mirror", "wildcard", "always-mirror", "always-source"],
)
def test_which_name_is_recorded(objects: list[Object], mode: str, recorded: str) -> None:
    """The source's where the platform resolves it through a digest mirror, else the mirror's."""
    policy = MirrorPolicy.from_objects(objects)
    found = policy.resolve(parse_reference("src.io/a/b:v1"))
    assert found.recorded_name("src.io/a/b:v1", found.candidates[0], mode) == recorded


def test_policies_compare_by_their_rules() -> None:
    """A change that changes nothing is not one."""
    assert MirrorPolicy.from_objects(BOTH) == MirrorPolicy.from_objects(BOTH[::-1])
    assert MirrorPolicy.from_objects(BOTH) != MirrorPolicy.from_objects(BOTH[:1])


def test_a_reference_that_does_not_parse_is_an_error() -> None:
    """With the text in it."""
    with pytest.raises(ReferenceError, match="not a reference"):
        MirrorPolicy.from_objects([]).pull_sources("not a reference")


def test_a_lookup_asks_a_fixed_number_of_scopes() -> None:
    """The cost of a look-up depends on the reference, never on the number of rules."""
    assert enclosing_scopes("a.b.c:5000/x/y") == ["a.b.c:5000/x/y", "a.b.c:5000/x", "a.b.c:5000", "*.b.c", "*.c"]


@given(
    st.sampled_from(["a.io", "b.a.io", "a.io:5000", "*.a.io", "a.io/x", "b.a.io/x/y"]),
    st.sampled_from(["a.io", "*.a.io", "*.io", "a.io/x"]),
)
def test_scopes_nest_as_their_texts_say(name: str, scope: str) -> None:
    """The port counts, wildcards match proper subdomains, paths whole components."""
    host = name.partition("/")[0].partition(":")[0]
    expected = (
        name == scope or name.startswith(scope + "/") or (scope.startswith("*.") and host.endswith(scope[1:]) and host != scope)
    )
    assert lies_in(name, scope) is expected


@pytest.mark.parametrize(
    ("status", "host", "warnings"),
    [
        ({"internalRegistryHostname": "registry.svc:5000"}, "registry.svc:5000", 0),
        ({"internalRegistryHostname": ""}, "", 0),
        ({}, "", 0),
        (None, "", 0),
        ("broken", "", 0),
        ({"internalRegistryHostname": "registry.svc/path"}, "", 1),
        ({"internalRegistryHostname": 5}, "", 1),
    ],
)
def test_the_internal_registrys_name(status: Any, host: str, warnings: int) -> None:
    """What the Image config says, if it is a registry's; a change of it is a change of the policy."""
    policy = MirrorPolicy.from_objects([{**image_config(), "status": status}])
    assert policy.internal_registry == host
    assert len(policy.warnings) == warnings
    assert (policy == MirrorPolicy.from_objects([image_config()])) == (not host and not warnings)


def test_where_nodes_search_for_names_without_a_registry() -> None:
    """A list of hosts in the Image config; what is none of them is left out."""
    config = image_config(registrySources={"containerRuntimeSearchRegistries": ["quay.io", "not valid", "docker.io"]})
    policy = MirrorPolicy.from_objects([config])
    assert policy.search_registries == ("quay.io", "docker.io")
    assert policy != MirrorPolicy.from_objects([image_config()])
