"""What a look-up in the mirror rules costs, at 10 rules and at 10,000."""

import time
from pathlib import Path
from typing import Any

from mirrorstream.policy import MirrorPolicy

from e2e.bench.figures import Figure

COUNTS = (10, 100, 1000, 10000)
LOOKUPS = 3000
ROUNDS = 7


def _objects(count: int) -> list[dict[str, Any]]:
    return [
        {
            "kind": "ImageDigestMirrorSet",
            "metadata": {"name": f"set-{number}"},
            "spec": {
                "imageDigestMirrors": [
                    {"source": f"registry{number}.example.com/ns", "mirrors": [f"a.corp/{number}", f"b.corp/{number}"]}
                ]
            },
        }
        for number in range(count)
    ]


def measure(folder: Path) -> list[Figure]:
    """Microseconds for import_candidates, seconds for a rebuild."""
    policies, rebuild = {}, 0.0
    for count in COUNTS:
        objects = _objects(count)
        began = time.perf_counter()
        policies[count] = MirrorPolicy.from_objects(objects)
        rebuild = time.perf_counter() - began
    best = dict.fromkeys(COUNTS, float("inf"))
    # In turns, so that a machine that slows down meanwhile slows all of them; the best round is the least disturbed.
    for _ in range(ROUNDS):
        for count, policy in policies.items():
            began = time.perf_counter()
            for _ in range(LOOKUPS):
                policy.import_candidates("registry5.example.com/ns/app:v1")
            best[count] = min(best[count], (time.perf_counter() - began) / LOOKUPS * 1e6)
    told = ", ".join(f"{count}: {best[count]:.1f} µs" for count in COUNTS)
    return [
        Figure("import_candidates at 10,000 rules", best[10000] / best[10], "times that at 10", 1.5, told),
        Figure("reading 10,000 rules", rebuild, "s", 1.0),
    ]
