"""A measured figure, its limit, and what it is to be compared with."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One figure; `limit` is the largest value that is good enough, None for those that are only told.

    `beside` is what stood beside it in the same run, `how` says how it is measured.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    beside: str = ""
    how: str = ""

    @property
    def kept(self) -> bool:
        """Whether the limit is kept."""
        return self.limit is None or self.value <= self.limit

    @property
    def limit_text(self) -> str:
        """The limit as a table shows it."""
        return "" if self.limit is None else f"{self.limit:g} {self.unit}"

    def document(self) -> dict[str, Any]:
        """The figure as JSON."""
        return {**asdict(self), "kept": self.kept}


def percentile(values: list[float], percent: float) -> float:
    """The value that `percent` of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@dataclass(frozen=True)
class Measurement:
    """A group of figures; `about` says what they are about and how they are measured, in a sentence or two."""

    name: str
    title: str
    about: str
    measure: Callable[[Path], list[Figure]]
