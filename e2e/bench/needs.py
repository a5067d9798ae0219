"""Measurements that need a program of Go's, which not every machine can build."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from e2e.bench.figures import Figure
from e2e.gobuild import GoMissingError

Measure = Callable[[Path], list[Figure]]


def needs_go(measure: Measure) -> Measure:
    """The measurement; without Go one line that says so, and no figures."""

    @wraps(measure)
    def measured(folder: Path) -> list[Figure]:
        try:
            return measure(folder)
        except GoMissingError as error:
            print(f"{measure.__module__}: not measured: {error}", file=sys.stderr, flush=True)
            return []

    return measured
