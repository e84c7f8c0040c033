"""From what the judges heard to numbers: metrics of one system on the same clips, with intervals.

Shape letters: n clips, k stretches a clip, D width, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from specmaskfoley.evaluation.judging import Listened
from specmaskfoley.evaluation.metrics.frechet import frechet_distance
from specmaskfoley.evaluation.metrics.ib import ib_per_clip
from specmaskfoley.evaluation.metrics.inception import SPLITS, inception_score
from specmaskfoley.evaluation.metrics.kl import kl_per_clip
from specmaskfoley.judges.offsets import desync_per_clip

METRICS = {
    "fd": (0.0, np.inf),
    "fad": (0.0, np.inf),
    "kl": (0.0, np.inf),
    "ib": (-1.0, 1.0),
    "desync": (0.0, np.inf),
    "isc": (1.0, np.inf),
    "onset_f1": (0.0, 1.0),
}
"""Name -> the least and the most that it can be."""

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Sounds:
    """One take of one system beside its reference, n clips.

    Attributes:
        embedding, true_embedding: (n, D), FD.
        stretches, true_stretches: (n, k, D), FAD.
        logits: (n, C), inception score.
        per_clip: kl, and where they are known ib, desync, onset_f1: (n,), NaN where a clip has no such value.
    """

    embedding: np.ndarray
    true_embedding: np.ndarray
    stretches: np.ndarray
    true_stretches: np.ndarray
    logits: np.ndarray
    per_clip: Mapping[str, np.ndarray]

    def at(self, rows: np.ndarray) -> Sounds:
        """The same of some clips."""
        return Sounds(
            self.embedding[rows],
            self.true_embedding[rows],
            self.stretches[rows],
            self.true_stretches[rows],
            self.logits[rows],
            {name: values[rows] for name, values in self.per_clip.items()},
        )


def sounds_of(
    heard: Listened,
    true: Listened,
    seen: np.ndarray | None,
    offsets: np.ndarray | None,
    grid: np.ndarray,
    onset_f1: Sequence[float] = (),
    partners: np.ndarray | None = None,
) -> Sounds:
    """What the judges heard of a system and of the reference, row by row the same clips.

    Args:
        seen: (n, D) of the videos, if there are any.
        offsets: (n, w, O) logits, if there are videos; row i of sound i and its partner's video.
        onset_f1: n values, NaN for clips without known events; or none.
        partners: the clip that each sound is held against, where it is not its own.
    """
    beside = slice(None) if partners is None else partners
    per_clip = {"kl": kl_per_clip(true.logits[beside], heard.logits)}
    if seen is not None:
        per_clip["ib"] = ib_per_clip(seen[beside], heard.joint)
    if offsets is not None:
        per_clip["desync"] = desync_per_clip(offsets, grid)
    if len(onset_f1) and not np.isnan(onset_f1).all():
        per_clip["onset_f1"] = np.asarray(onset_f1, dtype=np.float64)
    return Sounds(heard.embedding, true.embedding, heard.stretches, true.stretches, heard.logits, per_clip)


def scores(takes: Sequence[Sounds]) -> dict[str, float]:
    """The metrics, each the mean over takes."""
    rows = [_scores(take) for take in takes]
    return {name: float(np.mean([row[name] for row in rows])) for name in METRICS if name in rows[0]}


def deviations(takes: Sequence[Sounds]) -> dict[str, float]:
    """The sample standard deviation of each metric over takes; empty for a single one."""
    rows = [_scores(take) for take in takes]
    if len(rows) < 2:
        return {}
    return {name: float(np.std([row[name] for row in rows], ddof=1)) for name in METRICS if name in rows[0]}


def intervals(takes: Sequence[Sounds], resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals over clips of the metrics' means over takes.

    The value plus and minus 1.96 standard deviations of its resamples, as far as the metric goes. Not their
    percentiles: a resample holds fewer different clips than the set, which raises a Fréchet distance, so that its
    percentiles may lie beside the value. All takes and systems are resampled alike for one seed. The inception score
    has none: it depends on how clips are shuffled into splits.

    Args:
        resamples: 0 for no intervals.
    """
    if not resamples:
        return {}
    clips = len(takes[0].embedding)
    counts = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), size=resamples)
    value = scores(takes)
    spread = {
        name: float(np.mean([_mean(counts, take.per_clip[name]) for take in takes], axis=0).std(ddof=1))
        for name in takes[0].per_clip
    }
    distances = [[_distances(take, row) for take in takes] for row in counts]  # (R, takes, 2)
    for number, name in enumerate(("fd", "fad")):
        spread[name] = float(np.asarray(distances)[:, :, number].mean(axis=1).std(ddof=1))
    found = {}
    for name, (least, most) in METRICS.items():
        if name in spread:
            low, high = (value[name] + side * _NORMAL_95 * spread[name] for side in (-1, 1))
            found[name] = (max(low, least), min(high, most))
    return found


def _scores(take: Sounds) -> dict[str, float]:
    fd, fad = _distances(take)
    means = {name: float(np.nanmean(values)) for name, values in take.per_clip.items()}
    # A handful of clips cannot be split as the score's definition wants it.
    isc = {"isc": inception_score(take.logits)[0]} if len(take.logits) >= SPLITS else {}
    return {"fd": fd, "fad": fad, **means, **isc}


def _distances(take: Sounds, counts: np.ndarray | None = None) -> tuple[float, float]:
    """FD and FAD; of each clip as often as `counts` (n,) says."""
    stretches = [array.reshape(-1, array.shape[-1]) for array in (take.stretches, take.true_stretches)]
    each = None if counts is None else np.repeat(counts, take.stretches.shape[1])
    return (
        frechet_distance(take.embedding, take.true_embedding, counts),
        frechet_distance(stretches[0], stretches[1], each),
    )


def _mean(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means (R,) of values (n,), each taken as often as counts (R, n) say; NaN values do not count."""
    known = ~np.isnan(values)
    total = counts[:, known].sum(axis=1)
    # A resample without a known value says nothing; one in the mean's place adds nothing to the spread.
    return np.where(total > 0, counts[:, known] @ values[known] / np.maximum(total, 1), values[known].mean())
