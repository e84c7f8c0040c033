"""The table of systems: every metric on the same clips.

Shape letters: n clips, M mel bands, L mel frames, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from specmaskfoley.config import Evaluate
from specmaskfoley.evaluation.onsets import detect_onsets, onset_summary
from specmaskfoley.evaluation.panel import Panel, take

Scores = dict[str, dict[str, float]]


class Row(Protocol):
    """What the comparison needs to know of a clip."""

    @property
    def events(self) -> tuple[float, ...] | None: ...


@dataclass(frozen=True)
class HeldOut:
    """The test split as every system heard it.

    waveforms (n, N) and log_mels (n, M, L) by system, `ground_truth` among them; rows of the ledger;
    sync_frames and semantic_frames of the videos; seconds_per_clip by system where it was sampled.
    """

    rows: Sequence[Row]
    waveforms: dict[str, np.ndarray]
    log_mels: dict[str, Tensor]
    sync_frames: Tensor
    semantic_frames: Tensor
    seconds_per_clip: dict[str, float]
    sample_rate: int
    duration_s: float


def compare_systems(panel: Panel, test: HeldOut, settings: Evaluate, seed: int) -> Scores:
    """fd, fad, kl, ib, desync, onset_f1, clips, onset_clips and sample_time_s by system.

    `shuffled` is specmaskfoley's sound beside another clip's video: what chance gives.
    """
    seen = panel.see(test.sync_frames, test.semantic_frames)
    heard = {system: panel.hear(log_mel) for system, log_mel in test.log_mels.items()}
    onsets = {
        system: [detect_onsets(wave, test.sample_rate) for wave in waveforms]
        for system, waveforms in test.waveforms.items()
    }
    other = derangement(len(test.rows), seed)
    heard["shuffled"] = take(heard["specmaskfoley"], other)
    onsets["shuffled"] = [onsets["specmaskfoley"][index] for index in other]

    # Events beyond the token grid can be in no generated sound; they count for no system.
    known = [index for index, row in enumerate(test.rows) if row.events is not None]
    events = [[t for t in test.rows[index].events or () if t < test.duration_s] for index in known]
    scores: Scores = {}
    for system, sounds in heard.items():
        row = panel.score(sounds, heard["ground_truth"], seen)
        found = [onsets[system][index].tolist() for index in known]
        timing = onset_summary(events, found, settings.onset_tolerance_s)
        if timing is not None:
            row |= {"onset_f1": timing.f1, "onset_clips": timing.clips}
        row["clips"] = len(test.rows)
        if system in test.seconds_per_clip:
            row["sample_time_s"] = test.seconds_per_clip[system]
        scores[system] = {
            name: value if isinstance(value, int) else float(f"{value:.6g}") for name, value in row.items()
        }
    return scores


def derangement(count: int, seed: int) -> np.ndarray:
    """A seeded order in which no clip keeps its place (count 1: itself, there is no other)."""
    order = np.random.default_rng(seed).permutation(count)
    place = np.empty(count, dtype=np.int64)
    # One cycle through a random order: each clip gets its successor.
    place[order] = np.roll(order, -1)
    return place
