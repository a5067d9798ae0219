"""The manifests as kubectl renders them, once for the whole run."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.testbed.support.kustomize import COMPONENTS, CONFIG, OVERLAYS, any_kubectl, render, with_component

Object = dict[str, Any]
Render = Callable[[str], list[Object]]
NAMES = (*OVERLAYS, *(f"with {component}" for component in COMPONENTS))
"""Everything that is rendered: overlays, and the base with each component."""


@functools.cache
def _rendered(name: str) -> list[Object]:
    kubectl = any_kubectl()
    if kubectl is None:
        pytest.skip("no kubectl on this machine renders the manifests; `make e2e` builds one and renders them, too")
    if name.startswith("with "):
        with tempfile.TemporaryDirectory() as folder:
            return render(kubectl, with_component(Path(folder), name.removeprefix("with ")))
    return render(kubectl, CONFIG / name if name in ("base", "samples") else CONFIG / "overlays" / name)


@pytest.fixture
def rendered() -> Render:
    """Render an overlay (by its name), the base with a component (`with NAME`), `base` or `samples`."""
    return _rendered
