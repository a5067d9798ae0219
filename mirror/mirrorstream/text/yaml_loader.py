"""YAML that people hand us: read safely, in bounded time, as oc and kubectl read it, and refused in one line.

PyYAML alone raises a handful of unrelated exceptions, and lets a few lines of aliases to aliases stand for gigabytes. It makes
dates of what Go's YAML takes for text, and refuses tabs where JSON has them.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import yaml

from mirrorstream.text.sanitize import one_line, shortened

ALIASED = 100_000
"""Nodes that the aliases of one document may stand for; beyond it, it is no configuration but a bomb."""
DEEPEST = 100
"""Brackets within brackets; PyYAML looks at all of them again at each one."""
MESSAGE_LENGTH = 200
_STANDARD = "tag:yaml.org,2002:"
_TEXT, _INT, _FLOAT, _TIMESTAMP, _VALUE, _MERGE = (
    _STANDARD + name for name in ("str", "int", "float", "timestamp", "value", "merge")
)
_BLANKS = re.compile(r"[ \t\r\n]*")
_BOM = "\ufeff"


class YamlError(ValueError):
    """A text that is not YAML as we take it; one line that says where and why."""


class _Loader(yaml.SafeLoader):
    """The safe loader, with errors that have a place, and with a limit on what aliases stand for.

    Times, numbers to the base of 60, a single `=`, and `<<` other than as a key, are text, and what has a tag of its own (`!name`)
    is read as without it, all as Go's YAML has it.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML's name and form
        first: [(tag, pattern) for tag, pattern in found if tag not in (_TIMESTAMP, _VALUE)]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._count = self._aliased = 0
        self._sizes: dict[int, int] = {}

    def compose_document(self) -> yaml.Node | None:
        self._count = self._aliased = 0
        self._sizes.clear()
        return super().compose_document()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if not self.check_event(yaml.AliasEvent):
            before = self._count
            self._count += 1
            node = super().compose_node(parent, index)
            self._sizes[id(node)] = self._count - before
            return node
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        size = self._sizes.get(id(node))
        if size is None:
            raise yaml.composer.ComposerError(None, None, "an alias refers to what it is part of", mark)
        self._count += size
        self._aliased += size
        if self._aliased > ALIASED:
            raise yaml.composer.ComposerError(None, None, f"aliases stand for more than {ALIASED} values", mark)
        return node

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= DEEPEST:
            raise yaml.scanner.ScannerError(None, None, "nested too deeply", self.get_mark())
        super().fetch_flow_collection_start(token)

    def scan_to_next_token(self) -> None:
        """As libyaml, which also takes a tab between tokens, and a byte order mark before a document."""
        super().scan_to_next_token()
        while (self.peek() == "\t" and (self.flow_level or not self.allow_simple_key)) or (self.peek() == _BOM and not self.column):
            self.forward()
            super().scan_to_next_token()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """With text as keys, as JSON: a label may be named `1` or `on`."""
        if isinstance(node, yaml.MappingNode):
            self.flatten_mapping(node)
            node.value = [(_as_text(key), value) for key, value in node.value]
        return super().construct_mapping(node, deep=deep)

    def construct_as_written(self, node: yaml.ScalarNode) -> Any:
        """Text, also with a tag."""
        return self.construct_scalar(node)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """`12:30` is text."""
        text = str(self.construct_scalar(node))
        if ":" in text:
            return text
        return self.construct_yaml_int(node) if node.tag == _INT else self.construct_yaml_float(node)

    def construct_tagged(self, _: str, node: yaml.Node) -> Any:
        """What has a tag that only an application knows."""
        if isinstance(node, yaml.MappingNode):
            return self.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return self.construct_sequence(node, deep=True)
        return self.construct_yaml_str(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # A tag, or what looks like a date or a number, that its constructor cannot make anything of.
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(None, None, f"this is no {kind}", node.start_mark) from error


class _UniqueLoader(_Loader):
    """The same, for what must not be given twice: a loader keeps the last one and says nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.composer.ComposerError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
        return node


def _as_text(key: yaml.Node) -> yaml.Node:
    return yaml.ScalarNode(_TEXT, key.value, key.start_mark) if isinstance(key, yaml.ScalarNode) else key


_Loader.add_constructor(_TIMESTAMP, _Loader.construct_as_written)
_Loader.add_constructor(_INT, _Loader.construct_number)
_Loader.add_constructor(_FLOAT, _Loader.construct_number)
_Loader.add_multi_constructor("!", _Loader.construct_tagged)
_Loader.add_constructor(_MERGE, _Loader.construct_as_written)  # a key that merges is gone before


def documents(text: str) -> Iterator[Any]:
    """The documents of a YAML text, or of one with JSON objects one after the other. Raises YamlError."""
    text = text.removeprefix(_BOM)
    if text.lstrip().startswith("{"):
        # Much quicker than as YAML; a flow mapping that is no JSON goes on to YAML.
        with contextlib.suppress(ValueError, RecursionError):
            return iter(_json_documents(text))
    return _yaml_documents(text, _Loader)


def _json_documents(text: str) -> list[Any]:
    """Raises ValueError, RecursionError."""
    import json  # noqa: PLC0415  most files are YAML

    decoder, found, place = json.JSONDecoder(), [], _after_blanks(text, 0)
    while place < len(text):
        value, place = decoder.raw_decode(text, place)
        found.append(value)
        place = _after_blanks(text, place)
    return found


def _after_blanks(text: str, place: int) -> int:
    blanks = _BLANKS.match(text, place)
    return blanks.end() if blanks else place


def _yaml_documents(text: str, loader: type[_Loader]) -> Iterator[Any]:
    try:
        yield from yaml.load_all(text, loader)
    except RecursionError as error:
        raise YamlError("not valid YAML: nested too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or error
        raise YamlError(f"{place}not valid YAML: {shortened(one_line(str(problem)), MESSAGE_LENGTH)}") from error


def document(text: str) -> Any:
    """The one document of a YAML text, in which no mapping has a key twice; None if it is empty. Raises YamlError."""
    found = list(_yaml_documents(text.removeprefix(_BOM), _UniqueLoader))
    if len(found) > 1:
        raise YamlError("not valid YAML: expected a single document")
    return found[0] if found else None
