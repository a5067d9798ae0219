"""What mirrorstream asked an API server for: the simulator's log of requests, or kube-apiserver's audit log."""

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mirrorstream.kube.client import Client

AGENT = "mirrorstream"


@dataclass(frozen=True)
class Request:
    """One request: Kubernetes' verb, the path without its query, the answer's status, and who asked (empty on the simulator)."""

    verb: str
    path: str
    status: int
    user: str = ""
    group: str = ""
    resource: str = ""
    name: str = ""
    reason: str = ""
    """Why it was allowed: the binding and the role, in kube-apiserver's words."""
    forbidden: bool = False
    """Whether the authorizer refused it; admission answers 403, too."""
    at: float = 0
    """When it arrived, in seconds since the epoch."""
    agent: str = ""


class RequestLog(Protocol):
    """A log that can be read from a mark on."""

    def mark(self) -> int:
        """Where the log is now."""

    def since(self, mark: int) -> list[Request]:
        """Mirrorstream's requests from a mark on, in the order of their answers."""


class SimulatorLog:
    """The log of a simulator that serves everything itself."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def mark(self) -> int:
        """The number of the last request."""
        return int(self._client.get("/simulator/requests")["last"])

    def since(self, mark: int) -> list[Request]:
        """Requests with higher numbers."""
        answer = self._client.get("/simulator/requests", {"since": str(mark), "userAgent": f"^{AGENT}"})
        return [
            Request(e["verb"], e["path"], e["status"], at=e["time"] - e["seconds"], agent=e["userAgent"])
            for e in answer["requests"]
        ]


class AuditLog:
    """kube-apiserver's, which has the requests of service accounts only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> int:
        """The length of the log, in bytes."""
        return self._path.stat().st_size if self._path.exists() else 0

    def since(self, mark: int) -> list[Request]:
        """Mirrorstream's entries behind a mark."""
        return [_request(entry) for entry in self.entries(mark) if entry.get("userAgent", "").startswith(AGENT)]

    def entries(self, mark: int) -> list[dict[str, Any]]:
        """All entries behind a mark, as kube-apiserver wrote them."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            # The entry that was being written at the mark had happened by then.
            file.seek(max(mark - 1, 0))
            content = file.read()
        if mark:
            content = content.partition(b"\n")[2]
        lines = content.split(b"\n")[:-1]  # the last one may not be whole yet
        return [json.loads(line) for line in lines]


def _request(entry: dict[str, Any]) -> Request:
    target = entry.get("objectRef") or {}
    annotations = entry.get("annotations") or {}
    resource = "/".join(part for part in (target.get("resource"), target.get("subresource")) if part)
    return Request(
        entry["verb"],
        entry["requestURI"].partition("?")[0],
        (entry.get("responseStatus") or {}).get("code", 0),
        entry["user"]["username"],
        target.get("apiGroup", ""),
        resource,
        target.get("name", ""),
        annotations.get("authorization.k8s.io/reason", ""),
        annotations.get("authorization.k8s.io/decision") == "forbid",
        datetime.datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp(),
        entry.get("userAgent", ""),
    )
