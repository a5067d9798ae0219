"""Figures as JSON, with the machine and the versions that they belong to, and the page that is made of it.

`python -m e2e.bench.record` makes docs/benchmarks.md anew of docs/benchmarks.json.
"""

import datetime
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from e2e.bench.figures import Figure, Measurement

Object = dict[str, Any]
PROJECT = Path(__file__).parents[2]
JSON, PAGE = PROJECT / "docs" / "benchmarks.json", PROJECT / "docs" / "benchmarks.md"
COMPONENTS = {"kube-apiserver": "k8s.io/kubernetes", "etcd": "go.etcd.io/etcd/server/v3"}
"""What the control plane is built of, by the Go module that has its version."""


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
    modules = (PROJECT / "e2e" / "controlplane" / "go.mod").read_text(encoding="utf-8")
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
        "<!-- Made of benchmarks.json by e2e/bench/record.py; `make bench RECORD=1` writes both. -->",
        "# Benchmarks",
        "",
        "What `make bench` measured, each figure beside its limit, if it has one, and beside what else was seen in the same run. A",
        "limit that is missed makes `make bench` fail.",
        "",
        f"- Machine: {host['processor']}, {host['cores']} cores, {host['memoryGB']} GB of memory, {host['kernel']}, "
        f"{host['architecture']}. Everything runs on it together: the programs, the cluster, the mirror and whoever measures.",
        f"- Versions: {named}.",
        f"- Limits missed: {', '.join(missed) or 'none'}.",
        "",
        "To repeat it on a machine that does nothing else (the control plane needs Go, and is built on first use):",
        "",
        "    make bench                        # the table; JSON=FILE writes the figures, too",
        '    make bench ONLY="scale healing"   # some groups',
        "    make bench RECORD=1               # and writes this page, and the file it is made of",
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
