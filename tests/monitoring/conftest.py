"""What the tests of monitoring share: what the programs expose, the rules, and promtool where there is one."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess, run
from typing import Any

import pytest
import yaml

from tests.monitoring.exposed import Exposed, Registries, registries

ROOT = Path(__file__).parents[2]
COMPONENT = ROOT / "config" / "components" / "monitoring"
Promtool = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    """Both programs' registries."""
    with registries(tmp_path_factory.mktemp("programs")) as found:
        yield found


@pytest.fixture(scope="session")
def exposed(programs: Registries) -> dict[str, Exposed]:
    """Every metric of ours, by name."""
    return programs.exposed()


@pytest.fixture(scope="session")
def spec() -> dict[str, Any]:
    """The PrometheusRule's spec."""
    found: dict[str, Any] = yaml.safe_load((COMPONENT / "prometheus_rule.yaml").read_text(encoding="utf-8"))["spec"]
    return found


@pytest.fixture(scope="session")
def alerts(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Every alert."""
    return [rule for group in spec["groups"] for rule in group["rules"]]


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """Runs promtool."""
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("there is no promtool: Debian's package prometheus has it")
    return lambda *arguments, text="": run([path, *arguments], input=text, capture_output=True, text=True, check=False)
