"""The machine's clock is set while the controller runs. Only what the monotonic clock says may count; TLS is another matter."""

import datetime
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from e2e.scenarios.conftest import Start
from e2e.scenarios.faults.conftest import Saw
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.faults.reliability import often
from e2e.testbed.faults.team import Team
from e2e.testbed.interceptor import Interceptor
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(often(600, 180))

LIBRARIES = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib*/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)
HOUR = 3600


class Clock:
    """The time of day of programs that have its `environment`, to be set while they run. Their monotonic clock is the real one."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead: int) -> None:
        """Let it be so many seconds ahead of the real one."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead:+d}\n", encoding="ascii")
        os.replace(new, self._file)  # noqa: PTH105  a reader finds a whole file


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A clock for programs; skips where there is no libfaketime."""
    found = next((path for pattern in LIBRARIES for path in Path("/").glob(pattern[1:])), None)
    if found is None:
        pytest.skip("libfaketime is not installed here (Debian: apt-get install libfaketime)")
    return Clock(found, tmp_path)


def _ahead(lease: dict[str, Any]) -> float:
    """How far ahead the clock was that the lease was last renewed by, in seconds."""
    renewed = datetime.datetime.fromisoformat(lease["spec"]["renewTime"])
    return (renewed - datetime.datetime.now(datetime.UTC)).total_seconds()


@pytest.mark.fault(
    "Replicas",
    "The wall clock of both replicas is put an hour forward, an hour back, and to where it was",
    "The same one leads; tags heal as soon as ever; one that no mirror has is tried again as often as before, no more and no less",
)
def test_the_clock_is_set(ns: Namespace, team: Team, clock: Clock, saw: Saw) -> None:
    """Leadership, time limits and back-off do not look at the time of day."""
    leader, other = team.add(2, clock.environment)
    lease_path = f"/apis/coordination.k8s.io/v1/namespaces/{ns.name}/leases/mirrorstream-controller"
    first = ns.client.get(lease_path)
    ns.create("never", tag("v1", ns.source("never:v1")))
    ns.wait_event("never", "MirrorImportFailed")
    tries = {}
    for number, ahead in enumerate((HOUR, -HOUR, 0)):
        clock.set(ahead)
        lease = wait_for("it renews its lease by that clock", lambda ahead=ahead: _renewed(ns, lease_path, ahead))  # type: ignore[misc]
        assert lease["spec"]["holderIdentity"] == first["spec"]["holderIdentity"]
        assert lease["spec"]["leaseTransitions"] == first["spec"]["leaseTransitions"]
        began = time.monotonic()
        team.create(f"stream-{number}")
        ns.wait_healed(f"stream-{number}", "v1")
        time.sleep(max(0.0, began + 5 - time.monotonic()))  # in so long the back-off, two seconds at most, has it tried
        seconds = time.monotonic() - began
        tries[ahead] = leader.between.count("create", "/imagestreamimports$", since=began) - 1  # the other one healed
        # Half a second at least and two at most lie between two of them.
        assert seconds / 2.5 - 1 <= tries[ahead] <= seconds / 0.5 + 1, f"{tries[ahead]} in {seconds:.1f} s"
        assert leader.leads
        assert not other.leads
    assert set(team.check()) == {leader.mark}
    saw["takeovers"] = "0"
    saw["tries in 5 s"] = ", ".join(f"{ahead // HOUR:+d} h: {number}" for ahead, number in tries.items())


def _renewed(ns: Namespace, path: str, ahead: int) -> dict[str, Any] | None:
    lease: dict[str, Any] = ns.client.get(path)
    return lease if abs(_ahead(lease) - ahead) < HOUR / 2 else None


SETTINGS = "The wall clock is put an hour back while the platform's import of a tag hangs, or an hour forward while another does"


@pytest.mark.fault(
    "Controller", SETTINGS, "The tag is imported through the mirror after `stuckAfterSeconds`, not sooner and not later"
)
@pytest.mark.parametrize("ahead", [-HOUR, HOUR], ids=["back", "forward"])
def test_the_clock_is_set_while_an_import_hangs(
    ns: Namespace, simulated: Cluster, start: Start, between: Interceptor, clock: Clock, ahead: int
) -> None:
    """For how long the platform has not answered is a matter of the monotonic clock."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    simulated.control("import-controller", {"hang": {simulated.host("dead"): True}})
    try:
        program = start(program=between.kubeconfig, environment=clock.environment, controller={"stuckAfterSeconds": 4})
        began = time.monotonic()
        ns.create("app", tag("v1", ns.source("app:v1")))
        wait_for("the controller waits", lambda: program.metric("mirrorstream_failing_tags", state="failing") == 0)
        ns.stays("pending", lambda: not ns.tag_status("app", "v1"), seconds=0.5)
        clock.set(ahead)
        ns.annotate("app", "example.com/look", "again")
        ns.wait_healed("app", "v1", digest)
        asked = next(seen.at for seen in between.requests if seen.path.endswith("/imagestreamimports"))
        assert asked - began >= 4
    finally:
        simulated.control("import-controller", {"hang": {simulated.host("dead"): False}})


@pytest.mark.fault(
    "Controller",
    "The wall clock is put an hour forward while a source fails whose mirror has another image",
    "The image of the source stays until the source has failed for `replaceAfterSeconds`",
)
def test_the_clock_is_set_while_a_source_fails(ns: Namespace, start: Start, between: Interceptor, clock: Clock) -> None:
    """A clock that is put right rolls no tag back to a stale mirror."""
    upstream = ns.cluster.put("other", f"{ns.name}/app", "v1", seed=f"{ns.name}/upstream")
    ns.put("good", "app:v1", seed="stale")
    ns.digest_mirrors(source=f"{ns.cluster.host('other')}/{ns.name}")
    program = start(
        program=between.kubeconfig,
        environment=clock.environment,
        controller={"replaceAfterSeconds": HOUR // 2},
        mirrors={"bypassNotFound": True},
    )
    ns.create("app", tag("v1", ns.source("app:v1", "other")))
    ns.wait_healed("app", "v1", upstream)
    ns.cluster.registries.stores["other"].remove(f"{ns.name}/app", "v1")
    ns.cluster.put("other", f"{ns.name}/app", "another")
    ns.import_image("app", "v1", ns.source("app:v1", "other"))
    ns.wait_event("app", "MirrorImportHeld")
    clock.set(HOUR)
    tried = between.count("create", "/imagestreamimports$")
    ns.annotate("app", "mirrorstream.github.io/retry", "1")
    wait_for("it is tried again", lambda: between.count("create", "/imagestreamimports$") > tried)
    ns.stays("the source's", lambda: ns.tag_status("app", "v1")["items"][0]["image"] == upstream)
    assert program.metric("mirrorstream_failing_tags", state="held") == 1
