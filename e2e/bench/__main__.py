"""`make bench`: each figure with its limit; a table, JSON with --json FILE, and docs/benchmarks.* with --record."""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from e2e.bench import admission, clusters, creation, healing, pods, policy, reviews, rules, scale, start
from e2e.bench.figures import Figure, Measurement, OtherMachineError, document, group, record, shown, write_json

MEASUREMENTS = (
    Measurement("rules", "Mirror rules", "A look-up in the mirror rules, and reading them, without a cluster.", rules.measure),
    Measurement(
        "healing",
        "Healing",
        "From a failed import to a tag that points to the mirror's image, with the configuration as it comes. The mirror is a "
        "small registry in the process that measures.",
        healing.measure,
    ),
    Measurement(
        "start",
        "Start",
        "Both programs on an empty simulated cluster that speaks TLS, with the files of a service account as a pod has them and "
        "with a kubeconfig, for which the kubernetes package is imported, here with kubernetes-validate, which an image does not "
        "have; and commands that a shell waits for.",
        start.measure,
    ),
    Measurement("clusters", "Many clusters", "`mirrorstream status --all-contexts` of simulated clusters.", clusters.measure),
    Measurement(
        "scale",
        "Scale",
        "Both programs on a simulated cluster, a process of its own, with 250 namespaces. Its streams have five imported tags "
        "each, and annotations and managed fields as real ones do, 6.7 kB as JSON; 20 of them have a tag that fails and that no "
        "mirror covers.",
        scale.measure,
    ),
    Measurement(
        "reviews",
        "Reviews of pods",
        "The webhook, against a handler that answers a constant on the same server, in turns; a Go client posts as "
        "kube-apiserver does.",
        reviews.measure,
    ),
    Measurement(
        "pauses",
        "Reviews while rules change",
        "The longest review of a steady stream (four connections, each with at most 250 a second) while one of 10,000 mirror rules "
        "changes and while all are rebuilt, against as long a time without a change, in turns; 100,000 references in the index.",
        reviews.pauses,
    ),
    Measurement(
        "admission",
        "Admission of pods",
        "Four clients create pods on a real control plane, in turns in a namespace whose pods the webhook is asked about and in "
        "one whose are not; 500 streams with 5,000 references. Quantiles are interpolated inside kube-apiserver's buckets, as "
        "Prometheus does.",
        admission.admission,
    ),
    Measurement(
        "creation",
        "Pod creation under load",
        "A Go client creates pods through a real control plane as fast as it can, with so many connections, at each level in five "
        "namespaces in turns: without anything of ours, with our ValidatingAdmissionPolicy alone, with the webhook in one and in "
        "two replicas, and with a webhook that answers a constant patch on the same server, which is what any webhook costs. "
        "5,000 references; every pod is rewritten. The client is an administrator, whose requests kube-apiserver does not queue. "
        "Everything shares the machine's cores.",
        creation.measure,
    ),
    Measurement(
        "policy",
        "MutatingAdmissionPolicy",
        "What the policy of [a design note](design/mutating-admission-policy.md) costs kube-apiserver, beside our webhook.",
        policy.measure,
    ),
    Measurement(
        "pods",
        "Pods on a node",
        "A real node, kubelet and CRI-O, on the control plane; mirrorstream runs on it as pods.",
        pods.on_a_node,
    ),
)


def main() -> int:
    """Measure what is asked for; 1 if a limit is missed."""
    names = [measurement.name for measurement in MEASUREMENTS]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"only some of {', '.join(names)}")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures as JSON, too")
    parser.add_argument("--record", action="store_true", help="write them into docs/benchmarks.json and .md, too")
    args = parser.parse_args()
    if unknown := set(args.groups) - set(names):
        parser.error(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    figures: list[Figure] = []
    groups: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="mirrorstream-bench-") as folder:
        for measurement in MEASUREMENTS:
            if args.groups and measurement.name not in args.groups:
                continue
            print(f"measuring {measurement.name} …", file=sys.stderr, flush=True)
            load = os.getloadavg()[0]
            found = measurement.measure(Path(folder))
            groups.append(group(measurement, found, load))
            figures += found
    _print(figures)
    if args.json:
        write_json(document(groups), args.json)
    if args.record:
        try:
            record(document(groups), names)
        except OtherMachineError as error:
            print(f"make bench: {error}", file=sys.stderr)
            return 1
    return 0 if all(figure.kept for figure in figures) else 1


def _print(figures: list[Figure]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("FIGURE", "MEASURED", "LIMIT", "BESIDE IT"):
        table.add_column(title)
    for figure in figures:
        style = "" if figure.kept else "red"
        table.add_row(figure.name, f"{shown(figure.value)} {figure.unit}", figure.limit_text, figure.beside, style=style)
    Console(width=None if sys.stdout.isatty() else 150).print(table)


if __name__ == "__main__":
    sys.exit(main())
