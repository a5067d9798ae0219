"""The simulator answers what the real image.openshift.io API answered, recording by recording.

Scenarios mostly wait for the importer to settle, so they run side by side, each on a cluster with registries of its own: they all
call their image `team/app:v1`. Another server, which must have the settings of `--contract`, is checked with
MIRRORSTREAM_CONTRACT_URL, one scenario after another.
"""

import concurrent.futures
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.contract.registries import Registries
from e2e.contract.replay import PlainServer, replay
from e2e.simulator.settings import CONTRACT_PORTS, ImporterSettings, contract_settings
from e2e.simulator.simulator import Simulator

RECORDINGS = Path(__file__).parents[2] / "tests" / "data" / "openshift-recordings.jsonl"
SCENARIOS = [json.loads(line) for line in RECORDINGS.read_text(encoding="utf-8").splitlines()]
SIDE_BY_SIDE = 16
Outcome = concurrent.futures.Future[list[str]]


def _on_a_cluster_of_its_own(scenario: dict[str, Any]) -> list[str]:
    with Registries() as registries:
        settings = dataclasses.replace(contract_settings(registries.hosts), importer=ImporterSettings(workers=2))
        with Simulator(settings) as simulator:
            return [str(mismatch) for mismatch in replay(PlainServer(simulator.url), registries, scenario)]


def _on(url: str, scenario: dict[str, Any]) -> list[str]:
    with Registries(CONTRACT_PORTS) as registries:
        return [str(mismatch) for mismatch in replay(PlainServer(url), registries, scenario)]


def _seconds(scenario: dict[str, Any]) -> float:
    return float(sum(step.get("pause", 0) + step.get("seconds", 0) + 2 for step in scenario["steps"]))


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, Outcome]]:
    """Every scenario's mismatches, as they become known; the longest begin first."""
    url = os.environ.get("MIRRORSTREAM_CONTRACT_URL")
    with concurrent.futures.ThreadPoolExecutor(1 if url else SIDE_BY_SIDE) as pool:
        yield {
            row["id"]: pool.submit(_on, url, row) if url else pool.submit(_on_a_cluster_of_its_own, row)
            for row in sorted(SCENARIOS, key=_seconds, reverse=True)
        }


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["id"])
def test_answers_as_the_real_api_did(scenario: dict[str, Any], outcomes: dict[str, "concurrent.futures.Future[list[str]]"]) -> None:
    """Whoever relies on the simulator relies on the recorded behaviour of the platform."""
    mismatches = outcomes[scenario["id"]].result()
    assert not mismatches, f"{scenario['why']}:\n" + "\n".join(mismatches)
