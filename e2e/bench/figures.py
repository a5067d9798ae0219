"""A measured figure, its limit and what stood beside it; figures as JSON, and the page that is made of it.

`python -m e2e.bench.figures` writes docs/benchmarks.md from docs/benchmarks.json.
"""

import datetime
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

from e2e.testbed.support.gobuild import GoMissingError

Object = dict[str, Any]
PROJECT = Path(__file__).parents[2]
JSON, PAGE = PROJECT / "docs" / "benchmarks.json", PROJECT / "docs" / "benchmarks.md"
COMPONENTS = {"kube-apiserver": "k8s.io/kubernetes", "etcd": "go.etcd.io/etcd/server/v3"}
"""What the control plane is built of, by the Go module that has its version."""


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


Measure = Callable[[Path], list[Figure]]


@dataclass(frozen=True)
class Measurement:
    """A group of figures; `about` says what they are about and how they are measured, in a sentence or two."""

    name: str
    title: str
    about: str
    measure: Measure


def not_measured(what: str, why: object) -> list[Figure]:
    """No figures, and one line that gives the reason."""
    print(f"{what}: not measured: {why}", file=sys.stderr, flush=True)
    return []


def needs_go(measure: Measure) -> Measure:
    """The measurement, for which programs are built with Go; without Go there are no figures."""

    @wraps(measure)
    def measured(folder: Path) -> list[Figure]:
        try:
            return measure(folder)
        except GoMissingError as error:
            return not_measured(measure.__qualname__, error)

    return measured


class OtherMachineError(Exception):
    """Some groups alone cannot be recorded beside those of another machine or version."""


def machine() -> Object:
    """What this machine is, without its name."""
    return {
        "cores": os.cpu_count(),
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "architecture": platform.machine(),
        "memoryGB": round(int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) * 1024 / 1e9),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
    }


def versions() -> Object:
    """What was measured, and on what it ran."""
    modules = (PROJECT / "e2e" / "testbed" / "controlplane" / "go.mod").read_text(encoding="utf-8")
    found = {name: re.search(rf"^\s*{re.escape(module)} (v\S+)", modules, re.MULTILINE) for name, module in COMPONENTS.items()}
    built = {name: match[1] for name, match in found.items() if match}
    return {"mirrorstream": version("mirrorstream"), "Python": platform.python_version(), **built}


def _field(path: str, name: str) -> str | None:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
    return match[1] if match else None


def group(measurement: Measurement, figures: Sequence[Figure], load: float) -> Object:
    """A group that was measured now; `load` is the load average of the minute before."""
    return {
        "name": measurement.name,
        "title": measurement.title,
        "about": measurement.about,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "loadBefore": round(load, 2),
        "figures": [figure.document() for figure in figures],
    }


def document(groups: Sequence[Object]) -> Object:
    """What was measured, as it is kept."""
    return {"versions": versions(), "machine": machine(), "groups": list(groups)}


def merged(new: Object, old: Object | None, order: Sequence[str]) -> Object:
    """`new` with the groups of `old` that it lacks, in `order`. Raises OtherMachineError."""
    groups = {each["name"]: each for each in new["groups"]}
    kept = {
        each["name"]: each for each in (old or {"groups": []})["groups"] if each["name"] not in groups and each["name"] in order
    }
    if old and kept and any(old[key] != new[key] for key in ("versions", "machine")):
        raise OtherMachineError(f"{', '.join(kept)}: recorded on another machine, or of another version: record all groups")
    every = {**kept, **groups}
    return {**new, "groups": [every[name] for name in order if name in every]}


def record(new: Object, order: Sequence[str]) -> None:
    """Write JSON and page. Raises OtherMachineError."""
    old = json.loads(JSON.read_text(encoding="utf-8")) if JSON.exists() else None
    whole = merged(new, old, order)
    write_json(whole, JSON)
    PAGE.write_text(page(whole), encoding="utf-8")


def write_json(recorded: Object, path: Path) -> None:
    """Write a document for people who read differences."""
    path.write_text(json.dumps(recorded, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def page(recorded: Object) -> str:
    """The page of a document."""
    host = recorded["machine"]
    named = ", ".join(f"{name} {number}" for name, number in recorded["versions"].items())
    missed = [figure["name"] for each in recorded["groups"] for figure in each["figures"] if not figure["kept"]]
    lines = [
        "<!-- Made of benchmarks.json by e2e/bench/figures.py; `make bench RECORD=1` writes both. -->",
        "# Benchmarks",
        "",
        "The figures of `make bench`, each with its limit, if it has one, and with other figures of the same run. `make bench`",
        "fails if a limit is missed.",
        "",
        f"- Machine: {host['processor']}, {host['cores']} cores, {host['memoryGB']} GB of memory, {host['kernel']}, "
        f"{host['architecture']}. It runs everything: the programs, the cluster, the mirror and the benchmark.",
        f"- Versions: {named}.",
        f"- Limits missed: {', '.join(missed) or 'none'}.",
        "",
        "To repeat it on an idle machine (the control plane needs Go and is built on first use):",
        "",
        "    make bench                        # prints the table; JSON=FILE also writes the figures",
        '    make bench ONLY="scale healing"   # some groups',
        "    make bench RECORD=1               # also writes this page and its JSON file",
        "",
    ]
    for each in recorded["groups"]:
        lines += _group(each)
    return "\n".join(lines)


def _group(each: Mapping[str, Any]) -> list[str]:
    day = datetime.datetime.fromisoformat(each["date"])
    lines = [
        f"## {each['title']}",
        "",
        f"{each['about']} Measured on {day:%Y-%m-%d} at {day:%H:%M} UTC, load average before it {each['loadBefore']:g}; "
        f"`ONLY={each['name']}`.",
        "",
        "| figure | measured | limit | beside it |",
        "|---|---|---|---|",
    ]
    for figure in each["figures"]:
        value = f"{shown(figure['value'])} {figure['unit']}"
        measured = value if figure["kept"] else f"**{value}, missed**"
        limit = "" if figure["limit"] is None else f"{figure['limit']:g} {figure['unit']}"
        lines.append(
            "| " + " | ".join(text.replace("|", r"\|") for text in (figure["name"], measured, limit, figure["beside"])) + " |"
        )
    lines.append("")
    hows: dict[str, list[str]] = {}
    for figure in each["figures"]:
        if figure["how"]:
            hows.setdefault(figure["how"], []).append(figure["name"])
    lines += [f"- *{'; '.join(names)}*: {how}" for how, names in hows.items()]
    return [*lines, ""] if hows else lines


def shown(value: float) -> str:
    """Three digits that count, and all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(JSON.read_text(encoding="utf-8"))), encoding="utf-8")
