"""Are sounds of the kind that judges trained here know?

A small network has an opinion on any sound; its scores mean something only for sounds like those that it learnt. Its
own embedding cannot tell which these are: it maps all that it hears to the classes that it knows. So spectra are
compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from specmaskfoley.media.clips import model_sound, stream_media
from specmaskfoley.media.mel import MelSpectrogram, decibels
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import ready_clips

FAR = 3.5
"""Sounds whose median distance is this many times that of the known sounds from each other are of another kind.

Beside 240 training clips of `mini`: the 72 test clips 0.9, the worst of 500 draws of 8 of them 1.9, of single classes
the church bells 3.0; 8 clips of VGGSound 5.6.
"""

_KNOWN_CLIPS = 240  # of the training split, at random: reading them takes seconds
_FLOOR_DB = -100.0
_BATCH = 24


def foreign(sounds: Sequence[Path], params: Params) -> str:
    """Why judges that were trained here tell little of these sounds; empty if they know their kind, or are official.

    Raises:
        MediaError: a sound cannot be read.
    """
    if params.judges.kind != "mini":
        return ""
    known = known_sounds(params)
    judges = f"The judges of profile {params.profile}"
    if len(known) < 2:
        return f"{judges} know sounds like those of their training only; these are not here to compare with (dvc pull)."
    ratio = distance_ratio(spectra(sounds, params), spectra(known, params))
    if ratio < FAR:
        return ""
    return (
        f"{judges} were trained on other sounds: these lie {ratio:.1f} times as far from them as they do from each "
        f"other (limit {FAR:g}). The scores say little, and no system is marked as best; official judges: --profile "
        "vggsound."
    )


def known_sounds(params: Params) -> list[Path]:
    """Clips that the judges were trained on, as far as they are here."""
    rows = ready_clips(params.paths.usable, "train") if Path(params.paths.usable).exists() else []
    some = np.random.default_rng(params.seed).permutation(len(rows))[:_KNOWN_CLIPS]
    return [path for number in some if (path := Path(rows[number].path)).exists()]


def distance_ratio(given: np.ndarray, known: np.ndarray) -> float:
    """Median distance of `given` (n, D) to the nearest of `known` (m, D), over that of these to each other; m >= 2."""
    among = _distances(known, known)
    np.fill_diagonal(among, np.inf)
    usual = max(float(np.median(among.min(axis=1))), 1e-9)
    return float(np.median(_distances(given, known).min(axis=1))) / usual


def spectra(sounds: Sequence[Path], params: Params) -> np.ndarray:
    """(n, 2 M): mean and standard deviation over time of each mel band, in dB."""
    sound, mel, found = model_sound(params), MelSpectrogram(params.audio), []
    for batch in stream_media(sounds, sounds=(sound,), batch_size=_BATCH, workers=params.run.workers):
        levels = decibels(mel, mel(torch.from_numpy(batch.waves[sound]))).clamp(min=_FLOOR_DB)
        found.append(torch.cat([levels.mean(dim=2), levels.std(dim=2)], dim=1).numpy())
    rows: np.ndarray = np.concatenate(found).astype(np.float64)
    return rows


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, m)"""
    between: np.ndarray = np.sqrt(np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0))
    return between
