"""How much work a review and a reconcile are, against the counts that are kept beside the code."""

import subprocess
import sys
from pathlib import Path

import pytest

from e2e.bench.counts import Measured, differences, known, minor

PROJECT = Path(__file__).parents[2]


def test_a_review_and_a_reconcile_are_as_much_work_as_before() -> None:
    """A change that costs a tenth more fails here, on a busy machine too; the new counts are then recorded on purpose."""
    if minor() not in known():
        pytest.skip(f"e2e/bench/counts.json has nothing for Python {minor()}: `python -m e2e.bench.counts --write` adds it")
    # In a process of its own: a tracer (a debugger, coverage) would be counted, too.
    command = [sys.executable, "-m", "e2e.bench.counts"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{done.stderr}if that is meant: python -m e2e.bench.counts --write"


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
