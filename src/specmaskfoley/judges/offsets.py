"""DeSync: by how many seconds the synchronisation judge thinks sound and picture are apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def offset_grid(max_offset_s: float, classes: int) -> npt.NDArray[np.float64]:
    """(classes,) offsets in seconds, evenly from -max to +max; 2 s and 21 classes are Synchformer's."""
    if max_offset_s <= 0 or classes < 3 or classes % 2 == 0:
        raise ValueError(
            f"max_offset_s={max_offset_s}, classes={classes}: expected a positive offset and an odd number "
            "of classes from 3 up, so that one class means 'in sync'"
        )
    grid = np.linspace(-max_offset_s, max_offset_s, classes)
    grid[classes // 2] = 0.0
    return grid


def desync(logits: npt.ArrayLike, grid: npt.ArrayLike) -> float:
    """Mean over clips of `desync_per_clip`, in seconds: that over all windows of all clips."""
    return float(desync_per_clip(logits, grid).mean())


def desync_per_clip(logits: npt.ArrayLike, grid: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(n,): mean of |grid[argmax]| over the windows of each clip, in seconds.

    The most likely class counts, not the expectation over classes: that is what av-benchmark reports.

    Args:
        logits: (n, windows, classes); av-benchmark has two windows, the first and the last 14 segments.
        grid: (classes,) offsets in seconds.
    """
    scores, offsets = np.asarray(logits, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    if scores.ndim != 3 or 0 in scores.shape or offsets.shape != scores.shape[2:]:
        raise ValueError(
            f"logits {scores.shape} and grid {offsets.shape}: expected (clips, windows, classes) and (classes,)"
        )
    if not np.isfinite(scores).all():
        raise ValueError("logits hold NaN or infinite values")
    offset: npt.NDArray[np.float64] = np.abs(offsets[scores.argmax(axis=2)]).mean(axis=1)
    return offset
