"""The table of what mirrorstream survives is made of what tests saw."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.testbed.documents import PROJECT
from e2e.testbed.faults import reliability
from e2e.testbed.faults.reliability import Case, combined, document, main, run

CASES = [
    Case("Watch", "dropped", "nothing is missed", "test_watches.py::test_dropped[streams]", "passed", 6.2, {"requests": "7"}),
    Case("Watch", "dropped", "nothing is missed", "test_watches.py::test_dropped[rules]", "skipped", 0.0),
    Case("Mirrors", "a | dead one", "the next", "test_mirrors.py::test_dead", "passed", 2.0, {"wait": "1 s", "tries": "2"}),
]


def test_cases_of_one_row_are_told_together() -> None:
    """A reader sees how many there were, and which of them saw what."""
    text = document([run("simulator", CASES)])
    assert "| dropped | nothing is missed | 1 passed, 1 skipped | streams: requests: 7 |" in text
    assert "| a \\| dead one | the next | 1 passed | wait: 1 s; tries: 2 |" in text
    assert text.index("### Watch") < text.index("### Mirrors")


def test_a_failed_case_is_told_and_fails_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make soak` writes the page even so: it says what failed."""
    monkeypatch.setattr(reliability, "DOCS", tmp_path)
    failed = Case("Watch", "silent", "it is noticed", "test_watches.py::test_silent", "failed", 1.0)
    file = tmp_path / "run.json"
    file.write_text(json.dumps(run("controlplane", [*CASES, failed])), encoding="utf-8")
    assert main([str(file)]) == 1
    assert "| silent | it is noticed | 1 failed |" in (tmp_path / "reliability.md").read_text(encoding="utf-8")
    assert main([]) == 1, "from its own JSON, too"


def test_runs_on_one_back_end_are_one() -> None:
    """Storms run alone; a case that was repeated is told as it went last."""
    again = dataclasses.replace(CASES[0], outcome="failed")
    one, other = combined([run("simulator", CASES), run("controlplane", CASES), run("simulator", [again])])
    assert [one["backend"], other["backend"]] == ["simulator", "controlplane"]
    assert {case["test"]: case["outcome"] for case in one["cases"]} == {
        **{case.test: case.outcome for case in CASES},
        again.test: "failed",
    }


def test_the_page_is_made_of_its_json() -> None:
    """Nobody edits figures by hand."""
    runs = json.loads((PROJECT / "docs" / "reliability.json").read_text(encoding="utf-8"))
    page = (PROJECT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert page == document(runs), "run `python -m e2e.testbed.faults.reliability`"


def test_what_tests_saw_reaches_the_file(tmp_path: Path) -> None:
    """Through the workers' processes: one fault on the simulator."""
    file = tmp_path / "run.json"
    where = "e2e/scenarios/faults/test_interceptor.py::test_a_stream_heals_through_it"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", where, "--reliability", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (case,) = json.loads(file.read_text(encoding="utf-8"))["cases"]
    assert (case["test"], case["outcome"]) == (where, "passed")
    assert case["saw"] == {"requests": case["saw"]["requests"]}
