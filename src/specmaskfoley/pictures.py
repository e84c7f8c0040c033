"""Pictures for the report and `dvc plots`: arrays in, a PNG file out, equal bytes for equal arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from specmaskfoley.storage.files import atomic_path

WIDTH_IN = 8.0
DPI = 100
QUIET_PERCENTILE = 1.0  # one silent frame must not take half of the colours
EVENT_COLOUR = "#4de3ff"  # not in the colour map, and dashed: the attack stays visible under the line


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


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would read a label's dollar signs as a formula


def _save(figure: Figure, path: str | Path) -> None:
    """Without pyplot's global state, and without the version that matplotlib stamps into its files."""
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
