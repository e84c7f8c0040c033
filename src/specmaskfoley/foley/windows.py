"""Which windows of the token grid are sampled one after the other.

The model samples windows of `width` columns. Columns at the start or end of a window that are drawn already are kept;
the rest is in-painted, so that the sound goes on over the seam.
"""

from __future__ import annotations

import numpy as np


def plan_windows(todo: np.ndarray, width: int, overlap: int) -> list[int]:
    """First columns of windows that together cover all columns to do, ascending.

    A window that goes on from the one before shares `overlap` columns with it; a short run of columns lies in the
    middle of its window, with context on both sides.

    Args:
        todo: (columns,) bool; at least `width` columns.
    """
    if not 0 <= overlap < width <= len(todo):
        raise ValueError(f"width={width} must be above overlap={overlap} and at most the {len(todo)} columns")
    starts: list[int] = []
    columns, done = np.flatnonzero(todo), 0
    while done < len(columns):
        ahead = columns[done : done + width]  # a longer run is planned alike
        first = int(ahead[0])
        gaps = np.flatnonzero(np.diff(ahead) > 1)
        run = int(ahead[gaps[0]] if len(gaps) else ahead[-1]) + 1 - first
        begin = first - (width - run) // 2 if run <= width - 2 * overlap else first - overlap
        begin = min(max(0, begin), len(todo) - width)
        starts.append(begin)
        done = int(np.searchsorted(columns, begin + width))
    return starts
