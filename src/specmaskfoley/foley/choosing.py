"""Which of several takes is best, by the judges of the evaluation.

They share no weights with the encoders that steer the sampling: a take does not score well only because it fits these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from specmaskfoley.media.frames import stream_views
from specmaskfoley.media.sound import resample_part
from specmaskfoley.settings import Params

if TYPE_CHECKING:
    from specmaskfoley.judges.panel import Panel

_MOST_WINDOWS = 8
"""How many stretches of a long video are judged, evenly spread."""
_IN_TIME, _ABOUT_CHANCE = 0.4, 0.7
"""Shares of the distance that a sound at a random time has; see docs/foley.md for this and the next two."""
_FITS = {"mini": (0.45, 0.7)}
"""judges.kind -> up to which cosine a sound fits something else, and from which it fits what is seen; without an entry
there are no words."""
_TIE = 0.2
"""A difference of `overall` that is within the noise of the judges."""


@dataclass(frozen=True)
class Verdict:
    """The scores of one of several takes in words.

    sync: how well picture and sound go together in time.
    meaning: how well the sound fits what is seen.
    overall: what orders the takes; higher is better.
    best: whether the take may be called the best.
    why: why it is where it is, in a sentence.
    """

    sync: str
    meaning: str
    overall: float
    best: bool
    why: str

    @property
    def scores(self) -> str:
        """The scores in one line."""
        return f"{self.sync}, meaning: {self.meaning}, overall {self.overall:.2f}"

    @property
    def place(self) -> str:
        """Why the take is where it is, in one line; empty where there is nothing to say."""
        return f"fits best: {self.why}" if self.best else self.why


def judge(
    panel: Panel, video: Path, duration_s: float, sounds: Sequence[tuple[np.ndarray, int]]
) -> list[dict[str, float]]:
    """Scores of sounds, each a waveform (samples,) or (samples, channels) and its rate, for one video.

    sync_s: seconds between picture and sound: the expected distance over the classes of the offset classifier. The most
        likely class alone would be the same for most candidates.
    semantic: how well the sound fits what is seen: cosine of the audio-video embedder, -1..1.
    overall: semantic - sync_s / the largest offset; higher is better.
    """
    from scipy.special import softmax  # this and metrics take a quarter of a second: not where a take is alone

    from specmaskfoley.metrics.ib import ib_per_clip

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


def doubt(params: Params) -> str:
    """What is to be said of the judges' numbers where they know little; else empty."""
    if params.judges.kind != "mini":
        return ""
    known = "drawn scenes" if params.data.source == "world" else "the clips of this project"
    return f"the judges have only learnt from {known}: of other videos their numbers say little"


def rank(scores: Sequence[dict[str, float]], silent: Sequence[bool]) -> list[int]:
    """The takes by their scores, the best first; those that are nearly silent come last."""
    return sorted(range(len(scores)), key=lambda index: (silent[index], -scores[index]["overall"]))


def verdicts(scores: Sequence[dict[str, float]], silent: Sequence[bool], grid: np.ndarray, kind: str) -> list[Verdict]:
    """What the scores of several takes say, for people.

    Args:
        scores: of the takes in the order of `rank`.
        silent: which of them are nearly silent.
        grid: (O,) seconds of the offset classes.
        kind: of the judges.
    """
    chance_s, largest_s = float(np.abs(grid).mean()), float(np.abs(grid).max())
    heard = [one for one, quiet in zip(scores, silent, strict=True) if not quiet]
    best, why = _first(heard, _ABOUT_CHANCE * chance_s)
    found = []
    for number, (one, quiet) in enumerate(zip(scores, silent, strict=True)):
        reason = why if number == 0 else "nearly silent, and so among the last" if quiet else ""
        sync, meaning = _sync_in_words(one["sync_s"], chance_s, largest_s), _meaning_in_words(one["semantic"], kind)
        found.append(Verdict(sync, meaning, one["overall"], number == 0 and best, reason))
    return found


def _first(heard: Sequence[dict[str, float]], chance_s: float) -> tuple[bool, str]:
    """Whether the first of the takes that can be heard is the best, and why it is the first."""
    if not heard:
        return False, "all takes are nearly silent"
    if all(one["sync_s"] >= chance_s for one in heard):
        return False, "no take is more in time than chance, and so none is the best"
    if len(heard) == 1:
        return False, "first because all others are nearly silent"
    first, second = heard[:2]
    if first["overall"] - second["overall"] < _TIE:
        return False, "first, but the next take is as good within the noise of the judges"
    times, fits = ([round(one[name], 2) for one in (first, second)] for name in ("sync_s", "semantic"))  # as shown
    sooner, closer = times[0] < times[1], fits[0] > fits[1]
    time = f"in time ({times[0]:.2f} s against {times[1]:.2f} s)"
    fit = f"fitting ({fits[0]:.2f} against {fits[1]:.2f})"
    gain, loss = (time, fit) if sooner else (fit, time)
    reason = f"more {gain} than the next take, which outweighs that it is less {loss}"
    if sooner and closer:
        reason = f"more {time} and more {fit} than the next take"
    elif times[0] == times[1] or fits[0] == fits[1]:
        reason = f"more {gain} than the next take"
    best = first["sync_s"] < chance_s
    return best, reason if best else f"first, but about as much in time as chance: it is {reason}"


def _sync_in_words(sync_s: float, chance_s: float, largest_s: float) -> str:
    if sync_s < _IN_TIME * chance_s:
        return f"in time ({sync_s:.2f} s)"
    if sync_s < _ABOUT_CHANCE * chance_s:
        return f"partly in time ({sync_s:.2f} s)"
    return f"about chance ({sync_s:.2f} s; 0 to {largest_s:.1f} s at random is {chance_s:.2f} s)"


def _meaning_in_words(semantic: float, kind: str) -> str:
    if kind not in _FITS:
        return f"{semantic:.2f} (-1 to 1)"
    other, true = _FITS[kind]
    words = "fits what is seen" if semantic >= true else "fits in part" if semantic > other else "fits something else"
    return f"{words} ({semantic:.2f})"
