"""`make bench`: each figure with its limit; a table, and JSON with --json FILE."""

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from e2e.bench import healing, reviews, rules
from e2e.bench.figures import Figure


def main() -> int:
    """Measure everything; 1 if a limit is missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON, too")
    args = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="mirrorstream-bench-") as folder:
        for name, measure in (("mirror rules", rules.measure), ("healing", healing.measure), ("reviews", reviews.measure)):
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            figures += measure(Path(folder))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("FIGURE", "MEASURED", "LIMIT", "BESIDE IT"):
        table.add_column(title)
    for figure in figures:
        style = "" if figure.kept else "red"
        table.add_row(figure.name, f"{figure.value:.3g} {figure.unit}", figure.limit_text, figure.beside, style=style)
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    if args.json:
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        document = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "version": version("mirrorstream"),
            "machine": machine,
            "figures": [figure.document() for figure in figures],
        }
        Path(args.json).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(figure.kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
