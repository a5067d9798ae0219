"""How much work a review and a reconcile are, against the counts that are kept beside the code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.bench.work import Measured, differences, known, minor

PROJECT = Path(__file__).parents[2]


def test_a_review_and_a_reconcile_are_as_much_work_as_before() -> None:
    """Whoever makes them dearer by a tenth, on however busy a machine, is told here, and writes the new counts down on purpose."""
    kept = known().get(minor())
    if kept is None:
        pytest.skip(f"e2e/bench/work.json has no counts for Python {minor()}: `python -m e2e.bench.work --write` adds them")
    # In a process of its own: whoever traces the tests (a debugger, coverage) would be counted, too.
    command = [sys.executable, "-m", "e2e.bench.work", "--json"]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found: Measured = json.loads(done.stdout)
    changed = differences(kept, found)
    assert not changed, "\n".join([*changed, "if that is meant: python -m e2e.bench.work --write"])


@pytest.mark.parametrize(
    ("now", "told"),
    [
        pytest.param({"review": {"instructions": 109, "bytes": 1000}}, [], id="within a tenth"),
        pytest.param(
            {"review": {"instructions": 111, "bytes": 1000}},
            ["review: 111 instructions, 100 in the file (+11%)"],
            id="more",
        ),
        pytest.param({"review": {"instructions": 100, "bytes": 800}}, ["review: 800 bytes, 1,000 in the file (-20%)"], id="less"),
        pytest.param({}, ["review: only in one of both"], id="gone"),
    ],
)
def test_what_counts_as_a_difference(now: Measured, told: list[str]) -> None:
    """Less is to be written down as well, or the next who makes it dearer would have that much to waste."""
    assert differences({"review": {"instructions": 100, "bytes": 1000}}, now) == told
