"""Starting what a run needs once, whatever the number of its processes, and telling each of them."""

import os
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import ClientError

from config.image.debian import BuildError as ImageError
from config.image.debian import image_archive
from e2e.testbed.backends import EXISTING, NODE, PLANES, Choice, Shared, SharedPlane, add_options, choice
from e2e.testbed.controlplane.build import components
from e2e.testbed.faults.reliability import Collector
from e2e.testbed.node import product
from e2e.testbed.node.build import missing, programs
from e2e.testbed.node.node import NodeError
from e2e.testbed.node.slot import NoSlotError
from e2e.testbed.simulator.settings import CONTRACT_PORTS
from e2e.testbed.support.gobuild import BuildError, GoMissingError
from e2e.testbed.support.processes import ProcessError, end_with_parent

TOGETHER = {
    "e2e/contract/test_contract.py": "contract",
    "e2e/scenarios/faults/test_alerts.py": "alerts",
    "e2e/scenarios/test_disturbances.py": "disturbances",
    "e2e/scenarios/test_certificates.py": "installations",
    "e2e/scenarios/test_hosted.py": "disturbances",
    "e2e/scenarios/test_installation.py": "installations",
    "e2e/scenarios/test_references_policy.py": "references policy",
    "e2e/scenarios/node/test_overlays.py": "installations on a node",
    "e2e/scenarios/node/test_certificates.py": "installations on a node",
    "e2e/scenarios/node/test_documents.py": "installations on a node",
    "e2e/scenarios/node/test_hosted.py": "installations on a node",
    "e2e/selftest/test_node.py": "installations on a node",
}
"""Modules whose tests share something that is costly to make, or that start a control plane of their own: those of a group run one
after the other, so that a machine with few cores does not start them all at once."""
ON_THE_NODE = "e2e/scenarios/node/"
"""All other modules there run one after the other: some have the internal registry go, for everybody on the run's cluster."""
CHOICE = pytest.StashKey[Choice]()
SKIP = pytest.StashKey[str]()
SHARED = pytest.StashKey[Shared]()
PLANE = pytest.StashKey[SharedPlane]()
LEFT = pytest.StashKey[str]()
REQUIRED = "MIRRORSTREAM_REQUIRE_NODE"
"""Set where a node must be had: tests that need one fail the run there rather than be skipped."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--backend`, `--openshift-bin`, `--kubeconfig`, `--reliability`."""
    add_options(parser)
    told = "write what the tests of faults saw as JSON, for python -m e2e.testbed.faults.reliability"
    parser.getgroup("mirrorstream").addoption("--reliability", metavar="FILE", type=Path, help=told)


def pytest_configure(config: pytest.Config) -> None:
    """Collect what tests of faults saw, and leave a defect of CPython's ssl module out of what counts as an error.

    A peer that resets a connection before the handshake, as a program does that ends while it is probed, has `wrap_socket` raise
    and leave its socket to the garbage collector. Only such a socket has a local address and no remote one.
    """
    if config.option.reliability and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(config.option.reliability, choice(config).backend))
    leaked = r"Exception ignored in. <ssl\.SSLSocket fd=\d+, family=2, type=1, proto=6, laddr=\('127\.0\.0\.1', \d+\)>"
    config.addinivalue_line("filterwarnings", f"ignore:{leaked}:pytest.PytestUnraisableExceptionWarning")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """In the process that the others belong to: choose, build and, if there are others, start."""
    config = session.config
    if hasattr(config, "workerinput"):
        _take_over(config)
        return
    config.stash[CHOICE] = chosen = choice(config)
    if config.option.collectonly:
        return
    if chosen.kubeconfig:
        path = str(chosen.kubeconfig)
        config.stash[SHARED] = Shared(EXISTING, path, path, path, ports=dict.fromkeys(_workers(config), CONTRACT_PORTS))
        if len(_workers(config)) > 1:
            raise pytest.UsageError("--kubeconfig: the cluster knows the registries of one process only; use -n 0")
    elif chosen.backend in PLANES:
        if reason := _build(chosen):
            config.stash[SKIP] = reason
        elif _workers(config) != ["master"]:
            _start_shared(config)


def _build(chosen: Choice) -> str:
    """Build what the back end needs; why this machine cannot have it, empty if it can. Ends the run when a build fails."""
    reason = (missing() or product.missing()) if chosen.backend == NODE else ""
    try:
        if not reason:
            components()
            if chosen.backend == NODE:
                programs()
                image_archive()
    except GoMissingError as error:
        reason = str(error)
    except (BuildError, ImageError) as error:
        pytest.exit(str(error), returncode=1)
    if reason and chosen.backend == NODE and os.environ.get(REQUIRED):
        pytest.exit(f"{reason}; {REQUIRED} is set, so this is an error", returncode=1)
    return reason


def _start_shared(config: pytest.Config) -> None:
    folder = config._tmp_path_factory.mktemp("cluster")  # type: ignore[attr-defined]  # noqa: SLF001  the fixture's own way
    try:
        plane = SharedPlane(Path(folder), config.stash[CHOICE], _workers(config))
    except (ProcessError, ClientError, NoSlotError) as error:
        pytest.exit(str(error), returncode=1)
    config.stash[PLANE], config.stash[SHARED] = plane, plane.shared


def _workers(config: pytest.Config) -> list[str]:
    number = getattr(config.option, "numprocesses", None) or 0
    return [f"gw{index}" for index in range(number)] or ["master"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a few modules in one process, spread all others one by one.

    pytest-xdist 3.8's own `--dist loadgroup` has no effect with pytest 9.
    """
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415  this hook is only called where there is such a thing

    class ByModule(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return TOGETHER.get(module, ON_THE_NODE if module.startswith(ON_THE_NODE) else nodeid)

    return ByModule(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker (pytest-xdist) what there is."""
    stash = node.config.stash
    node.workerinput["mirrorstream_shared"] = stash[SHARED].dumps() if SHARED in stash else ""
    node.workerinput["mirrorstream_skip"] = stash.get(SKIP, "")


def _take_over(config: Any) -> None:
    end_with_parent()  # a worker would finish its test first, when its parent is killed
    config.stash[CHOICE] = choice(config)
    if text := config.workerinput["mirrorstream_shared"]:
        config.stash[SHARED] = Shared.loads(text)
    if reason := config.workerinput["mirrorstream_skip"]:
        config.stash[SKIP] = reason


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop what was started. Whatever is left of it, what the tests said is still shown."""
    if plane := session.config.stash.get(PLANE, None):
        try:
            plane.stop()
        except NodeError as error:
            session.config.stash[LEFT] = str(error)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what the node has left behind, why nothing ran on the control plane, and which registry was the mirror."""
    if left := config.stash.get(LEFT, ""):
        terminalreporter.write_line(left, red=True, bold=True)
    if reason := config.stash.get(SKIP, ""):
        terminalreporter.write_line(f"NOT RUN on the back end {config.stash[CHOICE].backend}: {reason}", yellow=True, bold=True)
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    mirrors = {value for report in reports for name, value in report.user_properties if name == "mirror"}
    if mirrors:
        terminalreporter.write_line(f"mirrors with TLS and a password: {', '.join(sorted(mirrors))}")


@pytest.fixture(scope="session")
def chosen(request: pytest.FixtureRequest) -> Choice:
    """The back end that the command line chose."""
    return request.config.stash[CHOICE]


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest) -> None:
    """For what starts a control plane of its own: skips, with the reason, where there can be none."""
    if reason := request.config.stash.get(SKIP, ""):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest, built: None) -> Shared | None:
    """The cluster that this run's processes share; None on the simulator, of which each process has one."""
    config = request.config
    if config.stash[CHOICE].backend in PLANES and SHARED not in config.stash:
        _start_shared(config)  # this is the only process, and only now it is known that a test needs it
    return config.stash.get(SHARED, None)
