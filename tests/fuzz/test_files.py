"""The configuration, files of objects, and a caBundle: what is wrong is said in one line, and soon."""

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.runtime.ca import Authority
from mirrorstream.runtime.settings import NamespaceSettings, Settings, SettingsError, parse_settings
from mirrorstream_cli.object_files import READABLE, read_files
from mirrorstream_webhook.ca_bundle import NAME, entries, has, merge, without

from tests.fuzz.bounds import LARGEST, SOAK, examples, grows_linearly
from tests.fuzz.corpus import cases, raw_cases
from tests.fuzz.values import json_values, mapping, metadata, perhaps, texts

LONGEST_ERROR = 20_000
"""Twenty problems with a path and a value each."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def settings_or_error(text: str) -> Settings | None:
    """What a configuration file says; SettingsError is the one way out, in one line of bounded length."""
    try:
        return parse_settings(text, "config.yaml")
    except SettingsError as error:
        said = str(error)
    assert len(said.splitlines()) == 1
    assert said.startswith("config.yaml")
    assert len(said) < LONGEST_ERROR
    return None


configurations = mapping(
    mode=st.sampled_from(["active", "observe"]),
    mirrors=mapping(tagsThroughDigestMirrors=st.booleans(), bypassNotFound=st.booleans()),
    controller=mapping(
        recordedReference=texts,
        concurrentImports=st.integers(-1, 300),
        stuckAfterSeconds=st.one_of(st.floats(), st.integers()),
        apiRequestsPerSecond=st.floats(),
        retry=mapping(initialSeconds=st.floats(), maximumSeconds=st.floats()),
        namespaces=mapping(include=st.lists(texts, max_size=3), exclude=st.lists(texts, max_size=3)),
    ),
    webhook=mapping(scope=texts, sharedNamespaces=st.lists(texts, max_size=3), excludeOwners=st.lists(texts, max_size=3)),
)


@given(perhaps(configurations))
@examples(250)
def test_any_configuration_is_taken_or_refused_in_one_line(document: Any) -> None:
    """With a value of any type in any place, and fields of any name."""
    settings_or_error(yaml.safe_dump(document, allow_unicode=True))


yaml_texts = st.lists(
    st.one_of(
        texts,
        st.sampled_from(
            [
                "mode: ", "observe", "\n", "  ", "- ", "? ", ": ", "&a ", "*a", "<<: ", "!!int ", "!!binary ", "!!set ",
                "!!timestamp ",
                "!!python/object:os.system ", "[", "]", "{", "}", ", ", "|\n", ">-\n", "'", '"', "#", "---\n", "...\n",
                "%YAML 9.9\n",
                "2001-01-01", "0x", "0o9", "1_0", ".inf", ".nan", "~", "\t", "\ufeff", "\x85", "\u2028", "=", "controller:",
                "webhook:",
            ]
        ),
    ),
    max_size=14,
).map("".join)  # fmt: skip


@given(yaml_texts)
@examples(600)
def test_any_text_is_a_configuration_or_refused_in_one_line(text: str) -> None:
    """YAML's own errors have several lines, and what its constructors raise is no YAML error at all."""
    settings_or_error(text)


@pytest.mark.parametrize("text", cases("yaml"))
def test_what_once_broke_a_configuration(text: str, tmp_path: Path) -> None:
    """Each of these is refused, as a configuration and as a file of objects."""
    assert settings_or_error(text) is None
    file = tmp_path / "f.yaml"
    file.write_bytes(text.encode())
    with pytest.raises(ConfigurationError) as raised:
        read_files([str(file)])
    assert len(str(raised.value).splitlines()) == 1


def test_anchors_that_people_write_are_taken() -> None:
    """The limit is on what aliases stand for, not on having them."""
    text = "controller:\n  namespaces: {include: &n [a, b]}\nwebhook:\n  sharedNamespaces: *n\n"
    assert parse_settings(text, "f").webhook.sharedNamespaces == ("a", "b")


@given(st.one_of(yaml_texts, perhaps(mapping(kind=st.sampled_from([*READABLE, "List"]), metadata=metadata, items=json_values))))
@examples(250)
def test_a_file_of_anything_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, written: Any) -> None:
    """ConfigurationError names the file; what is read makes rules."""
    text = written if isinstance(written, str) else yaml.safe_dump(written)
    file = tmp_path_factory.getbasetemp() / "objects.yaml"
    file.write_bytes(text.encode(errors="surrogatepass"))
    try:
        found = read_files([str(file)]).objects
    except ConfigurationError as error:
        said = str(error)
    else:
        assert all(isinstance(item, dict) for item in found)
        MirrorPolicy.from_objects(found)
        return
    assert said.startswith(str(file))
    assert len(said.splitlines()) == 1


AUTHORITIES = [
    Authority.create(NAME, now=NOW - timedelta(days=age), lifetime=timedelta(days=2), unit=unit).certificate
    for age, unit in ((0, "mine"), (1, "other"), (5, "gone"))
]
OTHERS = Authority.create("somebody", now=NOW, lifetime=timedelta(days=2)).certificate
bundles = st.lists(
    st.one_of(
        st.sampled_from([*AUTHORITIES, OTHERS, *(certificate[:-60] for certificate in AUTHORITIES)]),
        st.sampled_from(
            [b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"\n", b"AAAA", b"\x00\xff", b"# a comment\n"]
        ),
        st.binary(max_size=20),
    ),
    max_size=6,
).map(b"".join)


@given(bundles)
@example((Path(__file__).parent / "corpus/bundle/unknown-version.pem").read_bytes())
@examples(300)
def test_any_bundle_can_be_added_to_and_left(bundle: bytes) -> None:
    """What is somebody else's stays, byte for byte; adding twice is adding once."""
    own = Authority.create(NAME, now=NOW, lifetime=timedelta(days=1), unit="mine").certificate
    merged = merge(bundle, [own], NOW, "mine")
    assert has(merged, own)
    assert merge(merged, [own], NOW, "mine") == merged
    left = without(merged, "mine")
    assert not has(left, own)
    for entry in entries(bundle):
        theirs = entry in OTHERS or not any(entry in certificate for certificate in AUTHORITIES)
        assert not theirs or entry in entries(left)


@pytest.mark.parametrize("bundle", raw_cases("bundle"))
def test_what_once_broke_a_bundle(bundle: bytes) -> None:
    """A certificate of a version that nobody knows is somebody else's."""
    assert merge(bundle, [AUTHORITIES[0]], NOW, "mine") == bundle.strip() + b"\n" + AUTHORITIES[0].strip() + b"\n"


FILES = {
    "fields": lambda size: "".join(f"a{n}: 1\n" for n in range(size // 9)),
    "list": lambda size: "- a\n" * (size // 4),
    "flow": lambda size: "[" + "a, " * (size // 3) + "]",
    "anchors": lambda size: "".join(f"- &a{n} x\n" for n in range(size // 12)),
    "aliases": lambda size: "- &a x\n" + "- *a\n" * (size // 5),
    "text": lambda size: "a: " + "x" * size,
    "words": lambda size: "a: " + "x " * (size // 2),
    "quoted": lambda size: 'a: "' + "\\n" * (size // 2) + '"',
    "comment": lambda size: "#" * size,
    "lines": lambda size: "\n" * size,
    "colons": lambda size: ":" * size,
    "brackets": lambda size: "[" * size,
    "braces": lambda size: "{" * size,
    "questions": lambda size: "? " * (size // 2),
    "documents": lambda size: "---\n" * (size // 4),
}


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_files_take_linear_time(make: Any, tmp_path: Path) -> None:
    """As a configuration and as a file of objects; PyYAML itself needs 10 s for 1 MB."""
    file = tmp_path / "f.yaml"

    def run(text: str) -> None:
        settings_or_error(text)
        file.write_text(text)
        with contextlib.suppress(ConfigurationError):
            read_files([str(file)])

    grows_linearly(make, run, smallest=2048, largest=LARGEST if SOAK else LARGEST // 16)


BUNDLES = {
    "beginnings": lambda size: b"-----BEGIN CERTIFICATE-----" * (size // 27),
    "ends": lambda size: b"-----END CERTIFICATE-----" * (size // 25),
    "both": lambda size: b"-----BEGIN CERTIFICATE-----A-----END CERTIFICATE-----" * (size // 53),
    "spaces": lambda size: b"-----BEGIN CERTIFICATE-----" + b" " * size,
    "certificates": lambda size: OTHERS * (size // len(OTHERS)),
    "ours": lambda size: AUTHORITIES[0] * (size // len(OTHERS)),
}


@pytest.mark.parametrize("make", BUNDLES.values(), ids=BUNDLES)
def test_bundles_take_linear_time(make: Any) -> None:
    """Beginnings without an end once took quadratic time."""
    grows_linearly(make, lambda bundle: (merge(bundle, [AUTHORITIES[1]], NOW, "mine"), without(bundle, "mine")))


@pytest.mark.parametrize("star", ["*", "?*", "*a", "[ab]*", "*?"])
def test_no_pattern_of_namespaces_is_catastrophic(star: str) -> None:
    """As long as the configuration allows, against the longest name that a namespace can have."""
    pattern = (star * 63)[:62] + "!"
    grows_linearly(
        lambda size: ["a" * 63] * size,
        lambda names: [NamespaceSettings(include=(pattern,)).cover(n) for n in names],
        largest=512,
        smallest=64,
    )
