"""What the judges made of sounds: the arrays that metrics are computed from.

Shape letters: n clips, C classes, D width, k stretches a clip, w windows of the offset judge, O offset classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OF_SOUND = ("logits", "embedding", "stretches", "joint")
"""The arrays of `Listened` with a row a clip that depend on the sound alone."""


@dataclass(frozen=True)
class Listened:
    """What the judges made of the sounds of n clips."""

    logits: np.ndarray
    """(n, C) of the tagger: KL and the inception score."""
    embedding: np.ndarray
    """(n, D) of the tagger: FD."""
    stretches: np.ndarray
    """(n, k, D) of the audio embedder: FAD."""
    joint: np.ndarray
    """(n, D) of the audio-video embedder: IB score."""
    onsets: tuple[np.ndarray, ...]
    """n arrays of times in seconds."""
    offsets: tuple[np.ndarray, ...]
    """For each list of videos that the sounds were paired with: offset logits (n, w, O), for DeSync."""

    def at(self, rows: np.ndarray) -> Listened:
        """The given clips, in the given order."""
        return Listened(
            **{name: getattr(self, name)[rows] for name in OF_SOUND},
            onsets=tuple(self.onsets[row] for row in rows),
            offsets=tuple(array[rows] for array in self.offsets),
        )


@dataclass(frozen=True, kw_only=True)
class Partners:
    """What n sounds are compared with, clip by clip: their own clips, or other clips to see what chance gives.

    What is not known is None; the metrics that need it are then left out.
    """

    logits: np.ndarray
    """(n, C) of the tagger for the true sounds."""
    seen: np.ndarray | None = None
    """(n, D) of the audio-video embedder for the videos."""
    offsets: np.ndarray | None = None
    """(n, w, O) offset logits of each sound with its partner's video."""
    grid: np.ndarray | None = None
    """(O,) seconds that the offset classes stand for."""
    events: Sequence[Sequence[float]] | None = None
    """True event times in seconds; an empty list for a clip without events."""
    tolerance_s: float = 0.0
    """How far apart an onset and an event may be to match."""
