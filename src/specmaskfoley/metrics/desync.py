"""DeSync: by how many seconds the offset judge thinks sound and picture are apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from specmaskfoley.metrics.judged import Listened, Partners


def desync_scores(heard: Listened, partners: Partners) -> npt.NDArray[np.float64] | None:
    """The metric, clip by clip."""
    if partners.offsets is None or partners.grid is None:
        return None
    return desync_per_clip(partners.offsets, partners.grid)


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
