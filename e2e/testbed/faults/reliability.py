"""The table of faults: what was injected, what must hold, and what was seen.

Each test with the marker `fault(subject, fault, promise)` is a case of a row; `make soak` has pytest collect them with
`--reliability FILE` and writes docs/reliability.md and docs/reliability.json of them:

    python -m e2e.testbed.faults.reliability [FILE…]      without files: docs/reliability.md again from docs/reliability.json
"""

import datetime
import json
import os
import platform
import random
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[3] / "docs"
PROPERTY = "fault"
SOAK = os.environ.get("MIRRORSTREAM_SOAK") == "1"
"""Whether tests inject as often and for as long as the table promises; otherwise less, for every run of the suite."""


def often(soak: int, bounded: int) -> int:
    """How often, or for how many seconds: the first number with MIRRORSTREAM_SOAK=1, the second otherwise."""
    return soak if SOAK else bounded


def chance() -> random.Random:
    """What a test decides by chance with; its seed is printed, and MIRRORSTREAM_SEED repeats it."""
    seed = int(os.environ.get("MIRRORSTREAM_SEED") or random.randrange(1_000_000))
    print(f"MIRRORSTREAM_SEED={seed}")
    return random.Random(seed)


@dataclass
class Case:
    """One test: the row that it belongs to, what it saw (`{"handover": "0.4 s"}`) and how it ended."""

    subject: str
    fault: str
    promise: str
    test: str
    outcome: str
    seconds: float
    saw: dict[str, str] = field(default_factory=dict)


def run(backend: str, cases: Iterable[Case]) -> dict[str, Any]:
    """A run of the faults on a back end, as JSON."""
    return {
        "backend": backend,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": version("mirrorstream"),
        "machine": {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()},
        "soak": SOAK,
        "cases": [asdict(case) for case in cases],
    }


class Collector:
    """A plugin of pytest that writes the cases of a run, each as it ends: a run that is cut off has told something, too."""

    def __init__(self, file: Path, backend: str) -> None:
        self._file, self._backend = file, backend
        self._cases: dict[str, Case] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take over what a test's process says of it."""
        for name, value in report.user_properties:
            if name == PROPERTY:
                # What is checked after a test tells the last: it was called then, and has passed.
                self._cases[report.nodeid] = Case(**json.loads(str(value)))
                cases = [self._cases[test] for test in sorted(self._cases)]
                self._file.write_text(json.dumps(run(self._backend, cases), indent=1) + "\n", encoding="utf-8")


_BACKENDS = {
    "simulator": "the simulator",
    "controlplane": "a real control plane (etcd, kube-apiserver, kube-controller-manager)",
    "openshift": "OpenShift's own API server on a real control plane",
    "kubeconfig": "an existing cluster",
}
_HEAD = """# Faults

Each row has a fault that tests inject, what must still hold, and what the last run saw. `make soak` repeats all of it and
writes this page; `make faults` runs the same tests with smaller numbers in every run of the continuous integration. A case is
one test function with one set of parameters; the code is in `e2e/scenarios/faults/`.
"""


def document(runs: list[dict[str, Any]]) -> str:
    """docs/reliability.md of docs/reliability.json."""
    parts = [_HEAD]
    for one in runs:
        machine = one["machine"]
        numbers = "the full numbers" if one["soak"] else "the smaller numbers"
        parts.append(f"""## On {_BACKENDS[one["backend"]]}

{one["date"]}, mirrorstream {one["version"]}, Python {machine["python"]}, {machine["cores"]} cores, {numbers}.
""")
        rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for case in one["cases"]:
            rows.setdefault((case["subject"], case["fault"], case["promise"]), []).append(case)
        for subject in dict.fromkeys(subject for subject, _, _ in rows):
            parts.append(f"### {subject}\n\n| Fault | What must hold | Cases | Seen |\n|---|---|---|---|")
            parts += [_row(fault, promise, cases) for (of, fault, promise), cases in rows.items() if of == subject]
            parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _row(fault: str, promise: str, cases: list[dict[str, Any]]) -> str:
    outcomes = [case["outcome"] for case in cases]
    told = ", ".join(f"{outcomes.count(name)} {name}" for name in ("passed", "failed", "skipped") if name in outcomes)
    seen = []
    for case in cases:
        which = case["test"].partition("[")[2].rstrip("]")
        text = "; ".join(f"{name}: {value}" for name, value in case["saw"].items())
        seen += [f"{which}: {text}" if which and len(cases) > 1 else text] if text else []
    return f"| {_cell(fault)} | {_cell(promise)} | {told} | {_cell('<br>'.join(seen))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def combined(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One run for each back end: of a case that several runs have the last counts, as do their date and machine."""
    found: dict[str, dict[str, Any]] = {}
    for one in runs:
        before = found.get(one["backend"], one)["cases"]
        cases = {case["test"]: case for case in (*before, *one["cases"])}
        found[one["backend"]] = {**one, "cases": [cases[test] for test in sorted(cases)]}
    return list(found.values())


def main(files: list[str]) -> int:
    """Write both documents; 1 if a case of them failed."""
    target = DOCS / "reliability.json"
    if files:
        runs = combined(json.loads(Path(file).read_text(encoding="utf-8")) for file in files)
        target.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    runs = json.loads(target.read_text(encoding="utf-8"))
    (DOCS / "reliability.md").write_text(document(runs), encoding="utf-8")
    failed = [case["test"] for one in runs for case in one["cases"] if case["outcome"] == "failed"]
    for test in failed:
        print(f"failed: {test}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
