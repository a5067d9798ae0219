"""What scenarios on a node need."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.testbed.backends import NODE, Choice
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.definitions import definitions
from e2e.testbed.controlplane.plane import define
from e2e.testbed.node.product import Product, overlay_of, push
from e2e.testbed.node.view import NodeView
from e2e.testbed.programs.installed import Bed, new_bed
from e2e.testbed.programs.issuers import ServiceCA
from e2e.testbed.support.gobuild import alone

OVERLAY = "single-node"
"""What an administrator of a cluster with one node installs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the first test with a fixture that installs mirrorstream take as long as that takes on a busy machine."""
    for item in items:
        if {"product", "digest"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(autouse=True)
def node(cluster: Cluster) -> NodeView:
    """The run's node; without one the scenario is skipped."""
    if cluster.node is None:
        pytest.skip("needs a node: --backend node")
    return cluster.node


@pytest.fixture(scope="session")
def product(cluster: Cluster) -> Product:
    """Pods of mirrorstream on the run's node, with its shipped defaults. The first process that asks installs them, for all."""
    if cluster.node is None:
        pytest.skip("needs a node: --backend node")
    folder = cluster.kubeconfig.parent / "product"
    folder.mkdir(exist_ok=True)
    outcome = folder / "outcome"
    with alone(folder / "lock"):
        if not outcome.exists():
            try:
                digest = push(cluster.node.registry, Path(cluster.node.authority), folder)
                found = _product(cluster, overlay_of(folder / "overlay", OVERLAY, cluster.node, digest), folder)
                define(cluster.client, definitions())
                found.install(ServiceCA(cluster.client, folder).issue)
            except BaseException as error:
                outcome.write_text(str(error) or repr(error), encoding="utf-8")
                raise
            outcome.touch()
    if problem := outcome.read_text(encoding="utf-8"):
        pytest.fail(problem)
    return _product(cluster, folder / "overlay", folder)


def _product(cluster: Cluster, overlay: Path, folder: Path) -> Product:
    return Product(components() / "kubectl", cluster.kubeconfig, overlay, folder)


@pytest.fixture(scope="package")
def bed(chosen: Choice, built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A control plane with a node of its own, to install mirrorstream on."""
    if chosen.backend != NODE:
        pytest.skip("needs a node: --backend node")
    with new_bed(chosen, tmp_path_factory.mktemp("bed")) as found:
        yield found


@pytest.fixture(scope="package")
def digest(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of mirrorstream's image, which is in the bed's registry."""
    assert bed.node
    return push(bed.node.registry, Path(bed.node.authority), tmp_path_factory.mktemp("push"))


@pytest.fixture
def user(bed: Bed) -> Iterator[Namespace]:
    """A user's namespace there, in which at the end everything is as the user wrote it."""
    with bed.cluster.namespace() as namespace:
        yield namespace
        namespace.check_untouched()
