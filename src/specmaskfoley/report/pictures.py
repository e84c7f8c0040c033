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
from matplotlib.patches import Rectangle
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from specmaskfoley.metrics import COLUMNS, Column
from specmaskfoley.storage.files import atomic_path
from specmaskfoley.systems import OURS, SYSTEMS

WIDTH_IN = 8.0
DPI = 100
FLOOR_DB = -80.0
"""Black in every spectrogram, and 0 dB the brightest, so that any two compare."""

EVENT_COLOUR = "#4de3ff"  # not in the colour map, and dashed: the attack stays visible under the line
COLOURS = ("#1f6fb4", "#d95f0e", "#2a9461", "#7b4fa6", "#8a8f98", "#b8860b")
MARKERS = ("o", "D", "s", "^", "v", "P")  # groups stay apart in black and white
_ACROSS: tuple[tuple[int, Literal["left", "right", "center"]], ...] = ((1, "left"), (-1, "right"), (0, "center"))
_HEIGHT: tuple[tuple[int, Literal["center", "bottom", "top"]], ...] = ((1, "bottom"), (-1, "top"), (0, "center"))
_COINCIDE_PX = 4.0  # points closer than this share a name
_NAMED = 3  # names of coinciding points that are written out

# Layouts are fixed, in inches, places of titles and labels too: matplotlib finds them by laying out every tick once
# more, which takes as long as the drawing. Panels and ticks are few, for each takes its milliseconds.


def spectrograms(
    path: str | Path,
    decibels: Mapping[str, npt.NDArray[np.floating]],
    events: Sequence[float],
    duration_s: float,
    title: str,
) -> None:
    """Mel-spectrograms under each other on one time axis and one colour scale; dashed lines: events.

    Args:
        decibels: name -> (num_mels, frames) as `media.mel.decibels` gives them, all covering `duration_s` from 0 s.
    """
    if not decibels:
        raise ValueError("decibels is empty: expected at least one spectrogram")
    top, below, each, gap = 0.62, 0.45, 0.85, 0.22  # inches
    height = top + len(decibels) * (each + gap) - gap + below
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI)
    tall = height - top - below
    axis = figure.add_axes((0.07, below / height, 0.82, tall / height))  # one for all: each would take as long as this
    axis.set_xlim(0.0, duration_s)
    axis.set_ylim(0.0, tall)
    for number, (name, values) in enumerate(decibels.items()):
        if values.ndim != 2:
            raise ValueError(f"decibels[{name!r}] has shape {values.shape}: expected (num_mels, frames)")
        bottom = tall - number * (each + gap) - each
        image = axis.imshow(
            values, origin="lower", aspect="auto", interpolation="nearest", cmap="magma", vmin=FLOOR_DB, vmax=0.0,
            extent=(0.0, duration_s, bottom, bottom + each),
        )  # fmt: skip
        lines = axis.vlines(
            list(events), bottom, bottom + each, EVENT_COLOUR, linewidth=0.9, linestyle=(0, (4, 4)), label="true event"
        )
        axis.add_patch(Rectangle((0.0, bottom), duration_s, each, fill=False, linewidth=0.8, clip_on=False))
        axis.text(0.0, bottom + each + 0.042, _plain(name), fontsize=9)
        axis.text(-0.006 * duration_s, bottom + each / 2, "mel bands", fontsize=8, rotation=90, ha="right", va="center")
    axis.spines[:].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.set_yticks([])
    axis.set_xlabel("time (s)", fontsize=8)
    bar = figure.colorbar(image, cax=figure.add_axes((0.905, below / height, 0.018, 1 - (top + below) / height)))
    bar.ax.set_title("dB", fontsize=8, y=1.0, pad=4)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(_plain(title), fontsize=10, y=1 - 0.1 / height, va="top")
    if events:
        legend = figure.legend(
            handles=[lines], fontsize=8, loc="upper right", bbox_to_anchor=(0.89, 1 - 0.3 / height), borderaxespad=0,
            borderpad=0.3, facecolor="#3b0f70", labelcolor="white", framealpha=1,
        )  # fmt: skip
        legend.set_zorder(5)
    _save(figure, path)


def training_curves(path: str | Path, curves: Mapping[str, Sequence[tuple[float, float]]], title: str) -> None:
    """One small panel a measure (losses and accuracies share no scale), two a row; `val_x` is drawn with `x`.

    Args:
        curves: name -> (step, value) points.
    """
    if not curves:
        raise ValueError("curves is empty: expected at least one")
    shown = [name for name in curves if name.removeprefix("val_") == name or name.removeprefix("val_") not in curves]
    columns = min(2, len(shown))
    top, below, each, gap = 0.6, 0.45, 1.4, 0.6  # inches
    height = top + math.ceil(len(shown) / columns) * (each + gap) - gap + below
    width = 0.41 if columns == 2 else 0.9
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI)
    for number, name in enumerate(shown):
        row, column = divmod(number, columns)
        bottom = height - top - row * (each + gap) - each
        axis = figure.add_axes((0.08 + column * 0.49, bottom / height, width, each / height))
        for curve, style, label in ((name, "-", "training"), (f"val_{name}", "--", "validation")):
            if curve in curves:
                steps, values = zip(*curves[curve], strict=True)
                colour, marker = COLOURS[style == "--"], "o" if len(steps) < 20 else None
                axis.plot(steps, values, style, color=colour, linewidth=1.4, marker=marker, markersize=3, label=label)
        if f"val_{name}" in curves:
            axis.legend(fontsize=8, frameon=False)
        _title(axis, name)
        _frame(axis, "step", "")
        axis.xaxis.set_label_coords(0.5, -0.28 / each)
        axis.yaxis.set_label_coords(0.0, 0.5)
        axis.locator_params(nbins=5)
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
    """FAD against DeSync, best at the lower left (Fig. 1 of the paper).

    Points that coincide share their names. Names without room are left out.
    """
    if not points:
        raise ValueError("points is empty: expected at least one")
    figure = Figure(figsize=(WIDTH_IN, 5.0), dpi=DPI)
    axis = figure.add_axes((0.08, 0.16, 0.9, 0.76))
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
    _label(axis, points, FigureCanvasAgg(figure).get_renderer())  # type: ignore[no-untyped-call]
    _save(figure, path)


def scores_against_steps(path: str | Path, curves: Mapping[str, Mapping[int, Measured]], title: str) -> None:
    """One panel a metric over the number of decoding steps (Fig. 3 of the paper); bars are intervals.

    Args:
        curves: heading of a metric -> steps -> score.
    """
    if not curves or not all(curves.values()):
        raise ValueError("curves is empty: expected at least one score of every metric")
    figure = Figure(figsize=(WIDTH_IN, 3.2), dpi=DPI)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.16, top=0.88, wspace=0.25)
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


def _title(axis: Axes, text: str) -> None:
    axis.set_title(_plain(text), fontsize=9, loc="left", y=1.0, pad=3)


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
    """Names near their points, at the first place where they cover no point and no other name."""
    at = axis.transData.transform([(point.fad.value, point.desync.value) for point in points])
    marks = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in at]
    inside, names = axis.get_window_extent(), list[Bbox]()
    for members in _coinciding(at, sorted(range(len(points)), key=lambda number: _rank(points[number]))):
        first, others = members[0], [mark for number, mark in enumerate(marks) if number not in members]
        name: Annotation = axis.annotate(
            _plain(_names([points[number].label for number in members])), (points[first].fad.value,
            points[first].desync.value), textcoords="offset points", xytext=(0, 0), fontsize=8,
            fontweight="normal" if _rank(points[first]) else "bold", zorder=4,
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
            line = Outline(np.array([at[first], ((words.x0 + words.x1) / 2, (words.y0 + words.y1) / 2)]))
            within = inside.x0 <= words.x0 and words.x1 <= inside.x1 and inside.y0 <= words.y0 and words.y1 <= inside.y1
            covers = words.overlaps(marks[first]) or any(words.overlaps(other) for other in names + others)
            crosses = any(line.intersects_bbox(other) for other in names + others)
            if within and not covers and not crosses:
                names.append(words)
                break
        else:
            name.remove()


def _coinciding(at: npt.NDArray[np.floating], order: Sequence[int]) -> list[list[int]]:
    """The numbers of the points in groups of one place, the groups and their members in the given order."""
    groups: list[list[int]] = []
    for number in order:
        near = [group for group in groups if np.hypot(*(at[number] - at[group[0]])) < _COINCIDE_PX]
        if near:
            near[0].append(number)
        else:
            groups.append([number])
    return groups


def _names(labels: Sequence[str]) -> str:
    """Of points in one place, a line each."""
    more = len(labels) - _NAMED
    return "\n".join([*labels[:_NAMED], *([f"and {more} more"] if more > 0 else [])])


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
