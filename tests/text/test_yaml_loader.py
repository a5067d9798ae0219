"""YAML and JSON, as oc and kubectl read them."""

from typing import Any

import pytest
from mirrorstream.text.yaml_loader import YamlError, documents


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("at: 2019-01-01T00:00:00Z", [{"at": "2019-01-01T00:00:00Z"}]),
        ("at: 2001-01-01", [{"at": "2001-01-01"}]),
        ("at: !!timestamp 2001-01-01", [{"at": "2001-01-01"}]),
        ("2001-01-01: a\n1: b\non: c\n1.50: d\nnull: e", [{"2001-01-01": "a", "1": "b", "on": "c", "1.50": "d", "null": "e"}]),
        ('enum: [=, "!="]', [{"enum": ["=", "!="]}]),
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}", [{"a": {"x": 1}, "b": {"x": 1, "y": 2}}]),
        ("a: <<\nb: [<<, x]\nc: {d: &a {x: <<}, <<: *a}", [{"a": "<<", "b": ["<<", "x"], "c": {"d": {"x": "<<"}, "x": "<<"}}]),
        ('{\n\t"a":\t[1,\t2]\n}', [{"a": [1, 2]}]),
        ('---\n{\n\t"a":\t1\n}\n---\n{"b": 2\t}', [{"a": 1}, {"b": 2}]),
        ("a:\t1\t# one", [{"a": 1}]),
        ('{"a": 1}\n{"b": 2}{"c": 3}\n', [{"a": 1}, {"b": 2}, {"c": 3}]),
        ('{"a": "\\ud83d\\ude42"}', [{"a": "🙂"}]),
        ("{a: b}", [{"a": "b"}]),
        ('\ufeff{"a": 1}', [{"a": 1}]),
        ("\ufeffa: 1\n---\n\ufeffb: 2", [{"a": 1}, {"b": 2}]),
        ("a: 12:30\nb: 1:30.5\nc: !!int 1:30\nd: 12", [{"a": "12:30", "b": "1:30.5", "c": "1:30", "d": 12}]),
        ("a: !x 5\nb: !y {c: 1}\nd: !z [1, !x two]", [{"a": "5", "b": {"c": 1}, "d": [1, "two"]}]),
        ("# nothing but comments\n", []),
        ("---\n---\na: 1\n---\n", [None, {"a": 1}, None]),
        ("", []),
    ],
)
def test_what_is_read(text: str, found: list[Any]) -> None:
    """Dates, times of day and keys are text; tags of applications count for nothing; tabs are blanks; JSON objects may follow."""
    assert list(documents(text)) == found


@pytest.mark.parametrize("text", ["\ta: 1", "a:\n\tb: 1", '{"a": 1} b', "a: [1\n", '{"a": 1'])
def test_what_is_refused(text: str) -> None:
    """A tab never indents, in YAML; one line says where."""
    with pytest.raises(YamlError, match=r"^line \d+, column \d+: not valid YAML: [^\n]+$"):
        list(documents(text))
