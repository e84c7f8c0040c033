"""Fréchet distance between two sets of feature vectors: FD (tagger embeddings) and FAD (VGGish role).

Shape letters: n, m vectors, d feature width, k rows of a factor.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from specmaskfoley.metrics.judged import Listened

Array = npt.NDArray[np.float64]

_BLOCK = 4096  # vectors that are turned into float64 at a time


FEW_CLIPS = 30
"""Fewer clips decide nothing: see docs/evaluation.md."""


def fd_score(heard: Listened, true: Listened, counts: npt.NDArray[np.int64] | None = None) -> float | None:
    """FD: a row a clip; None of too few clips."""
    return _score(heard, heard.embedding, true.embedding, counts)


def fad_score(heard: Listened, true: Listened, counts: npt.NDArray[np.int64] | None = None) -> float | None:
    """FAD: a row a stretch of a clip; None of too few clips. Without counts the two sides may be of different clips."""
    rows, true_rows = _stretches(heard), _stretches(true)
    return _score(heard, rows, true_rows, None if counts is None else np.repeat(counts, heard.stretches.shape[1]))


def small_set(heard: Listened) -> tuple[list[str], list[str]]:
    """What has to be said of FD and FAD of clips that are too few for covariances of full rank.

    Returns:
        sentences on scores that are not given, and on those that are.
    """
    missing, given = [], []
    for name, rows in (("FD", heard.embedding), ("FAD", _stretches(heard))):
        count, width = rows.shape
        if count <= width:
            fact = f"{name} has {count} vectors for a covariance of {width} features, which is singular"
            if len(heard.embedding) < FEW_CLIPS:
                missing.append(f"{fact}: it is not given below {FEW_CLIPS} clips.")
            else:
                given.append(f"{fact}: compare it at the same number of clips only.")
    return missing, given


def _stretches(heard: Listened) -> np.ndarray:
    """(n * k, D)"""
    return heard.stretches.reshape(-1, heard.stretches.shape[-1])


def _score(heard: Listened, rows: np.ndarray, true_rows: np.ndarray, counts: npt.ArrayLike | None) -> float | None:
    least = min(len(rows), len(true_rows))
    if least <= rows.shape[1] and len(heard.embedding) < FEW_CLIPS:
        return None
    return frechet_distance(rows, true_rows, counts)


def frechet_distance(generated: npt.ArrayLike, reference: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)), with sample covariances S (n - 1).

    With factors A^T A = S1 and B^T B = S2 the eigenvalues of the symmetric S1^(1/2) S2 S1^(1/2) are the squared
    singular values of A B^T, and the last trace is the sum of the latter. So the product of covariances is never
    formed and rooted again: rank-deficient sets cost no accuracy, identical sets give 0 to rounding, and no diagonal
    has to be padded.

    Args:
        generated: (n, d), n >= 2.
        reference: (m, d), m >= 2.
        weights: (n,) with n = m, how often row i of both sets counts: the same as repeating the rows, but nothing is
            copied. A bootstrap over clips draws them.
    """
    x, y = _features(generated, "generated"), _features(reference, "reference")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"generated has {x.shape[1]} features, reference {y.shape[1]}: expected the same")
    if weights is None:
        mean_x, a = _moments(x, np.ones(len(x)))
        mean_y, b = _moments(y, np.ones(len(y)))
    else:
        counts = _counts(weights, x, y)
        mean_x, a = _moments(x, counts)
        mean_y, b = _moments(y, counts)
    shift = mean_x - mean_y
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    distance = shift @ shift + np.square(a).sum() + np.square(b).sum() - 2 * cross
    return max(0.0, float(distance))  # rounding may leave -1e-13


def _features(values: npt.ArrayLike, name: str) -> npt.NDArray[np.floating]:
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1:
        raise ValueError(f"{name} has shape {array.shape}: expected (vectors, features), at least 2 vectors")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values")
    return array


def _counts(weights: npt.ArrayLike, x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> Array:
    counts = np.asarray(weights, dtype=np.float64)
    if counts.ndim != 1 or not len(counts) == len(x) == len(y):
        raise ValueError(
            f"weights {counts.shape} for {len(x)} generated and {len(y)} reference vectors: expected one for each row "
            "of both"
        )
    if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.sum() >= 2):
        raise ValueError("weights count rows: expected numbers from 0 up that sum to 2 at least")
    return counts


def _moments(x: npt.NDArray[np.floating], counts: Array) -> tuple[Array, Array]:
    """The mean (d,) of x, and a factor (k, d) with k <= d whose Gram matrix over rows is its sample covariance."""
    taken, total, width = counts > 0, counts.sum(), x.shape[1]
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(x), _BLOCK)]
    mean = sum((counts[block] @ x[block] for block in blocks), np.zeros(width)) / total
    scale = np.sqrt(counts / (total - 1))[:, None]
    if taken.sum() <= width:  # the rows themselves: their covariance is singular
        return mean, (x[taken] - mean) * scale[taken]
    covariance = np.zeros((width, width))
    for block in blocks:
        rows = (x[block] - mean) * scale[block]
        covariance += rows.T @ rows
    return mean, _root(covariance)


def _root(covariance: Array) -> Array:
    """(d, d) whose Gram matrix over rows is the covariance."""
    try:
        lower: Array = np.linalg.cholesky(covariance)
        return lower.T
    except np.linalg.LinAlgError:  # singular, as constant features or repeated vectors make it
        values, vectors = np.linalg.eigh(covariance)
        root: Array = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        return root
