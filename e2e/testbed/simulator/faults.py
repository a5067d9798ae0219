"""Faults on command: what a test asks to go wrong, for which requests and how often.

    POST /simulator/faults {"verb": "update", "path": "imagestreams/app/status", "userAgent": "mirrorstream", "times": 2,
                            "action": {"status": 500, "reason": "InternalError", "message": "…", "retryAfter": 1}}

`verb` is Kubernetes' (get, list, watch, create, update, patch, delete), `path`, `query` and `userAgent` are regular expressions
that are searched for; all are optional. Actions: `latencySeconds`, `status` (with reason, message, retryAfter), `hang` (no answer
until the client gives up), `reset` (the connection is cut), `conflict` (409), `gone` (watches get a 410), `dropWatches` (watches
end at once), `truncate` (it breaks off in the middle), `loseAnswer` (the request is carried out, its answer lost).
"""

import re
import threading
from typing import Any

from e2e.testbed.simulator.errors import bad_request

ACTIONS = {"latencySeconds", "status", "hang", "reset", "conflict", "gone", "dropWatches", "truncate", "loseAnswer"}
_FIELDS = {"verb", "path", "query", "userAgent", "times", "action"}


class Faults:
    """The faults in force."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[dict[str, Any]] = []

    def add(self, fault: Any) -> None:
        """Put a fault in force. Raises a 400 that names what is wrong."""
        if not isinstance(fault, dict) or not isinstance(fault.get("action"), dict):
            raise bad_request("a fault is an object with an `action`")
        if unknown := (set(fault) - _FIELDS) | (set(fault["action"]) - ACTIONS - {"reason", "message", "retryAfter"}):
            raise bad_request(f"unknown field of a fault: {', '.join(sorted(unknown))}")
        with self._lock:
            self._faults.append({**fault})

    def clear(self) -> None:
        """End all faults."""
        with self._lock:
            self._faults.clear()

    def listed(self) -> list[dict[str, Any]]:
        """The faults in force, with the times that are left."""
        with self._lock:
            return [dict(fault) for fault in self._faults]

    def match(self, verb: str, path: str, query: str, user_agent: str) -> dict[str, Any]:
        """The action for a request, empty for none; a fault with `times` is used up by it."""
        if not self._faults:
            return {}
        with self._lock:
            for fault in self._faults:
                if fault.get("verb") not in (None, verb):
                    continue
                searched = {"path": path, "query": query, "userAgent": user_agent}
                if not all(re.search(fault.get(field, ""), text) for field, text in searched.items()):
                    continue
                if "times" in fault:
                    if fault["times"] <= 0:
                        continue
                    fault["times"] -= 1
                action: dict[str, Any] = fault["action"]
                return action
        return {}
