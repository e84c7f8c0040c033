"""Inception score: are single clips clear cases of something, and the set as a whole of many things?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from specmaskfoley.metrics.judged import Listened

SPLITS = 10


class InceptionScore(NamedTuple):
    """Mean and standard deviation (population, as torch-fidelity has it) over the splits; 1 is the lowest score."""

    mean: float
    sd: float


def isc_score(heard: Listened, true: Listened, counts: npt.NDArray[np.int64] | None = None) -> float | None:
    """The metric; None for resampled clips (it depends on how they are shuffled) and for fewer clips than SPLITS."""
    return inception_score(heard.logits).mean if counts is None and len(heard.logits) >= SPLITS else None


def inception_score(logits: npt.ArrayLike, splits: int = SPLITS, seed: int = 2020) -> InceptionScore:
    """exp of the mean over clips of KL(p(class | clip) || p(class)), within each of `splits` shuffled parts.

    The parts, their shuffling by numpy's old generator and the softmax over the logits are av-benchmark's (there ISC),
    which took them from torch-fidelity. A score grows with the clips of a part: compare equal numbers of clips only.

    Args:
        logits: (n, c) of generated clips, n >= splits.
        splits: parts, whose sizes differ by one clip at most.
        seed: of the shuffling; the order of the clips matters for the same reason.
    """
    from scipy.special import log_softmax

    scores = np.asarray(logits, dtype=np.float64)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"logits {scores.shape}: expected (clips, classes) with at least one clip")
    if not 1 <= splits <= len(scores):
        raise ValueError(f"splits={splits} of {len(scores)} clips: expected from 1 to the number of clips")
    if not np.isfinite(scores).all():
        raise ValueError("logits hold NaN or infinite values")
    log_p = log_softmax(scores[np.random.RandomState(seed).permutation(len(scores))], axis=1)
    bounds = np.arange(1, splits) * len(scores) // splits
    parts = [_score(part) for part in np.split(log_p, bounds)]
    return InceptionScore(float(np.mean(parts)), float(np.std(parts)))


def _score(log_p: npt.NDArray[np.float64]) -> float:
    from scipy.special import logsumexp

    # The mean in logarithms: a class that no clip has would be log(0) otherwise, and 0 * inf its share.
    log_mean = logsumexp(log_p, axis=0) - np.log(len(log_p))
    return float(np.exp((np.exp(log_p) * (log_p - log_mean)).sum(axis=1).mean()))
