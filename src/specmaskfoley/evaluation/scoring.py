"""From what the judges heard to numbers: the metrics of one system, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from specmaskfoley.metrics import EXTRA, METRICS
from specmaskfoley.metrics.judged import Listened, Partners

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class JudgedTake:
    """One take of one system beside the true sounds of the same n clips.

    `per_clip` holds the values (n,) of the metrics that have one a clip, NaN for a clip without.
    """

    heard: Listened
    true: Listened
    per_clip: Mapping[str, np.ndarray]

    @cached_property
    def scores(self) -> dict[str, float]:
        """Every metric that these sounds have, in the order of METRICS and EXTRA."""
        found = {}
        for metric in (*METRICS, *EXTRA):
            if metric.of_set is not None:
                value = metric.of_set(self.heard, self.true, None)
            else:
                value = float(np.nanmean(self.per_clip[metric.name])) if metric.name in self.per_clip else None
            if value is not None:
                found[metric.name] = value
        return found

    def at(self, rows: np.ndarray) -> JudgedTake:
        """The given clips."""
        per_clip = {name: values[rows] for name, values in self.per_clip.items()}
        return JudgedTake(self.heard.at(rows), self.true.at(rows), per_clip)


def judged_take(heard: Listened, true: Listened, partners: Partners) -> JudgedTake:
    """Compute what each clip has of its own; row i of all three is about the same sound."""
    per_clip = {}
    for metric in METRICS:
        values = None if metric.per_clip is None else metric.per_clip(heard, partners)
        if values is not None and not np.isnan(values).all():
            per_clip[metric.name] = values
    return JudgedTake(heard, true, per_clip)


def mean_scores(takes: Sequence[JudgedTake]) -> dict[str, float]:
    """Each metric's mean over takes."""
    return {name: float(np.mean([take.scores[name] for take in takes])) for name in takes[0].scores}


def deviations(takes: Sequence[JudgedTake]) -> dict[str, float]:
    """The sample standard deviation of each metric over takes; empty for a single one."""
    if len(takes) < 2:
        return {}
    return {name: float(np.std([take.scores[name] for take in takes], ddof=1)) for name in takes[0].scores}


def intervals(takes: Sequence[JudgedTake], resamples: int, seed: int) -> dict[str, tuple[float, float]]:
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
    clips = len(takes[0].heard.embedding)
    counts = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), size=resamples)
    value = mean_scores(takes)
    found = {}
    for metric in (*METRICS, *EXTRA):
        name, (least, greatest) = metric.name, metric.bounds
        if metric.of_set is not None:
            rows = [[metric.of_set(take.heard, take.true, row) for take in takes] for row in counts]
            if rows[0][0] is None:
                continue
            spread = float(np.array(rows, dtype=np.float64).mean(axis=1).std(ddof=1))
        elif name in takes[0].per_clip:
            spread = float(np.mean([_mean(counts, take.per_clip[name]) for take in takes], axis=0).std(ddof=1))
        else:
            continue
        low, high = (value[name] + side * _NORMAL_95 * spread for side in (-1, 1))
        found[name] = (max(low, least), min(high, greatest))
    return found


def _mean(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means (R,) of values (n,), each taken as often as counts (R, n) say; NaN values do not count."""
    known = ~np.isnan(values)
    total = counts[:, known].sum(axis=1)
    # A resample without a known value says nothing; the mean in its place adds nothing to the spread.
    return np.where(total > 0, counts[:, known] @ values[known] / np.maximum(total, 1), values[known].mean())
