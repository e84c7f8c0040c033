"""The table of systems: every metric on the same clips.

Shape letters: n clips, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from specmaskfoley.config import Evaluate
from specmaskfoley.evaluation.onsets import detect_onsets, onset_summary
from specmaskfoley.evaluation.panel import Heard, Panel, Seen
from specmaskfoley.storage.clips import Sound, stream_media

Scores = dict[str, dict[str, float]]


class Row(Protocol):
    """What the comparison needs to know of a clip."""

    @property
    def events(self) -> tuple[float, ...] | None: ...


@dataclass(frozen=True)
class HeldOut:
    """The test split as every system heard it.

    files: one sound a row of the ledger by system, `ground_truth` (the clips themselves) among them; seconds_per_clip
    by system where it was sampled; sound: how onsets are heard; duration_s: of the token grid.
    """

    rows: Sequence[Row]
    files: dict[str, list[Path]]
    seconds_per_clip: dict[str, float]
    sound: Sound
    duration_s: float
    workers: int


def compare_systems(panel: Panel, test: HeldOut, settings: Evaluate, seed: int) -> Scores:
    """fd, fad, kl, ib, desync, onset_f1, clips, onset_clips and sample_time_s by system.

    `shuffled` is specmaskfoley's sound beside another clip's video: what chance gives.
    """
    seen = look(panel, test)
    heard, onsets = {}, {}
    for system in test.files:
        heard[system], onsets[system] = listen(panel, test, system)
    other = derangement(len(test.rows), seed)
    heard["shuffled"] = heard["specmaskfoley"].take(other)
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


def look(panel: Panel, test: HeldOut) -> Seen:
    """Show the judges every video."""
    parts = [
        panel.see({view: torch.from_numpy(frames) for view, frames in media.frames.items()})
        for media in stream_media(
            test.files["ground_truth"],
            views=panel.views,
            batch_size=panel.batch_size,
            workers=test.workers,
            title="watching",
        )
    ]
    return Seen.join(parts)


def listen(panel: Panel, test: HeldOut, system: str) -> tuple[Heard, list[np.ndarray]]:
    """Play the judges every sound of a system; the onsets of each clip come with it."""
    parts: list[Heard] = []
    onsets: list[np.ndarray] = []
    for media in stream_media(
        test.files[system],
        sounds=(*panel.sounds, test.sound),
        batch_size=panel.batch_size,
        workers=test.workers,
        title=f"listening to {system}",
    ):
        parts.append(panel.hear({sound: torch.from_numpy(wave) for sound, wave in media.waves.items()}))
        onsets += [detect_onsets(wave, test.sound.sample_rate) for wave in media.waves[test.sound]]
    return Heard.join(parts), onsets


def derangement(count: int, seed: int) -> np.ndarray:
    """A seeded order in which no clip keeps its place (count 1: itself, there is no other)."""
    order = np.random.default_rng(seed).permutation(count)
    place = np.empty(count, dtype=np.int64)
    # One cycle through a random order: each clip gets its successor.
    place[order] = np.roll(order, -1)
    return place
