"""The offsets between sound and picture that the classes of Synchformer and of the mini offset judge stand for."""

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
