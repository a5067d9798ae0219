"""What a look-up in the mirror rules costs, at 10 rules and at 10,000."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_reference

from e2e.bench.figures import Figure

COUNTS = (10, 100, 1000, 10000)
LOOKUPS = 3000
ROUNDS = 7

Ask = Callable[[str], object]
QUESTIONS: dict[str, Callable[[MirrorPolicy], Ask]] = {
    "import_candidates": lambda policy: policy.import_candidates,
    "pull_sources": lambda policy: policy.pull_sources,
    "is_mirrored": lambda policy: lambda reference: policy.resolve(parse_reference(reference)).is_mirrored,
}
"""What the controller asks, what a node does, and what the webhook asks about an image that it has not been asked about before."""


def mirror_sets(count: int) -> list[dict[str, Any]]:
    """Mirror sets with a rule each."""
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
    """How much dearer a look-up is with many rules, and seconds for reading them."""
    policies, rebuild = {}, 0.0
    for count in COUNTS:
        objects = mirror_sets(count)
        began = time.perf_counter()
        policies[count] = MirrorPolicy.from_objects(objects)
        rebuild = time.perf_counter() - began
    return [*(_look_ups(policies, question) for question in QUESTIONS), Figure("reading 10,000 rules", rebuild, "s", 1.0)]


def _look_ups(policies: dict[int, MirrorPolicy], question: str) -> Figure:
    best = dict.fromkeys(COUNTS, float("inf"))
    # In turns, so that a machine that slows down during the run slows all of them; the best round is the least disturbed.
    for _ in range(ROUNDS):
        for count, policy in policies.items():
            ask = QUESTIONS[question](policy)
            began = time.perf_counter()
            for _ in range(LOOKUPS):
                ask("registry5.example.com/ns/app:v1")
            best[count] = min(best[count], (time.perf_counter() - began) / LOOKUPS * 1e6)
    told = ", ".join(f"{count}: {best[count]:.1f} µs" for count in COUNTS)
    return Figure(f"{question} at 10,000 rules", best[10000] / best[10], "times that at 10", 1.5, told)
