"""An API server with one Lease, and participants that tests drive by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mirrorstream.kube.client import ApiError
from mirrorstream.kube.leaderelection import RENEW_SECONDS, Election

Object = dict[str, Any]


class Leases:
    """An API server with one Lease; `problem` is raised for every request while it is set."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.version = 0
        self.problem: Exception | None = None
        self.conflicts = 0
        self.requests: list[str] = []

    def request(self, method: str, path: str, *, body: Object | None = None, timeout: float = 0) -> Object:
        """One request, two of which must fit into the time in which a leader has to renew."""
        assert 0 < 2 * timeout <= RENEW_SECONDS
        self.requests.append(method)
        if self.problem:
            raise self.problem
        if method == "GET":
            if self.lease is None:
                raise ApiError(404, "NotFound", "")
            return {**self.lease, "spec": dict(self.lease["spec"])}
        assert body is not None
        if method == "PUT" and self.lease is None:
            raise ApiError(404, "NotFound", "")
        version = body["metadata"].get("resourceVersion", "")
        if self.conflicts or version != (self.lease["metadata"]["resourceVersion"] if self.lease else ""):
            self.conflicts = max(0, self.conflicts - 1)
            raise ApiError(409, "Conflict", "")
        self.version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return self.lease


@dataclass
class Slow:
    """A client whose requests are a function of the test."""

    request: Callable[..., Object]


class Replica:
    """One participant, driven by hand."""

    def __init__(self, leases: Leases, name: str, clock: list[float] | None = None, *, rejoin: bool = False) -> None:
        """By the clock of the test, by default the election's own."""
        self.started = 0
        self.lost: list[str] = []
        self.election = Election(
            leases,  # type: ignore[arg-type]
            namespace="ns",
            name="lease",
            identity=name,
            on_started_leading=self.on_started_leading,
            on_stopped_leading=self.lost.append,
            rejoin=rejoin,
            **({"clock": lambda: clock[0]} if clock else {}),
        )

    def on_started_leading(self) -> None:
        """Count."""
        self.started += 1

    @property
    def leads(self) -> bool:
        """Whether it leads."""
        return self.election.leading
