"""How the simulator imports several images of one request: one after another, three at once, and then two a second."""

from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import load_client

from e2e.testbed.registries.registry import Registry
from e2e.testbed.simulator.images import imports
from e2e.testbed.simulator.images.pace import Pace
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.simulator import Simulator

Object = dict[str, Any]


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.now += seconds


def test_three_images_go_at_once_and_then_two_a_second() -> None:
    """The bucket fills while an import runs."""
    clock = Clock()
    pace, waited = Pace(2, clock=lambda: clock.now, sleep=clock.sleep), []
    for _ in range(6):
        before = clock.now
        pace.wait()
        waited.append(clock.now - before)
    assert waited == [0, 0, 0, 0.5, 0.5, 0.5]
    clock.sleep(0.5)
    before = clock.now
    pace.wait()
    assert clock.now == before


def test_each_request_has_a_pace_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image counts, also one that fails; one that is named twice is fetched once."""
    paces: list[list[int]] = []

    class Counting:
        def __init__(self, per_second: float) -> None:
            self.count = [0]
            paces.append(self.count)

        def wait(self) -> None:
            self.count[0] += 1

    monkeypatch.setattr(imports, "Pace", Counting)
    with Registry() as registry, Simulator(Settings({"registrySources": {"insecureRegistries": [registry.host]}})) as simulator:
        registry.put("app", "v1")
        registry.put("app", "v2")
        path = simulator.write_kubeconfig(tmp_path / "kubeconfig")
        client = load_client(str(path), in_cluster=False, user_agent="test")

        def ask(*tags: str) -> list[str]:
            images = [
                {"from": {"kind": "DockerImage", "name": f"{registry.host}/app:{tag}"}, "to": {"name": f"to-{number}"}}
                for number, tag in enumerate(tags)
            ]
            body = {"metadata": {"name": "app"}, "spec": {"import": False, "images": images}}
            answer = client.request("POST", "/apis/image.openshift.io/v1/namespaces/ns/imagestreamimports", body=body)
            return [image["status"]["status"] for image in answer["status"]["images"]]

        assert ask("v1", "missing", "v2", "v1") == ["Success", "Failure", "Success", "Success"]
        assert ask("v1") == ["Success"]
    assert paces == [[3], [1]]
