"""Tables and pictures as one self-contained HTML file, for viewers that show a single file.

Kubeflow shows it in a frame 529 pixels wide, or 300 where runs are compared: tables are stacked there, and what stands
side by side moves below each other.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.figures.style import DIRECTIONS, INK, MUTED, RIGHT, RULE, WRONG, hex_colour
from irra.metrics import METRIC_NAMES
from irra.utils.files import write_text

Cell = str | tuple[str, str]  # a text, or a number and what is said of it in small letters below

STYLE = f"""
body {{ font: 15px/1.5 system-ui, sans-serif; color: {hex_colour(INK)}; background: #fff; max-width: 1040px;
       margin: 0 auto; padding: .5rem; overflow-wrap: anywhere }}
h1 {{ font-size: 1.4rem; line-height: 1.25; margin: .5rem 0 }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem }}
h3 {{ font-size: 1rem; margin: 1.5rem 0 .5rem }}
p {{ margin: .5rem 0 }}
small, .facts, .verdict, thead {{ color: {hex_colour(MUTED)} }}
.facts b {{ color: {hex_colour(INK)}; font-weight: 400 }}
.facts {{ font-size: 13px }}
.facts span {{ display: inline-block; margin-right: 1em }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }}
th, td {{ padding: .3rem .6rem .3rem 0; border-bottom: 1px solid {hex_colour(RULE)}; text-align: right;
         vertical-align: top }}
th {{ font-weight: 600 }}
td:not(:first-child) {{ white-space: nowrap }}
td small {{ display: block; font-size: 12px }}
th:first-child, td:first-child {{ text-align: left }}
mark {{ background: #fff0c2; color: inherit; font-weight: 600; padding: 0 .2em; margin: 0 -.2em }}
.charts {{ display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1rem; margin: 1rem 0 }}
.charts img {{ flex: 1 1 400px; min-width: 0; width: 100%; max-width: 500px }}
.people {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); gap: 1rem 2rem }}
.people p {{ font-size: 13px }}
.pair {{ display: flex; gap: 1rem; align-items: flex-start }}
.pair figure {{ flex: none }}
.pair div {{ min-width: 0 }}
.query {{ border-top: 1px solid {hex_colour(RULE)}; padding: .5rem 0 }}
.verdict {{ font-size: 13px }}
.strip {{ display: flex; flex-wrap: wrap; gap: 8px }}
figure {{ margin: 0; width: 60px; padding: 3px; text-align: center }}
figure img {{ width: 100%; display: block; box-sizing: border-box }}
figcaption {{ font-size: 12px; white-space: nowrap }}
.right img {{ outline: 3px solid {hex_colour(RIGHT)} }}
.wrong img {{ outline: 1px solid {hex_colour(WRONG)} }}
.right figcaption, .verdict.right {{ color: {hex_colour(RIGHT)} }}
.wrong figcaption {{ color: {hex_colour(WRONG)} }}
@media (max-width: 480px) {{
  h1 {{ font-size: 1.2rem }}
  thead {{ display: none }}
  table, tbody, tr {{ display: block }}
  td {{ display: flex; justify-content: space-between; gap: 1em; padding: .15rem 0; border: 0 }}
  td::before {{ content: attr(data-name); color: {hex_colour(MUTED)} }}
  td:first-child {{ font-weight: 600; border-top: 1px solid {hex_colour(RULE)} }}
  td:first-child::before {{ content: none }}
  td small {{ display: inline; margin-left: .5em }}
  figure {{ width: 46px; padding: 2px }}
  figcaption {{ font-size: 11px }}
  .strip {{ gap: 4px }}
}}
"""


def write_page(path: Path, title: str, blocks: Sequence[str], facts: Mapping[str, str] | None = None) -> None:
    """Write blocks of HTML as a page; below its title stand the `facts` that tell it from other pages."""
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    about = [fact_line(facts)] if facts else []
    body = "\n".join([f"<h1>{html.escape(title)}</h1>", *about, *blocks])
    page = f'<html lang="en"><head>{head}<style>{STYLE}</style></head><body>\n{body}\n</body></html>'
    write_text(path, f"<!doctype html>\n{page}\n")


def fact_line(facts: Mapping[str, str]) -> str:
    """Format names and values as a line."""
    items = (f"<span>{html.escape(name)} <b>{html.escape(value)}</b></span>" for name, value in facts.items())
    return f'<p class="facts">{" ".join(items)}</p>'


def heading(text: str) -> str:
    """Format the title of a chapter."""
    return f"<h2>{html.escape(text)}</h2>"


def note(text: str) -> str:
    """Format a remark."""
    return f"<p><small>{html.escape(text)}</small></p>"


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], marked: tuple[int, int] | None = None) -> str:
    """Format a table of texts; `marked` is the row and column of a cell to be pointed out."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    lines = []
    for row, cells in enumerate(rows):
        shown = (_cell(cell, (row, column) == marked) for column, cell in enumerate(cells))
        named = (f'<td data-name="{html.escape(name)}">{cell}</td>' for name, cell in zip(header, shown, strict=True))
        lines.append(f"<tr>{''.join(named)}</tr>")
    body = "\n".join(lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _cell(cell: Cell, marked: bool) -> str:
    text, remark = (cell, "") if isinstance(cell, str) else cell
    text, remark = html.escape(text), html.escape(remark)
    return f"<span>{f'<mark>{text}</mark>' if marked else text}{f' <small>{remark}</small>' if remark else ''}</span>"


def metrics_table(metrics: Mapping[str, Any], intervals: Mapping[str, Any], first: str) -> str:
    """Format retrieval metrics and their 95% intervals, in percent, by split and direction.

    `first` is the metric that stands in the first row and is marked, such as `val/t2i/R1`.
    """
    first_split, first_direction, name = first.split("/")
    rows = [(split, direction) for split, directions in metrics.items() for direction in directions]
    rows.sort(key=lambda row: (row[1] != first_direction, row[0] != first_split))
    marked = (0, 1 + METRIC_NAMES.index(name)) if rows[0] == (first_split, first_direction) else None
    lines: list[list[Cell]] = []
    for split, direction in rows:
        values, bounds = metrics[split][direction], intervals[split][direction]
        cells = [(f"{values[name]:.2f}", f"{bounds[name][0]:.1f}–{bounds[name][1]:.1f}") for name in METRIC_NAMES]
        lines.append([f"{split}, {DIRECTIONS[direction]}", *cells])
    return table(["", *METRIC_NAMES], lines, marked)


def charts(paths: Sequence[Path]) -> str:
    """Embed charts, beside each other where there is room."""
    return f'<div class="charts">{"".join(map(picture, paths))}</div>'


def picture(path: Path) -> str:
    """Embed a PNG."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem.replace("_", " "))}" src="data:image/png;base64,{data}">'
