"""The image API answers what the real one answered, recording by recording: the simulator, or any other cluster.

Scenarios mostly wait for the importer to settle, so they run side by side: on simulators of their own, or on one control plane in
lanes, each with registries of its own, since all scenarios call their image `team/app:v1`. A cluster that exists knows the
registries of one lane.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.credentials import find_credentials
from mirrorstream.kube.rest_config import RestConfig

from e2e.contract.replay import Server, replay
from e2e.testbed.backends import EXISTING, SIMULATOR, Choice
from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.plane import ControlPlane
from e2e.testbed.registries.recorded import Registries
from e2e.testbed.simulator.settings import CONTRACT_PORTS, ImporterSettings, contract_settings
from e2e.testbed.simulator.simulator import Simulator

RECORDINGS = Path(__file__).parents[2] / "tests" / "data" / "openshift-recordings.jsonl"
SCENARIOS = [json.loads(line) for line in RECORDINGS.read_text(encoding="utf-8").splitlines()]
SIDE_BY_SIDE, LANES = 16, 10
Run = Callable[[dict[str, Any]], list[str]]
Outcome = concurrent.futures.Future[list[str]]


def _on_a_simulator_of_its_own(scenario: dict[str, Any]) -> list[str]:
    with Registries() as registries:
        settings = dataclasses.replace(contract_settings(registries.hosts), importer=ImporterSettings(workers=2))
        with Simulator(settings) as simulator:
            # No kubeconfig: who reads one reads the environment, and pytest writes to that with each test.
            return [str(mismatch) for mismatch in replay(Server(RestConfig(simulator.url)), registries, scenario)]


def _on(kubeconfig: Path, lanes: list[Registries]) -> Run:
    server = Server(find_credentials(str(kubeconfig), None, in_cluster=False)())
    free: queue.SimpleQueue[Registries] = queue.SimpleQueue()
    for lane in lanes:
        free.put(lane)

    def run(scenario: dict[str, Any]) -> list[str]:
        registries = free.get()
        registries.clear()
        try:
            return [str(mismatch) for mismatch in replay(server, registries, scenario)]
        finally:
            free.put(registries)

    return run


def _seconds(scenario: dict[str, Any]) -> float:
    return float(sum(step.get("pause", 0) + step.get("seconds", 0) + 2 for step in scenario["steps"]))


@pytest.fixture(scope="module")
def outcomes(chosen: Choice, built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Every scenario's mismatches, as they become known; the longest begin first."""
    folder = tmp_path_factory.mktemp("contract")
    with contextlib.ExitStack() as stack:
        if chosen.backend == SIMULATOR:
            run: Run = _on_a_simulator_of_its_own
            width = SIDE_BY_SIDE
        elif chosen.backend == EXISTING:
            assert chosen.kubeconfig
            run, width = _on(chosen.kubeconfig, [stack.enter_context(Registries(CONTRACT_PORTS))]), 1
        else:
            lanes = [stack.enter_context(Registries()) for _ in range(LANES)]
            settings = contract_settings(*(lane.hosts for lane in lanes))
            plane = ControlPlane(folder / "plane", components(), settings, openshift_programs=chosen.openshift_programs)
            run, width = _on(stack.enter_context(plane).kubeconfig, lanes), LANES
        with concurrent.futures.ThreadPoolExecutor(width) as pool:
            yield {row["id"]: pool.submit(run, row) for row in sorted(SCENARIOS, key=_seconds, reverse=True)}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["id"])
def test_answers_as_the_real_api_did(scenario: dict[str, Any], outcomes: dict[str, Outcome]) -> None:
    """A test on the simulator is as good as the simulator's answers: they are the platform's recorded ones."""
    mismatches = outcomes[scenario["id"]].result()
    assert not mismatches, f"{scenario['why']}:\n" + "\n".join(mismatches)
