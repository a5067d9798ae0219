"""References and mirror rules: whatever stands in an object, the others count, and the answer is a function of them."""

import contextlib
import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mirrorstream.diagnose.explain import ExplainReport, explain_reference, render
from mirrorstream.diagnose.suggest import suggestion
from mirrorstream.diagnose.tag_status import State, TagState
from mirrorstream.imagestream.eligibility import evaluate, normalised
from mirrorstream.imagestream.failures import classify
from mirrorstream.imagestream.model import ImportPolicy
from mirrorstream.rules.objects import REFUSED_WHOLE
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import (
    MAXIMUM_LENGTH,
    ReferenceError,
    has_registry_host,
    is_location,
    parse_exact,
    parse_reference,
    written_name,
)
from mirrorstream.runtime.settings import NamespaceSettings

from tests.fuzz.bounds import LARGEST, examples, grows_linearly
from tests.fuzz.values import DIGEST, REPOSITORIES, json_values, perhaps, references, rule_objects, texts

Object = dict[str, Any]


@given(references)
@examples(700)
def test_a_reference_parses_to_what_parses_to_itself_or_says_why_not(text: str) -> None:
    """ReferenceError is the one way out, in one line; what is normalised stays as it is."""
    assert written_name(text) in text
    assert isinstance(has_registry_host(text), bool)
    assert isinstance(is_location(text), bool)
    try:
        reference = parse_reference(text)
    except ReferenceError as error:
        said = str(error)
        reference = None
    if reference is None:
        assert parse_exact(text) is None
        assert "\n" not in said
        assert len(said) < 2000
        assert normalised(text) == text
        return
    again = parse_reference(str(reference))
    assert again == reference
    assert str(again) == str(reference) == normalised(text)
    assert reference.tag or reference.digest
    assert written_name(str(reference)) == reference.name
    assert parse_exact(str(reference)) == reference
    assert len(text) <= MAXIMUM_LENGTH


def _ask(policy: MirrorPolicy, reference: str) -> list[Any]:
    """Every answer of a policy about a reference; only ReferenceError may come out."""
    answers: list[Any] = [policy.import_allowed(reference, insecure=insecure) for insecure in (True, False)]
    with contextlib.suppress(ReferenceError):
        answers += [
            policy.pull_sources(reference),
            policy.import_candidates(reference),
        ]
        found = policy.resolve(parse_reference(reference))
        answers += [found.candidates, found.skipped_mirrors, found.refusal, found.is_mirrored, found.is_mirrored_by_digest]
        answers += [found.scope, found.objects, found.mirror_origins]
        explanation = explain_reference(policy, reference)
        answers.append(explanation.document())
        render(ExplainReport((explanation,), policy.warnings))
    answers.append(evaluate(policy, reference, classify("", "connection refused", (reference,))))
    return answers


@given(rule_objects, st.lists(references, min_size=1, max_size=3), st.randoms(use_true_random=False))
@example([{"kind": {}, "metadata": {"name": "x"}}, {"kind": ["ImageDigestMirrorSet"]}], ["quay.io/a"], random.Random(0))  # noqa: S311  the same every time
@examples(250)
def test_rules_of_anything_never_raise_and_do_not_depend_on_their_order(
    objects: list[Any], asked: list[str], chance: random.Random
) -> None:
    """`kind: {}` once raised TypeError."""
    shuffled = chance.sample(objects, len(objects))
    policy, other = MirrorPolicy.from_objects(objects), MirrorPolicy.from_objects(shuffled)
    for warning in policy.warnings:
        assert str(warning).startswith(warning.object)
    unique = len({_identity(item) for item in objects}) == len(objects)
    for reference in [*asked, *REPOSITORIES]:
        found = _ask(policy, reference)
        if unique:
            # Of two objects with one name, which an API server cannot have, the first counts first.
            assert found == _ask(other, reference)


def _identity(item: Any) -> str:
    if not isinstance(item, dict) or not isinstance(item.get("metadata"), dict):
        return f"{item.get('kind') if isinstance(item, dict) else ''!r}/(no name)"
    return f"{item.get('kind')!r}/{item['metadata'].get('name') or '(no name)'}"


@given(perhaps(st.lists(texts, max_size=3)), st.lists(json_values, max_size=3))
@examples(200)
def test_registries_from_arguments_never_raise(insecure: Any, blocked: list[Any]) -> None:
    """Neither do lists that are none."""
    listed = insecure if isinstance(insecure, list) else [insecure]
    MirrorPolicy.from_objects([], insecure_registries=listed, blocked_registries=blocked)


@given(st.lists(st.text(st.sampled_from("*?[]!-^ab\\&|~."), min_size=1, max_size=63), min_size=1, max_size=4), texts)
@examples(250)
def test_any_text_is_a_pattern_of_namespaces(patterns: list[str], name: str) -> None:
    """No pattern takes more than linear time, whatever its stars."""
    found = NamespaceSettings(include=tuple(patterns), exclude=tuple(reversed(patterns))).cover(name)
    assert found is False


def _many_sets(size: int) -> list[Object]:
    return [
        {
            "kind": "ImageDigestMirrorSet",
            "metadata": {"name": str(n)},
            "spec": {"imageDigestMirrors": [{"source": "quay.io/a", "mirrors": ["m.corp/a", f"m{n}.corp/a"]}]},
        }
        for n in range(size // 150)
    ]


def _one_set(mirrors: list[str], source: str = "quay.io/a") -> Object:
    return {
        "kind": "ImageDigestMirrorSet",
        "metadata": {"name": "x"},
        "spec": {"imageDigestMirrors": [{"source": source, "mirrors": mirrors}]},
    }


def _config(**registries: list[str]) -> Object:
    return {"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"registrySources": registries}}


def _hosts(size: int) -> list[str]:
    return [f"m{n}.corp/a" for n in range(size // 14)]


RULES = {
    "many-sets-for-one-source": _many_sets,
    "many-mirrors-of-one-source": lambda size: [_one_set(_hosts(size))],
    "mirrors-that-follow-each-other-both-ways": lambda size: [_one_set(_hosts(size // 2) + _hosts(size // 2)[::-1])],
    "many-mirrors-and-many-insecure": lambda size: [
        _one_set(_hosts(size // 2)),
        _config(insecureRegistries=[f"i{n}.corp" for n in range(size // 24)]),
    ],
    "many-scopes-within-one-source": lambda size: [
        _one_set(_hosts(size // 2)),
        _config(blockedRegistries=[f"quay.io/a/{n}" for n in range(size // 30)]),
    ],
    "one-long-host": lambda size: [_one_set(["m.corp/a", "a." * (size // 4)], "b." * (size // 4))],
    "hosts-of-many-labels": lambda size: [_one_set(["a." * 500 + "b"] * (size // 1000))],
    "slashes": lambda size: [_one_set(["/" * (size // 2), "m.corp" + "/" * (size // 2)])],
    "a-long-glob": lambda size: [
        {
            "kind": "Image",
            "metadata": {"name": "cluster"},
            "spec": {"allowedRegistriesForImport": [{"domainName": "*a" * 15 + f"*{n}"} for n in range(size // 40)]},
        }
    ],
}


@pytest.mark.parametrize("make", RULES.values(), ids=RULES)
def test_rules_take_linear_time(make: Any) -> None:
    """To read, to compare with those before, and to ask about a reference that all of them cover."""

    def run(objects: list[Object]) -> None:
        policy, again = MirrorPolicy.from_objects(objects), MirrorPolicy.from_objects(objects)
        assert policy == again
        _ask(policy, "quay.io/a:v1")

    # What is quadratic shows late here, below what is linear.
    grows_linearly(make, run, largest=LARGEST // 2, smallest=1024, enough=0.25)


REFERENCES = {
    "slashes": lambda size: "a" + "/" * size,
    "dots": lambda size: "a." * (size // 2) + "/b",
    "dashes": lambda size: "quay.io/a" + "-" * size,
    "underscores": lambda size: "quay.io/" + "a_" * (size // 2),
    "capitals": lambda size: "quay.io/" + "A" * size,
    "digits": lambda size: "quay.io/a@sha256:" + "a" * size,
    "ats": lambda size: "@" * size,
    "colons": lambda size: "a:" * (size // 2),
    "brackets": lambda size: "[" + ":" * size + "]/a",
}


@pytest.mark.parametrize("make", REFERENCES.values(), ids=REFERENCES)
def test_references_take_linear_time(make: Any) -> None:
    """With rules, too."""
    policy = MirrorPolicy.from_objects([_one_set(["m.corp/a"], "*.corp"), _config(allowedRegistries=["*.corp"])])

    def run(text: str) -> None:
        _ask(policy, text)
        parse_exact(text)
        is_location(text)
        written_name(text)

    grows_linearly(make, run)


NESTED = ("r.example.com", "*.example.com", "r.example.com/a", "r.example.com/a/b", "r.example.com/a/b/c", "r.example.com/x")
WANTED = ("r.example.com/a", "r.example.com/a/b", "r.example.com/a/b/c", "r.example.com/x/y", "r.example.com:5000/a/b")
OTHERS = (*WANTED, "r.example.com/a/z", "r.example.com/a/b/z", "r.example.com/z", "s.example.com/a/b", "example.com/a")


@st.composite
def nested_rules(draw: st.DrawFn) -> list[Object]:
    """Digest and tag mirrors for scopes that lie in each other, and perhaps restrictions of such scopes."""
    objects: list[Object] = []
    for number in range(draw(st.integers(1, 4))):
        kind, field = draw(
            st.sampled_from([("ImageDigestMirrorSet", "imageDigestMirrors")] * 3 + [("ImageTagMirrorSet", "imageTagMirrors")])
        )
        source = draw(st.sampled_from(NESTED))
        mirrors = draw(st.lists(st.sampled_from(["m.io", "n.io/p", "o.io/q/r", source]), min_size=1, max_size=3, unique=True))
        entry = {"source": source, "mirrors": mirrors}
        if draw(st.booleans()):
            entry["mirrorSourcePolicy"] = "NeverContactSource"
        objects.append({"kind": kind, "metadata": {"name": f"m{number}"}, "spec": {field: [entry]}})
    scopes = st.lists(st.sampled_from([*NESTED, "m.io", "n.io/p"]), max_size=2)
    sources = {"insecureRegistries": draw(scopes), "blockedRegistries": draw(scopes)}
    return [*objects, {"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"registrySources": sources}}]


@given(nested_rules(), st.sets(st.sampled_from(WANTED), min_size=1))
@examples(400)
def test_a_suggestion_takes_no_mirror_away(objects: list[Object], wanted: set[str]) -> None:
    """Whatever rules there are: digests are pulled from where they were, and the tags that it is for from their mirrors."""
    before = MirrorPolicy.from_objects(objects)
    policy = ImportPolicy(scheduled=True)
    states = [
        TagState("openshift", "app", name, State.HEALED, f"{name}:v1", import_policy=policy)
        for name in sorted(wanted)
        if not any(mirror.kind == "tag" for mirror in before.resolve(parse_reference(f"{name}:v1")).mirrors)
    ]
    found = suggestion(states, before, objects)
    after = MirrorPolicy.from_objects([*objects, *found.objects])
    # Where machine-config-operator refuses the rules already, it refuses what has their mirrors as well.
    refused = any(REFUSED_WHOLE in warning.message for warning in before.warnings)
    assert refused or after.warnings == before.warnings
    for name in OTHERS:
        assert _pulled(after, f"{name}@{DIGEST}") == _pulled(before, f"{name}@{DIGEST}"), name
        assert _pulled(after, f"{name}:v1")[-1] == _pulled(before, f"{name}:v1")[-1], name
    for state in found.tags:
        mirrors = [reference for reference, blocked in _pulled(after, state.source)[:-1] if not blocked]
        expected = [candidate.reference for candidate in before.import_candidates(state.source)]
        assert [reference for reference in mirrors if reference != state.source] == expected


def _pulled(policy: MirrorPolicy, reference: str) -> list[tuple[str, bool]]:
    """Where a node pulls from, and whether it is blocked there.

    Whether it is insecure may change for the better known: a wildcard hides that the Image config lists its registry as insecure.
    """
    return [(source.reference, source.blocked) for source in policy.pull_sources(reference)]
