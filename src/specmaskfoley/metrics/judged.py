"""What the judges made of sounds: the arrays that metrics are computed from.

Shape letters: n clips, C classes, D width, k stretches a clip, w windows of the offset judge, O offset classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class SoundArrays:
    """What the networks make of the sounds of n clips."""

    logits: np.ndarray
    """(n, C) of the tagger: KL and the inception score."""
    embedding: np.ndarray
    """(n, D) of the tagger: FD."""
    stretches: np.ndarray
    """(n, k, D) of the audio embedder, a row about every second: FAD."""
    joint: np.ndarray
    """(n, D) of the audio-video embedder: IB score."""


OF_SOUND = tuple(field.name for field in fields(SoundArrays))


@dataclass(frozen=True)
class Listened(SoundArrays):
    """The same with the onsets that were detected, and how the sounds fit to videos."""

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
