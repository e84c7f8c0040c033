"""Fréchet distance between two sets of feature vectors: FD (tagger embeddings) and FAD (VGGish role).

Shape letters: n, m vectors, d feature width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import linalg


def frechet_distance(generated: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)), with sample covariances S (n - 1).

    With centred data A^T A = S1 and B^T B = S2 the last trace is the sum of the singular values of A B^T.
    Neither covariance is formed, so nothing is squared and rooted again: rank-deficient sets (n <= d) cost no
    accuracy, identical sets give 0 to rounding, and no diagonal has to be padded.

    Args:
        generated: (n, d), n >= 2.
        reference: (m, d), m >= 2.
    """
    x, y = _features(generated, "generated"), _features(reference, "reference")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"generated has {x.shape[1]} features, reference {y.shape[1]}: expected the same")
    shift = x.mean(axis=0) - y.mean(axis=0)
    a, b = _factor(x), _factor(y)
    cross = linalg.svdvals(a @ b.T, check_finite=False).sum()
    distance = shift @ shift + np.square(a).sum() + np.square(b).sum() - 2 * cross
    return max(0.0, float(distance))  # rounding may leave -1e-13


def _features(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1:
        raise ValueError(f"{name} has shape {array.shape}: expected (vectors, features), at least 2 vectors")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values")
    return array


def _factor(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(k, d) with k <= d whose Gram matrix over rows is the sample covariance of x."""
    centred: npt.NDArray[np.float64] = (x - x.mean(axis=0)) / np.sqrt(x.shape[0] - 1)
    if centred.shape[0] <= centred.shape[1]:
        return centred
    # FAD has ten rows a clip: the triangular factor keeps the SVD at d x d.
    (r,) = linalg.qr(centred, mode="r", overwrite_a=True, check_finite=False)
    return np.asarray(r[: x.shape[1]])
