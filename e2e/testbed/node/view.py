"""What one process of a test run tells the others of its node."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirrorstream.kube.client import Client

CONFIGURED = "mirrorstream.test/configured"
"""An annotation of the Node: JSON, the generation of each mirror set and Image config that CRI-O knows, by `KIND/NAME`."""


@dataclass(frozen=True)
class NodeView:
    """`first` is the ID of the node's first process, `registry` the test bed's own for images, `authority` its CA's file."""

    name: str
    first: int
    logs: str
    registry: str
    authority: str

    @property
    def etc(self) -> Path:
        """The node's /etc, as processes outside see it."""
        return Path(f"/proc/{self.first}/root/etc")

    def configured(self, client: Client) -> dict[str, int]:
        """Which generations the node has taken over, by `KIND/NAME`."""
        annotations = client.get(f"/api/v1/nodes/{self.name}")["metadata"].get("annotations") or {}
        found: dict[str, Any] = json.loads(annotations.get(CONFIGURED, "{}"))
        return found
