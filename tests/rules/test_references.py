"""Pull specs: the container tools' grammar and defaults."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mirrorstream.rules.references import ReferenceError, has_registry_host, is_location, parse_reference, written_name

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("ns/app", "docker.io/ns/app:latest"),
        ("index.docker.io/busybox:1", "docker.io/library/busybox:1"),
        ("registry-1.docker.io/x/y", "registry-1.docker.io/x/y:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("host:5000/app", "host:5000/app:latest"),
        ("quay.io/ns/deep/er/app:v1", "quay.io/ns/deep/er/app:v1"),
        (f"quay.io/ns/app@{DIGEST}", f"quay.io/ns/app@{DIGEST}"),
        (f"quay.io/ns/app:v1@{DIGEST}", f"quay.io/ns/app:v1@{DIGEST}"),
        ("[::1]:5000/ns/app", "[::1]:5000/ns/app:latest"),
        ("quay.io/a__b/c-d.e_f", "quay.io/a__b/c-d.e_f:latest"),
        ("my_registry.example.com/app:v1", "my_registry.example.com/app:v1"),
        (f"my_registry.example.com/ns/app@{DIGEST}", f"my_registry.example.com/ns/app@{DIGEST}"),
        ("a" * 63, f"docker.io/library/{'a' * 63}:latest"),
        ("a" * 64 + ":v1", f"docker.io/library/{'a' * 64}:v1"),
        ("g" * 64, f"docker.io/library/{'g' * 64}:latest"),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    """The normal form is what all rules are about, and its own normal form."""
    assert str(parse_reference(text)) == normal
    assert str(parse_reference(normal)) == normal


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "invalid reference format"),
        ("not a reference", "invalid reference format"),
        ("quay.io/Team/App:v1", "repository name must be lowercase"),
        ("quay.io/app:", "invalid reference format"),
        ("quay.io/app@sha256:12", "invalid reference format"),
        ("quay.io/app@sha256:" + "0" * 63, "unsupported digest"),
        ("quay.io/app@sha256:" + "A" * 64, "unsupported digest"),
        ("quay.io//app", "invalid reference format"),
        ("https://quay.io/app", "invalid reference format"),
        ("quay.io/" + "a" * 300, "must not be more than 255"),
        ("quay.io/app:" + "t" * 129, "invalid reference format"),
        ("my_registry:5000/app:v1", "invalid reference format"),
        ("0123456789abcdef" * 4, "an image's identifier"),
    ],
)
def test_what_does_not_parse_is_quoted(text: str, why: str) -> None:
    """The error names the text, cut where it would drown the message."""
    with pytest.raises(ReferenceError) as error:
        parse_reference(text)
    assert why in str(error.value)
    assert text[:100] in str(error.value)
    assert len(str(error.value)) < 400


@given(st.text(max_size=3000))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """No text makes it crash, or hang."""
    try:
        normal = str(parse_reference(text))
    except ReferenceError:
        return
    assert str(parse_reference(normal)) == normal


@pytest.mark.parametrize(
    "text", ["a-" * 100000, "a." * 100000, "a" * 200000 + "!", "x/" * 50000], ids=["dashes", "dots", "long", "deep"]
)
def test_long_input_is_refused_at_once(text: str) -> None:
    """Nobody slows us down with a long name."""
    with pytest.raises(ReferenceError):
        parse_reference(text)
    assert not is_location(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("busybox:1", "busybox"),
        ("host:5000/app", "host:5000/app"),
        ("host:5000/app:v1", "host:5000/app"),
        (f"host/app:v1@{DIGEST}", "host/app"),
    ],
)
def test_the_written_name_is_not_normalised(text: str, name: str) -> None:
    """The platform records what the user wrote, without tag and digest."""
    assert written_name(text) == name


@pytest.mark.parametrize(
    ("text", "host"), [("quay.io/x", True), ("a:1/x", True), ("localhost/x", True), ("ns/x", False), ("x.y", False)]
)
def test_which_first_component_is_a_registry(text: str, host: bool) -> None:
    """A dot, a colon, or localhost."""
    assert has_registry_host(text) is host
