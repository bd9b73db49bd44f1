"""One metric for each set of losses: every seed as a dot, their mean as a line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from components.figures.plots import chart, name_panel
from components.figures.style import INK, MUTED, SERIES, hex_colour


def ablation_chart(path: Path, metric: str, values: Mapping[str, Sequence[float]]) -> None:
    """Write a chart of `metric` (percent); `values` maps each set of losses to one value per seed."""
    assert values, "no training to draw"
    with chart(path, 1.2 + 0.6 * len(values)) as figure:
        axes = figure.add_subplot()
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        for row, scores in enumerate(values.values()):
            mean = sum(scores) / len(scores)
            axes.plot(scores, [row] * len(scores), "o", color=hex_colour(SERIES[0]), alpha=0.5, markersize=8)
            axes.plot([mean, mean], [row - 0.3, row + 0.3], color=hex_colour(INK))
            at = (mean, row - 0.3)
            axes.annotate(f"{mean:.1f}", at, (4, -4), textcoords="offset points", va="bottom", color=hex_colour(INK))
        axes.set_yticks(range(len(values)), list(values))
        axes.set_ylim(len(values) - 0.4, -0.6)  # the first on top
        axes.margins(x=0.1)
        name_panel(axes, f"{metric} by losses (%)", "a dot for each seed, a line at the mean", MUTED)
