"""The bound on lists and watches that fail is counted from the informer's own back-off."""

import threading
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import load_client
from mirrorstream.kube.informer import Informer
from mirrorstream.kube.objects import json_objects

from e2e.testbed.faults.backoff import attempts
from e2e.testbed.support.waiting import wait_for
from tests.kube.conftest import Request, Script, script

__all__ = ["script"]


@pytest.mark.parametrize("seconds", [3.0, 60.0])
def test_attempts(script: Script, tmp_path: Path, seconds: float) -> None:
    """An informer whose watches get 410 makes that many of them, with the shortest waits, or one less."""
    passed = 0.0
    over = threading.Event()

    def wait(stopped: threading.Event, pause: float) -> bool:
        nonlocal passed
        passed += pause
        if passed >= seconds:
            over.set()
        return over.is_set()

    def answer(request: Request) -> None:
        if "watch=1" in request.path:
            request.fail(410, "Expired")
        else:
            request.answer(200, {"metadata": {"resourceVersion": "1"}, "items": []})

    script.handle = answer
    client = load_client(str(script.kubeconfig(tmp_path / "kubeconfig")), in_cluster=False)
    informer: Informer[dict[str, Any]] = Informer(
        client, "/things", json_objects, lambda change: None, name="things", clock=lambda: passed, wait=wait, uniform=min
    )
    informer.start()
    wait_for("the time is over", over.is_set)
    informer.stop()
    watches = sum("watch=1" in path for _, path in script.requests)
    assert watches <= attempts(seconds) <= watches + 1
