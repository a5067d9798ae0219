"""The console's dashboard: what each panel asks for."""

import json
import re
from dataclasses import dataclass
from typing import Any

from e2e.testbed.support.kustomize import CONFIG

FILE = CONFIG / "components" / "monitoring" / "dashboard.json"


@dataclass(frozen=True)
class Query:
    """A query of a panel; `legend` names its series, with the labels in double braces."""

    panel: int
    title: str
    kind: str
    expression: str
    legend: str

    def labels(self) -> list[str]:
        """The labels that the legend shows."""
        return re.findall(r"{{(\w+)}}", self.legend)


def rows() -> list[tuple[str, list[dict[str, Any]]]]:
    """The dashboard's rows: a title and panels."""
    board = json.loads(FILE.read_text(encoding="utf-8"))
    return [(row["title"], row["panels"]) for row in board["rows"]]


def queries() -> list[Query]:
    """Every query of every panel."""
    return [
        Query(panel["id"], panel["title"], panel["type"], target["expr"], target.get("legendFormat", ""))
        for _, panels in rows()
        for panel in panels
        for target in panel["targets"]
    ]
