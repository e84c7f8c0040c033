"""Which of several takes is best, by the judges of the evaluation.

They share no weights with the encoders that steer the sampling: a take does not score well only because it fits these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax

from specmaskfoley.judges.panel import Panel
from specmaskfoley.media.frames import stream_views
from specmaskfoley.media.sound import resample_part
from specmaskfoley.metrics.ib import ib_per_clip

_MOST_WINDOWS = 8
"""How many stretches of a long video are judged, evenly spread."""


def judge(
    panel: Panel, video: Path, duration_s: float, sounds: Sequence[tuple[np.ndarray, int]]
) -> list[dict[str, float]]:
    """Scores of sounds, each a waveform (samples,) or (samples, channels) and its rate, for one video.

    sync_s: seconds between picture and sound: the expected distance over the classes of the offset classifier. The most
        likely class alone would be the same for most candidates.
    semantic: how well the sound fits what is seen: cosine of the audio-video embedder, -1..1.
    overall: semantic - sync_s / the largest offset; higher is better.
    """
    count = min(_MOST_WINDOWS, max(1, math.ceil(duration_s / panel.duration_s)))
    starts = np.linspace(0.0, max(0.0, duration_s - panel.duration_s), count)
    largest = float(np.abs(panel.grid).max())
    found = np.zeros((len(sounds), count, 2))
    for number, frames in enumerate(stream_views(video, panel.views, starts.tolist())):
        seen = panel.see({view: torch.from_numpy(array)[None] for view, array in frames.items()})
        for row, (waveform, rate) in enumerate(sounds):
            waves = {
                sound: torch.from_numpy(heard_by(waveform, rate, sound.sample_rate, starts[number], sound.num_samples))[
                    None
                ]
                for sound in panel.sounds
            }
            heard = panel.hear(waves)
            chances = softmax(panel.offsets(seen.windows, heard.windows).astype(np.float64), axis=-1)
            found[row, number] = (chances @ np.abs(panel.grid)).mean(), ib_per_clip(seen.joint, heard.joint)[0]
    return [
        {"sync_s": float(sync), "semantic": float(semantic), "overall": float(semantic - sync / largest)}
        for sync, semantic in found.mean(axis=1)
    ]


def heard_by(waveform: np.ndarray, rate: int, to: int, start_s: float, count: int) -> np.ndarray:
    """`count` samples from `start_s` on at the rate `to`, the mean of the channels."""
    channels = waveform.T if waveform.ndim == 2 else waveform[None]
    parts = [resample_part(channel, rate, to, round(start_s * to), count) for channel in channels]
    return np.asarray(np.mean(parts, axis=0), np.float32)
