"""How loud a sound is, and whether it is as good as none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FRAME_S = 0.05
"""Short enough that a knock or a click fills a frame."""
QUIET_DB = -60.0
"""A frame below it is lost in the noise of a room where the loudest sounds are at a pleasant level."""
MOSTLY = 0.75
"""The share of quiet frames from which a sound is nothing but its loudest moments."""
FAINT_DB = -30.0
"""A loudest moment below it is a click in the background. Of sixteen takes of real clips the four of which BS.1770 says
-38 to -54 LUFS at their loudest have -32 to -44 dBFS here, the other twelve (-34 to -15 LUFS) -25 to -7 dBFS."""
LOW_DB = -50.0
"""A sound that never rises above it is nearly silent, however steady it is."""

_FLOOR_DB = -120.0
"""Digital silence, and all that 16 bits cannot hold."""
_FRAMES = 1000
"""Frames that are read at a time, so that a long sound takes no memory."""


@dataclass(frozen=True)
class Level:
    """Of frames of 50 ms.

    loudest_db: RMS of the loudest frame in dBFS: 0 is a square wave at full scale, -120 digital silence.
    quiet_share: of the frames below -60 dBFS, 0..1.
    """

    loudest_db: float
    quiet_share: float

    @property
    def nearly_silent(self) -> bool:
        """Whether there is hardly anything to hear; one knock in ten seconds is a sound."""
        mostly_quiet = self.quiet_share >= MOSTLY
        return self.loudest_db < LOW_DB or (mostly_quiet and self.loudest_db < FAINT_DB)

    @property
    def sentence(self) -> str:
        """The level in one line, and what to do if there is hardly any."""
        measured = (
            f"the loudest moment is at {self.loudest_db:.0f} dBFS, {100 * self.quiet_share:.0f} % of the time is below "
            f"{QUIET_DB:.0f} dBFS"
        )
        if not self.nearly_silent:
            return f"level: {measured}"
        return f"nearly silent: {measured}; try another text, another seed, or a sound that the model knows"

    @property
    def facts(self) -> dict[str, float | bool]:
        """For a record."""
        return {
            "loudest_db": round(self.loudest_db, 1), "quiet_share": round(self.quiet_share, 3),
            "nearly_silent": self.nearly_silent,
        }  # fmt: skip


def level_of(waveform: np.ndarray, rate: int, spans: Sequence[tuple[float, float]] = ((0.0, math.inf),)) -> Level:
    """Of a waveform (samples,), or (samples, channels), of which the loudest channel counts; it is read piece by piece.

    A constant offset is no sound.

    Args:
        spans: from and to in seconds; what lies outside does not count.
    """
    size = max(1, round(FRAME_S * rate))
    power = [np.zeros(0)]
    for begin, end in spans:
        first, last = round(begin * rate), len(waveform) if math.isinf(end) else min(len(waveform), round(end * rate))
        for start in range(first, last, _FRAMES * size):
            block = np.asarray(waveform[start : min(start + _FRAMES * size, last)], np.float64)
            power.append(_frames(block if block.ndim == 2 else block[:, None], size))
    decibels = 10 * np.log10(np.maximum(np.concatenate(power), 10 ** (_FLOOR_DB / 10)))
    if not len(decibels):
        return Level(_FLOOR_DB, 1.0)
    return Level(float(decibels.max()), float((decibels < QUIET_DB).mean()))


def _frames(block: np.ndarray, size: int) -> np.ndarray:
    """(frames,) power of the loudest channel of a block (samples, channels)."""
    cuts = np.arange(0, len(block), size)
    counts = np.diff([*cuts, len(block)])[:, None]
    mean = np.add.reduceat(block, cuts) / counts
    power = np.add.reduceat(block**2, cuts) / counts - mean**2
    return np.asarray(power.max(axis=1))
