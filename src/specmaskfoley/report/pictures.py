"""Pictures for the report and `dvc plots`: arrays in, a PNG file out, equal bytes for equal arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from specmaskfoley.metrics import COLUMNS, Column
from specmaskfoley.storage.files import atomic_path
from specmaskfoley.systems import OURS, SYSTEMS

WIDTH_IN = 8.0
DPI = 100
QUIET_PERCENTILE = 1.0  # one silent frame must not take half of the colours
EVENT_COLOUR = "#4de3ff"  # not in the colour map, and dashed: the attack stays visible under the line
COLOURS = ("#1f6fb4", "#d95f0e", "#2a9461", "#7b4fa6", "#8a8f98", "#b8860b")
_ACROSS: tuple[tuple[int, Literal["left", "right", "center"]], ...] = ((1, "left"), (-1, "right"), (0, "center"))
_HEIGHT: tuple[tuple[int, Literal["center", "bottom", "top"]], ...] = ((1, "bottom"), (-1, "top"), (0, "center"))
MARKERS = ("o", "D", "s", "^", "v", "P")  # groups stay apart in black and white


def spectrogram_pair(
    path: str | Path,
    mels: Mapping[str, npt.NDArray[np.floating]],
    events: Sequence[float],
    duration_s: float,
    title: str,
) -> None:
    """Log-mel spectrograms under each other on one time axis and one colour scale; dashed lines: events.

    Args:
        mels: name -> (num_mels, frames), all covering `duration_s` from 0 s.
    """
    if not mels:
        raise ValueError("mels is empty: expected at least one spectrogram")
    values = np.concatenate([np.asarray(mel, dtype=np.float64).ravel() for mel in mels.values()])
    low, high = np.percentile(values, QUIET_PERCENTILE), values.max()
    high = high if high > low else low + 1.0
    figure = Figure(figsize=(WIDTH_IN, 0.6 + 1.35 * len(mels)), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(mels), 1, sharex=True, squeeze=False)[:, 0]
    image = None
    for axis, (name, mel) in zip(axes, mels.items(), strict=True):
        if mel.ndim != 2:
            raise ValueError(f"mels[{name!r}] has shape {mel.shape}: expected (num_mels, frames)")
        image = axis.imshow(
            mel, origin="lower", aspect="auto", interpolation="nearest", cmap="magma", vmin=low, vmax=high,
            extent=(0.0, duration_s, 0.0, mel.shape[0]),
        )  # fmt: skip
        for event in events:
            axis.axvline(event, color=EVENT_COLOUR, linewidth=0.9, linestyle=(0, (4, 4)))
        axis.set_title(name, fontsize=9, loc="left", pad=3)
        axis.set_ylabel("mel band", fontsize=8)
        axis.tick_params(labelsize=8)
    axes[-1].set_xlabel("time (s)", fontsize=8)
    axes[-1].set_xlim(0.0, duration_s)
    figure.suptitle(_plain(title), fontsize=10)
    assert image is not None
    bar = figure.colorbar(image, ax=list(axes), fraction=0.03, pad=0.01)
    bar.set_label("log magnitude", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    _save(figure, path)


def spectrogram_strip(path: str | Path, mel: npt.NDArray[np.floating]) -> None:
    """A log-mel spectrogram (num_mels, frames) alone, one pixel a value: its left and right edge are its time's."""
    low = float(np.percentile(mel, QUIET_PERCENTILE))
    with atomic_path(path) as temporary:
        imsave(
            temporary, mel, format="png", origin="lower", cmap="magma", vmin=low, vmax=max(low + 1.0, float(mel.max())),
            metadata={"Software": None},  # type: ignore[dict-item]
        )  # fmt: skip


def training_curves(path: str | Path, curves: Mapping[str, Sequence[tuple[float, float]]], title: str) -> None:
    """One small panel a curve (losses and accuracies share no scale), two a row.

    Args:
        curves: name -> (step, value) points.
    """
    if not curves:
        raise ValueError("curves is empty: expected at least one")
    columns = min(2, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(WIDTH_IN, 0.5 + 2.0 * rows), dpi=DPI, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, points) in zip(panels, curves.items(), strict=False):
        steps, values = [p[0] for p in points], [p[1] for p in points]
        marker = "o" if len(steps) < 20 else None
        axis.plot(steps, values, color="#1f6fb4", linewidth=1.4, marker=marker, markersize=3)
        axis.set_title(_plain(name), fontsize=9, loc="left", pad=3)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in panels[len(curves) :]:
        axis.set_visible(False)
    figure.suptitle(_plain(title), fontsize=10)
    _save(figure, path)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number, with its interval where that is known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """One system of `quality_and_sync`. Members of a group look alike; published ones are hollow."""

    label: str
    group: str
    fad: Measured
    desync: Measured
    published: bool = False


def quality_and_sync(path: str | Path, points: Sequence[Point], title: str) -> None:
    """FAD against DeSync, best at the lower left (Fig. 1 of the paper). Names without room are left out."""
    if not points:
        raise ValueError("points is empty: expected at least one")
    figure = Figure(figsize=(WIDTH_IN, 5.0), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    for index, group in enumerate(dict.fromkeys(point.group for point in points)):
        members = [point for point in points if point.group == group]
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        for point in members:
            _interval(axis, point.fad, point.desync.value, colour, across=True)
            _interval(axis, point.desync, point.fad.value, colour, across=False)
        axis.scatter(
            [point.fad.value for point in members],
            [point.desync.value for point in members],
            s=42,
            marker=marker,
            facecolors="white" if members[0].published else colour,
            edgecolors=colour,
            linewidths=1.4,
            label=_plain(group),
            zorder=3,
            clip_on=False,  # a score of 0 lies on the axis
        )
    _frame(axis, *(_axis_label(COLUMNS[name]) for name in ("fad", "desync")))
    for set_limits, scores in ((axis.set_xlim, [p.fad for p in points]), (axis.set_ylim, [p.desync for p in points])):
        ends = [end for score in scores for end in (score.value, score.low, score.high) if end is not None]
        room = 0.15 * ((max(ends) - min(ends)) or max(ends) or 1.0)
        set_limits(max(0.0, min(ends) - room), max(ends) + room)  # neither measure can be negative
    axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=5)
    figure.suptitle(_plain(title), fontsize=10)
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # lays the axes out
    _label(axis, points, canvas.renderer)
    _save(figure, path)


def scores_against_steps(path: str | Path, curves: Mapping[str, Mapping[int, Measured]], title: str) -> None:
    """One panel a metric over the number of decoding steps (Fig. 3 of the paper); bars are intervals.

    Args:
        curves: heading of a metric -> steps -> score.
    """
    if not curves or not all(curves.values()):
        raise ValueError("curves is empty: expected at least one score of every metric")
    figure = Figure(figsize=(WIDTH_IN, 3.2), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, (heading, scores), colour, marker in zip(panels, curves.items(), COLOURS, MARKERS, strict=False):
        steps = sorted(scores)
        axis.plot(steps, [scores[n].value for n in steps], color=colour, linewidth=1.4, marker=marker, markersize=5)
        for n in steps:
            _interval(axis, scores[n], n, colour, across=False)
        axis.set_xticks(steps)
        axis.set_ylim(bottom=0.0)
        _frame(axis, "decoding steps", _plain(heading))
    figure.suptitle(_plain(title), fontsize=10)
    _save(figure, path)


def _frame(axis: Axes, x_label: str, y_label: str) -> None:
    axis.set_xlabel(x_label, fontsize=9)
    axis.set_ylabel(y_label, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _axis_label(column: Column) -> str:
    return f"{column.title} ({column.unit + ', ' if column.unit else ''}{column.better} is better)"


def _interval(axis: Axes, score: Measured, at: float, colour: str, *, across: bool) -> None:
    if score.low is not None and score.high is not None:
        line = axis.hlines if across else axis.vlines
        line(at, score.low, score.high, colors=colour, linewidth=1.1, alpha=0.5, zorder=2)


def _label(axis: Axes, points: Sequence[Point], renderer: RendererAgg) -> None:
    """Each name near its point, at the first place where it covers no point and no other name."""
    at = axis.transData.transform([(point.fad.value, point.desync.value) for point in points])
    marks = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in at]
    inside, names = axis.get_window_extent(), list[Bbox]()
    for number in sorted(range(len(points)), key=lambda number: _rank(points[number])):
        point, others = points[number], marks[:number] + marks[number + 1 :]
        name: Annotation = axis.annotate(
            _plain(point.label), (point.fad.value, point.desync.value), textcoords="offset points", xytext=(0, 0),
            fontsize=8, fontweight="normal" if _rank(point) else "bold", zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],  # it may cross an interval
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": "#8a8f98", "shrinkA": 0, "shrinkB": 5},
        )  # fmt: skip
        assert name.arrow_patch is not None
        for distance, (right, across), (up, height) in product((5, 12, 18, 26, 36), _ACROSS, _HEIGHT):
            name.set_position((distance * right, distance * up))
            name.set_horizontalalignment(across)
            name.set_verticalalignment(height)
            name.arrow_patch.set_visible(distance > 5)
            name.update_positions(renderer)
            words = Text.get_window_extent(name, renderer)  # without the line to the point
            line = Outline(np.array([at[number], ((words.x0 + words.x1) / 2, (words.y0 + words.y1) / 2)]))
            within = inside.x0 <= words.x0 and words.x1 <= inside.x1 and inside.y0 <= words.y0 and words.y1 <= inside.y1
            covers = words.overlaps(marks[number]) or any(words.overlaps(other) for other in names + others)
            crosses = any(line.intersects_bbox(other) for other in names + others)
            if within and not covers and not crosses:
                names.append(words)
                break
        else:
            name.remove()


def _rank(point: Point) -> int:
    """Our own name comes first, then what is measured."""
    if point.label.startswith(SYSTEMS[OURS].label):
        return 0
    return 2 if point.published else 1


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would read a label's dollar signs as a formula


def _save(figure: Figure, path: str | Path) -> None:
    """Without pyplot's global state, and without the version that matplotlib stamps into its files."""
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
