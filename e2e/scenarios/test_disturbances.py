"""What happens to a control plane: restarts, outages, compaction. On one of its own, since nothing else could run beside."""

import dataclasses
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from mirrorstream.kube.client import ApiError, ClientError

from e2e.scenarios.conftest import configuration
from e2e.testbed.backends import (
    PLANES,
    Choice,
    free_ports,
    hosts_at,
    installed,
    scenario_settings,
    with_own_registry,
)
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.openshift import API_SERVER
from e2e.testbed.controlplane.plane import ControlPlane
from e2e.testbed.programs.program import Controller, running
from e2e.testbed.registries.recorded import Registries
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for

OUTAGE_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Bed:
    """A control plane that may be disturbed."""

    plane: ControlPlane
    cluster: Cluster


@pytest.fixture(scope="module")
def bed(chosen: Choice, built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """One for all of these scenarios."""
    if chosen.backend not in PLANES:
        pytest.skip("needs a control plane of its own")
    ports = free_ports()
    settings = with_own_registry(scenario_settings([hosts_at(ports)]))
    folder = tmp_path_factory.mktemp("disturbed")
    with (
        Registries(ports) as registries,
        ControlPlane(folder, components(), settings, openshift_programs=chosen.openshift_programs) as plane,
    ):
        yield Bed(plane, Cluster.of(installed(plane, chosen.backend), registries))


@pytest.fixture
def there(bed: Bed) -> Iterator[Namespace]:
    """A namespace on it."""
    with bed.cluster.namespace() as namespace:
        yield namespace
        namespace.check_untouched()


def test_a_restart_of_the_api_server_misses_nothing(bed: Bed, there: Namespace, tmp_path: Path) -> None:
    """The same process goes on, leads again, and heals what failed before, during and after.

    On a machine on which the restart takes longer than a leader may go without its lease, the process ends, and the next one does.
    """
    digest = there.put("good", "app:v1")
    there.digest_mirrors()
    with ExitStack() as stack:
        program = stack.enter_context(running(Controller(bed.cluster.program, tmp_path, configuration(there))))
        wait_for("it leads", lambda: program.metric("mirrorstream_leader") == 1)
        there.create("before", tag("v1", there.source("app:v1")))
        there.wait_healed("before", "v1", digest)
        there.create("late", tag("v1", there.source("late:v1")))
        there.wait_event("late", "MirrorImportFailed")
        bed.plane.restart("kube-apiserver")
        if program.process.ended is not None:
            assert "lost leader lease" in program.log()
            program = stack.enter_context(running(Controller(bed.cluster.program, tmp_path, configuration(there))))
        late = there.put("good", "late:v1")
        there.create("after", tag("v1", there.source("app:v1")))
        there.wait_healed("after", "v1", digest)
        there.wait_healed("late", "v1", late)
        wait_for("it leads again", lambda: program.metric("mirrorstream_leader") == 1)


def _outage(bed: Bed) -> None:
    """Let image.openshift.io be away for a while; returns once kube-apiserver says so."""
    if bed.cluster.controls:
        bed.cluster.control("outage", {"seconds": OUTAGE_SECONDS})
    else:
        bed.plane.processes[API_SERVER].kill()
    wait_for("it is away", lambda: _status(bed) == 503)


def _status(bed: Bed) -> int:
    try:
        bed.cluster.client.get("/apis/image.openshift.io/v1/imagestreams", {"limit": "1"}, timeout=5)
    except ApiError as error:
        return error.status
    except ClientError:
        return 0
    return 200


def test_an_image_api_that_is_away_for_half_a_minute(bed: Bed, there: Namespace, tmp_path: Path) -> None:
    """503s, and a rule created in that time: afterwards everything heals, and there was no tight loop."""
    digest = there.put("good", "app:v1")
    assert bed.cluster.log
    with running(Controller(bed.cluster.program, tmp_path, configuration(there))) as program:
        there.create("before", tag("v1", there.source("app:v1")))
        there.wait_failed("before", "v1")
        began, mark = time.monotonic(), bed.cluster.log.mark()
        _outage(bed)
        there.digest_mirrors()
        known = wait_for("the new rule is known", lambda: program.lines("applied mirror rules"))
        assert known
        time.sleep(max(0.0, began + OUTAGE_SECONDS - time.monotonic()))  # the outage is what is tested
        if not bed.cluster.controls:
            bed.plane.run(API_SERVER)
        bed.plane.wait_image_api()
        asked = [r for r in bed.cluster.requests(mark) if "image.openshift.io" in r.path and r.status == 503]
        # One stream that is tried every two seconds or sooner, and one watch.
        assert 1 <= len(asked) <= 2 * OUTAGE_SECONDS, f"{len(asked)} requests in {OUTAGE_SECONDS} s"
        there.create("after", tag("v1", there.source("app:v1")))
        there.wait_healed("after", "v1", digest)
        there.wait_healed("before", "v1", digest)


def test_compaction_while_the_controller_slept(bed: Bed, there: Namespace, tmp_path: Path) -> None:
    """Its watches cannot resume (410): it lists again and misses neither the rule nor the stream created in between."""
    digest = there.put("good", "app:v1")
    with running(Controller(bed.cluster.program, tmp_path, configuration(there), "--no-leader-election")) as program:
        program.process.send(signal.SIGSTOP)
        try:
            there.create("app", tag("v1", there.source("app:v1")))
            there.wait_failed("app", "v1")
            there.digest_mirrors()
            for number in range(3):  # of which no watch of ours hears, so that all of ours are behind
                body = {"metadata": {"name": f"other-{number}"}}
                there.client.request("POST", f"/api/v1/namespaces/{there.name}/configmaps", body=body)
            if bed.cluster.controls:
                bed.cluster.control("compact")
                bed.cluster.control("drop-watches")
            bed.plane.compact()
        finally:
            program.process.send(signal.SIGCONT)
        there.wait_healed("app", "v1", digest)
        expired = "the watch is too far behind, listing again"
        wanted = {"imagedigestmirrorsets.config.openshift.io", "imagetagmirrorsets.config.openshift.io"}
        wait_for("it lists again", lambda: wanted <= {line["resource"] for line in program.lines(expired)})
        wait_for("it watches again", program.ready)
