"""The look of charts, and labels at the ends of lines. Uses matplotlib's objects, without its global state."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from components.figures.style import INK, MUTED, RULE, SERIES, WHITE, Colour, hex_colour, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.6  # inches; shown 270 pixels wide, the least that a page does, the smallest letters have 8 pixels
FONT_POINTS = 10  # of the smallest letters
LINE_POINTS = 13.0  # minimum distance between two labels
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": FONT_POINTS,
    "text.parse_math": False,
    "text.color": hex_colour(INK),
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": hex_colour(MUTED),
    "axes.edgecolor": hex_colour(RULE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": hex_colour(RULE),
    "grid.linewidth": 0.8,
    "xtick.color": hex_colour(RULE),
    "xtick.labelcolor": hex_colour(MUTED),
    "ytick.labelcolor": hex_colour(MUTED),
    "ytick.left": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "figure.dpi": 200,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
}


@contextmanager
def chart(path: Path, height: float) -> Iterator["Figure"]:
    """Yield a figure of WIDTH x `height` inches, and save it to `path` unless the block raises."""
    # imported here because matplotlib takes a second to load, and sheets of images do not need it
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        canvas = FigureCanvasAgg(figure)
        yield figure
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    save_png(path, picture, (WHITE, INK, MUTED, RULE, *SERIES))


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move `heights` at least `gap` apart, keeping their order and the mean of every cluster."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    clusters: list[list[int]] = []
    for index in order:
        clusters.append([index])
        while len(clusters) > 1 and _bottom(clusters[-1], heights, gap) < _top(clusters[-2], heights, gap) + gap:
            last = clusters.pop()
            clusters[-1] += last
    placed = [0.0] * len(heights)
    for cluster in clusters:
        for step, index in enumerate(cluster):
            placed[index] = _bottom(cluster, heights, gap) + step * gap
    return placed


def _bottom(cluster: list[int], heights: Sequence[float], gap: float) -> float:
    return sum(heights[index] for index in cluster) / len(cluster) - gap * (len(cluster) - 1) / 2


def _top(cluster: list[int], heights: Sequence[float], gap: float) -> float:
    return _bottom(cluster, heights, gap) + gap * (len(cluster) - 1)


def labels_apart(axes: "Axes", heights: Sequence[float]) -> list[float]:
    """Move `heights` (data units) apart so that a label fits at each. The limits of the axes must be final."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # computes the layout, from which points are converted to data units
    low, high = axes.get_ylim()
    points = axes.get_window_extent().height / figure.dpi * 72
    return spread(heights, LINE_POINTS * (high - low) / points)


def label_ends(axes: "Axes", ends: Sequence[tuple[float, str, Colour]]) -> None:
    """Write each (y, label, colour) to the right of the plot at height y, or near it if labels would overlap."""
    for y, (_, label, colour) in zip(labels_apart(axes, [end[0] for end in ends]), ends, strict=True):
        axes.annotate(
            label,
            (1.0, y),
            (8, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=hex_colour(colour),
            annotation_clip=False,
        )


def name_panel(axes: "Axes", name: str, below: str, colour: Colour) -> None:
    """Write the name of a narrow panel above it, and a short text between the two."""
    axes.set_title(name, pad=24)
    ink = hex_colour(colour)
    axes.annotate(below, (0.0, 1.0), (0, 8), xycoords="axes fraction", textcoords="offset points", color=ink)
