"""Curves: training losses and learning rates, validation metrics, recall by rank."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from components.figures.plots import chart, label_ends, labels_apart, name_panel
from components.figures.style import DIRECTIONS, MUTED, SERIES, Colour, hex_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = npt.NDArray[np.float64]
Line = tuple[Sequence[float], Sequence[float]]  # x, y

COLUMNS = 2  # of panels
LEARNING_RATE = "lr/"
MARKED_RANKS = (1, 5, 10)
RANK_TICKS = (1, 2, 5, 10, 20, 50, 100)
SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def loss_curves(path: Path, history: Mapping[str, Line]) -> None:
    """Write a panel for every loss and one for the learning rates.

    Args:
        path: The PNG to write.
        history: Fractional epochs and values by name. Names `lr/<group>` are learning rates; all others, such as
            `ccd/precision`, have a panel as the losses have, whose titles omit the prefix `loss/`.
    """
    for name, (x, y) in history.items():
        assert len(x) == len(y) > 0, f"{name} needs one value for each epoch, and at least one"
    rates = {name.removeprefix(LEARNING_RATE): line for name, line in history.items() if name.startswith(LEARNING_RATE)}
    losses = {name: line for name, line in history.items() if not name.startswith(LEARNING_RATE)}
    assert losses, "no loss to draw"
    panels = len(losses) + bool(rates)
    columns = min(COLUMNS, panels)
    rows = math.ceil(panels / columns)
    with chart(path, 2.2 * rows) as figure:
        grid = figure.add_gridspec(rows, columns)
        for index, (name, line) in enumerate(losses.items()):
            axes = figure.add_subplot(grid[index // columns, index % columns])
            _loss_panel(axes, name.removeprefix("loss/").replace("/", " "), line)
        if rates:
            _rate_panel(figure.add_subplot(grid[rows - 1, len(losses) % columns :]), rates)


def _loss_panel(axes: "Axes", name: str, line: Line) -> None:
    """Draw one loss with its moving mean in front, and write the last mean below its name, clear of the curve."""
    x, y = np.asarray(line[0], dtype=float), np.asarray(line[1], dtype=float)
    colour = hex_colour(SERIES[0])
    mean = _moving_mean(y)
    axes.plot(x, y, color=colour, alpha=0.25, linewidth=1.2)
    axes.plot(x, mean, color=colour)
    axes.plot(x[-1:], mean[-1:], "o", color=colour, markersize=5)
    name_panel(axes, name, f"{mean[-1]:.3g}", SERIES[0])
    axes.set_ylim(min(0.0, float(np.nanmin(y))), max(axes.get_ylim()[1], 1.05 * float(np.nanmax(y))))
    _epoch_axis(axes, x)


def _moving_mean(values: Values) -> Values:
    """Mean over a window of a fortieth of the points around each one, shorter at both ends."""
    kernel = np.ones(2 * (len(values) // 80) + 1)
    counts = np.convolve(np.ones_like(values), kernel, mode="same")
    return np.asarray(np.convolve(values, kernel, mode="same") / counts)


def _rate_panel(axes: "Axes", rates: Mapping[str, Line]) -> None:
    """Draw learning rates in units of a power of ten, labelled at their peaks; groups with equal rates share a line."""
    highest = max(max(y) for _, y in rates.values())
    exponent = math.floor(math.log10(highest)) if highest > 0.0 else 0
    shared: dict[tuple[float, ...], list[str]] = {}
    for name, (_, y) in rates.items():
        shared.setdefault(tuple(value / 10.0**exponent for value in y), []).append(name)
    colours = _colours(len(shared))
    for (y, names), colour in zip(shared.items(), colours, strict=True):
        marker = "o" if len(y) == 1 else None  # a line through one point is invisible
        axes.plot(rates[names[0]][0], y, color=hex_colour(colour), drawstyle="steps-pre", marker=marker)
    name_panel(axes, "learning rate", f"\u00d7 10{str(exponent).translate(SUPERSCRIPTS)}", MUTED)
    axes.set_ylim(0.0, 1.18 * max(map(max, shared)) or 1.0)
    _epoch_axis(axes, np.concatenate([x for x, _ in rates.values()]))
    heights = labels_apart(axes, [max(y) for y in shared])
    for (y, names), height, colour in zip(shared.items(), heights, colours, strict=True):
        peak = rates[names[0]][0][y.index(max(y))]
        axes.annotate(", ".join(names), (peak, height), (0, 5), textcoords="offset points", color=hex_colour(colour))


def _colours(count: int) -> list[Colour]:
    return [SERIES[index % len(SERIES)] for index in range(count)]


def _epoch_axis(axes: "Axes", x: Sequence[float] | Values) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    if min(x) == max(x):
        axes.set_xlim(min(x) - 1.0, max(x) + 1.0)


def validation_curves(
    path: Path, epochs: Sequence[int], metrics: Mapping[str, Sequence[float]], best_epoch: int, split: str = "val"
) -> None:
    """Write metrics (percent) on `split` by epoch; a line marks the best epoch, whose values stand beside the names."""
    assert metrics, "no validation to draw"
    assert best_epoch in epochs, f"epoch {best_epoch} was not validated"
    for name, values in metrics.items():
        assert len(values) == len(epochs), f"{name} needs one value for each epoch"
    best = list(epochs).index(best_epoch)
    with chart(path, 3.8) as figure:
        axes = figure.add_subplot()
        ends = []
        for (name, values), colour in zip(metrics.items(), _colours(len(metrics)), strict=True):
            axes.plot(epochs, values, color=hex_colour(colour))
            axes.plot(best_epoch, values[best], "o", color=hex_colour(colour), markersize=7, markeredgecolor="white")
            ends.append((values[-1], f"{name}  {values[best]:.1f}", colour))
        axes.axvline(best_epoch, color=hex_colour(MUTED), linewidth=1.0, linestyle=(0, (4, 3)), zorder=0.5)
        best_values = f"best epoch: {best_epoch}, its values at the right"
        name_panel(axes, f"Validation on the {split} split by epoch (%)", best_values, MUTED)
        axes.set_ylim(0.0, 105.0)
        _epoch_axis(axes, epochs)
        label_ends(axes, ends)


def cmc_curve(path: Path, curves: Mapping[str, Sequence[float]]) -> None:
    """Write recall (percent) at rank 1..K, one panel for each direction.

    `curves` maps `<split>/<direction>`, such as `test/t2i`, to recalls; the direction is `t2i` or `i2t`.
    """
    assert min(map(len, curves.values()), default=0) > 0, "no recall to draw"
    panels: dict[str, dict[str, Sequence[float]]] = {}
    for name, recalls in curves.items():
        split, _, direction = name.partition("/")
        assert direction in DIRECTIONS, f"{name} is not named <split>/t2i or <split>/i2t"
        panels.setdefault(direction, {})[split] = recalls
    lowest = min(min(recalls) for recalls in curves.values())
    with chart(path, 3.3 * len(panels)) as figure:
        grid = figure.subplots(len(panels), 1, squeeze=False)
        for axes, (direction, lines) in zip(grid[:, 0], panels.items(), strict=True):
            axes.set_ylim(max(0.0, 10.0 * math.floor(lowest / 10.0 - 0.5)), 102.0)
            title = f"{DIRECTIONS[direction].capitalize()}: recall at rank k (%)"
            axes.set_title(title, pad=18)  # so that the number at a recall of 100% has room
            _recall_panel(axes, lines)


def _recall_panel(axes: "Axes", lines: Mapping[str, Sequence[float]]) -> None:
    """Draw recalls over the logarithm of the rank; at marked ranks, number the best line above and the worst below."""
    from matplotlib.ticker import NullLocator

    ends = []
    colours = dict(zip(lines, _colours(len(lines)), strict=True))
    for split, recalls in lines.items():
        colour = colours[split]
        axes.plot(range(1, len(recalls) + 1), recalls, color=hex_colour(colour))
        ranks = [rank for rank in MARKED_RANKS if rank <= len(recalls)]
        axes.plot(ranks, [recalls[rank - 1] for rank in ranks], "o", color=hex_colour(colour), markeredgecolor="white")
        ends.append((recalls[-1], split, colour))
    for rank in MARKED_RANKS:
        at = {split: recalls[rank - 1] for split, recalls in lines.items() if rank <= len(recalls)}
        if at:
            worst, best = min(at, key=lambda split: at[split]), max(at, key=lambda split: at[split])
            for split in dict.fromkeys((worst, best)):
                _number(axes, rank, at[split], colours[split], above=split == best)
    longest = max(len(recalls) for recalls in lines.values())
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xticks(ticks := [rank for rank in RANK_TICKS if rank <= longest], [str(rank) for rank in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("k")
    label_ends(axes, ends)


def _number(axes: "Axes", rank: int, recall: float, colour: Colour, above: bool) -> None:
    offset, side = ((-4, 6), "right") if above else ((4, -14), "left")
    point, ink = (rank, recall), hex_colour(colour)
    axes.annotate(f"{recall:.1f}", point, offset, textcoords="offset points", ha=side, color=ink)
