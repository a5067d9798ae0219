"""The dashboard as a page, as OpenShift's console shows it, drawn from recorded metrics."""

import json
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

BOARD = Path(__file__).parents[1] / "config" / "components" / "monitoring" / "dashboard.json"
WIDTH = 1200
ROWS = 3
"""Of the dashboard's rows, from the top: all of them would be small print."""
ROW_HEIGHT, PANEL_HEIGHT = 46, 250
COLOURS = ("#06c", "#f4c145", "#4cb140", "#ec7a08", "#5752d1", "#009596", "#c9190b", "#8a8d90")
_STYLE = """
body { margin: 0; padding: 12px 20px; background: #f0f0f0; color: #151515; font: 13px "DejaVu Sans", sans-serif; width: 1160px }
h1 { font-size: 20px; font-weight: 400; margin: 4px 0 8px }
h2 { font-size: 15px; font-weight: 400; margin: 12px 0 6px; height: 20px }
.row { display: grid; grid-template-columns: repeat(12, 1fr); gap: 10px }
.panel { background: #fff; border: 1px solid #d2d2d2; padding: 8px 10px; box-sizing: border-box; overflow: hidden; height: 226px }
.panel.small { height: 96px }
h3 { font-size: 12.5px; font-weight: 700; margin: 0 0 6px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.number { font-size: 30px; text-align: center; margin-top: 6px }
table { border-collapse: collapse; width: 100%; font-size: 12px }
td, th { text-align: left; padding: 4px 6px; border-bottom: 1px solid #d2d2d2 }
.legend { font-size: 11px; display: flex; flex-wrap: wrap; gap: 2px 12px; height: 30px; overflow: hidden }
.legend i { display: inline-block; width: 9px; height: 9px; margin-right: 4px }
svg { overflow: visible }
text { font: 10px "DejaVu Sans", sans-serif; fill: #4f5255 }
"""
Object = dict[str, Any]


def _rows() -> list[Object]:
    found: list[Object] = json.loads(BOARD.read_text(encoding="utf-8"))["rows"][:ROWS]
    return found


def height() -> int:
    """The page's height in pixels."""
    lines = 0
    for row in _rows():
        lines += ROW_HEIGHT + sum(PANEL_HEIGHT - 14 if not small else 106 for small in _lines(row["panels"]))
    return lines + 20


def _lines(panels: list[Object]) -> list[bool]:
    """The lines of a row, twelve columns each: whether a line has numbers only."""
    found: list[list[Object]] = [[]]
    for panel in panels:
        if sum(one["span"] for one in found[-1]) + panel["span"] > 12:
            found.append([])
        found[-1].append(panel)
    return [all(panel["type"] == "singlestat" for panel in line) for line in found]


def dashboard_page(recorded: Path) -> str:
    """The page's HTML."""
    data = json.loads(recorded.read_text(encoding="utf-8"))
    queries: dict[int, list[Object]] = {}
    for query in data["queries"]:
        queries.setdefault(query["panel"], []).append(query)
    body = "".join(
        f"<h2>{escape(row['title'])}</h2><div class=row>"
        + "".join(_panel(panel, queries[panel["id"]], data["minutesPerStep"]) for panel in row["panels"])
        + "</div>"
        for row in _rows()
    )
    return f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style><h1>Dashboards: mirrorstream</h1>{body}\n"


def _panel(panel: Object, queries: list[Object], minutes: int) -> str:
    kind = "panel small" if panel["type"] == "singlestat" else "panel"
    if panel["type"] == "singlestat":
        inside = _number(panel, queries)
    elif panel["type"] == "table":
        inside = _table(panel, queries)
    else:
        inside = _graph(panel, queries, minutes)
    return f'<div class="{kind}" style="grid-column: span {panel["span"]}"><h3>{escape(panel["title"])}</h3>{inside}</div>'


def _last(series: Object) -> float | None:
    value: float | None = series["values"][-1]
    return value


def _number(panel: Object, queries: list[Object]) -> str:
    found = [value for series in queries[0]["series"] if (value := _last(series)) is not None]
    told = {mapped["value"]: mapped["text"] for mapped in panel["valueMaps"]}
    text = told.get(f"{found[0]:.0f}", f"{found[0]:.{panel['decimals']}f}") if found else told["null"]
    colour = "#151515"
    for threshold in panel["options"]["fieldOptions"]["thresholds"]:
        if found and found[0] >= threshold["value"]:
            colour = {"green": "#3e8635", "orange": "#ec7a08", "red": "#c9190b"}[threshold["color"]]
    return f'<div class=number style="color: {colour}">{escape(text)}</div>'


def _table(panel: Object, queries: list[Object]) -> str:
    columns = [style for style in panel["styles"] if style["type"] != "hidden"]
    heads = "".join(f"<th>{escape(column['alias'])}</th>" for column in columns)
    there = [(value, series["labels"]) for series in queries[0]["series"] if (value := _last(series)) is not None]
    rows = sorted(there, key=lambda row: (-row[0], sorted(row[1].items())))
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(labels.get(column['pattern'], f'{value:.0f}'))}</td>" for column in columns) + "</tr>"
        for value, labels in rows
    )
    return f"<table><tr>{heads}</tr>{cells}</table>"


def _named(query: Object, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), query["legend"])


def _graph(panel: Object, queries: list[Object], minutes: int) -> str:
    lines = [(_named(query, series["labels"]), series["values"]) for query in queries for series in query["series"]]
    lines = [(name, values) for name, values in sorted(lines) if any(value for value in values)] or lines[:1]
    if panel.get("stack"):
        lines = _stacked(lines)
    wide, high, left, bottom = round(1160 / 12 * panel["span"]) - 34, 148, 34, 16
    top = _round(max((value for _, values in lines for value in values if value is not None), default=1) or 1)
    count = max((len(values) for _, values in lines), default=2)

    def place(step: int, value: float) -> str:
        return f"{left + (wide - left) * step / (count - 1):.1f},{(high - bottom) * (1 - value / top) + 4:.1f}"

    parts = []
    for share in (0, 0.5, 1):
        y = (high - bottom) * (1 - share) + 4
        parts.append(f'<line x1={left} x2={wide} y1={y:.1f} y2={y:.1f} stroke="#d2d2d2"/>')
        parts.append(f"<text x={left - 4} y={y + 3:.1f} text-anchor=end>{top * share:g}</text>")
    hours = (count - 1) * minutes // 60
    for hour in range(hours + 1):
        x = left + (wide - left) * hour / hours
        anchor = "start" if hour == 0 else "end" if hour == hours else "middle"
        parts.append(f"<text x={x:.1f} y={high + 2} text-anchor={anchor}>{8 + hour}:00</text>")
    for number, (_, values) in enumerate(lines):
        for piece in _pieces(values):
            points = " ".join(place(step, value) for step, value in piece)
            parts.append(f'<polyline points="{points}" fill=none stroke="{COLOURS[number % len(COLOURS)]}" stroke-width=1.6 />')
    legend = "".join(
        f'<span><i style="background: {COLOURS[number % len(COLOURS)]}"></i>{escape(name)}</span>'
        for number, (name, _) in enumerate(lines)
    )
    return f"<svg width={wide} height={high + 6}>{''.join(parts)}</svg><div class=legend>{legend}</div>"


def _stacked(lines: list[tuple[str, list[float | None]]]) -> list[tuple[str, list[float | None]]]:
    below: list[float] = [0.0] * max((len(values) for _, values in lines), default=0)
    found = []
    for name, values in lines:
        below = [under + (value or 0) for under, value in zip(below, values, strict=True)]
        found.append((name, [None if value is None else total for total, value in zip(below, values, strict=True)]))
    return found


def _round(value: float) -> float:
    """The next number above that reads well on an axis."""
    scale = 10.0 ** len(str(int(value))) / 10 if value >= 1 else 10.0 ** -(len(f"{1 / value:.0f}"))
    return next(step * scale for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 20, 50, 100) if step * scale >= value)


def _pieces(values: Iterable[float | None]) -> list[list[tuple[int, float]]]:
    """The parts of a line between which there is nothing."""
    found: list[list[tuple[int, float]]] = [[]]
    for step, value in enumerate(values):
        if value is None:
            found.append([])
        else:
            found[-1].append((step, value))
    return [piece for piece in found if len(piece) > 1]
