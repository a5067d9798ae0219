"""Which metrics and labels a PromQL expression names: enough of the language for the expressions of alerts and panels."""

import re
from dataclasses import dataclass

WORDS = frozenset({"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"})
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"(?<![\w.$])([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?(?!\s*\(|[\w:])")
_MADE = re.compile(r"label_replace\(")


@dataclass(frozen=True)
class Named:
    """What an expression names: its metrics with the labels that select among their series, and the labels it groups by."""

    selectors: tuple[tuple[str, frozenset[str]], ...]
    grouping: frozenset[str]
    makes_labels: bool

    @property
    def metrics(self) -> frozenset[str]:
        """The names of the series."""
        return frozenset(name for name, _ in self.selectors)


def named(expression: str) -> Named:
    """Read an expression."""
    text = _STRING.sub('""', expression)
    grouping = {label.strip() for labels in _GROUPING.findall(text) for label in labels.split(",") if label.strip()}
    text = _GROUPING.sub(" ", text)
    text = re.sub(r"\[[^\]]*\]", " ", text)
    selectors = [
        (name, frozenset(re.findall(r"([a-zA-Z_]\w*)\s*[=!]", matchers)))
        for name, matchers in _SELECTOR.findall(text)
        if name not in WORDS
    ]
    return Named(tuple(selectors), frozenset(grouping), bool(_MADE.search(text)))
