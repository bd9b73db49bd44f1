"""Tables and pictures as one self-contained HTML file, for viewers that show a single file."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.figures.style import DIRECTIONS
from irra.metrics import METRIC_NAMES
from irra.utils.files import write_text
from irra.utils.nested import flatten

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2430; background: #fff; max-width: 1040px; margin: 2rem auto;
       padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #e0e4ea; text-align: right }
th:first-child, td:first-child { text-align: left }
th { color: #697180; font-weight: 600 }
img { max-width: 100%; display: block; margin: 1.5rem 0 }
"""


def write_page(path: Path, title: str, blocks: Sequence[str]) -> None:
    """Write blocks of HTML as a page."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    body = "\n".join([f"<h1>{html.escape(title)}</h1>", *blocks])
    write_text(path, f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n')


def heading(text: str) -> str:
    """Format the title of a chapter."""
    return f"<h2>{html.escape(text)}</h2>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table of plain texts."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def metrics_table(metrics: Mapping[str, Any], intervals: Mapping[str, Any]) -> str:
    """Format retrieval metrics and their 95% intervals, in percent, by split and direction."""
    rows = []
    for split, directions in metrics.items():
        for direction, values in directions.items():
            bounds = intervals[split][direction]
            cells = (f"{values[name]:.2f} ({bounds[name][0]:.1f}–{bounds[name][1]:.1f})" for name in METRIC_NAMES)
            rows.append([f"{split}, {DIRECTIONS[direction]}", *cells])
    return table(["% (95% interval)", *METRIC_NAMES], rows)


def values_table(values: Mapping[str, Any]) -> str:
    """Format nested values as a table with one line for each."""
    return table(["", ""], [[name, str(value)] for name, value in flatten(values, " ").items()])


def picture(path: Path) -> str:
    """Embed a PNG."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem.replace("_", " "))}" src="data:image/png;base64,{data}">'
