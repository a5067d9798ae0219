"""YAML that people hand us: read safely, in bounded time, and refused in one line.

PyYAML alone raises a handful of unrelated exceptions, and lets a few lines of aliases to aliases stand for gigabytes.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from mirrorstream.safetext import one_line, shortened

ALIASED = 100_000
"""Nodes that the aliases of one document may stand for; beyond it, it is no configuration but a bomb."""
DEEPEST = 100
"""Brackets within brackets; PyYAML looks at all of them again at each one."""
MESSAGE_LENGTH = 200


class YamlError(ValueError):
    """A text that is not YAML as we take it; one line that says where and why."""


class _Loader(yaml.SafeLoader):
    """The safe loader, with errors that have a place, and with a limit on what aliases stand for."""

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

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # A tag, or what looks like a date or a number, that its constructor cannot make anything of.
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(None, None, f"this is no {kind}", node.start_mark) from error


def documents(text: str) -> Iterator[Any]:
    """The documents of a YAML text. Raises YamlError."""
    try:
        yield from yaml.load_all(text, _Loader)
    except RecursionError as error:
        raise YamlError("not valid YAML: nested too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or error
        raise YamlError(f"{place}not valid YAML: {shortened(one_line(str(problem)), MESSAGE_LENGTH)}") from error


def document(text: str) -> Any:
    """The one document of a YAML text; None if it is empty. Raises YamlError."""
    found = list(documents(text))
    if len(found) > 1:
        raise YamlError("not valid YAML: expected a single document")
    return found[0] if found else None
