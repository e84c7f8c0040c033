"""KL divergence between class posteriors of true and generated audio."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from specmaskfoley.metrics.judged import Listened, Partners


def kl_scores(heard: Listened, partners: Partners) -> npt.NDArray[np.float64]:
    """The metric, clip by clip."""
    return kl_per_clip(partners.logits, heard.logits)


def kl_per_clip(reference_logits: npt.ArrayLike, generated_logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(n,): KL(reference || generated) of each clip in nats, over the softmax of the logits.

    The direction and the softmax (not a sigmoid, though taggers are multi-label) are av-benchmark's.

    Args:
        reference_logits: (n, c), row i belongs to the same clip as row i of the other.
        generated_logits: (n, c).
    """
    from scipy.special import log_softmax

    reference = np.asarray(reference_logits, dtype=np.float64)
    generated = np.asarray(generated_logits, dtype=np.float64)
    if reference.ndim != 2 or reference.shape != generated.shape or 0 in reference.shape:
        raise ValueError(
            f"reference_logits {reference.shape} and generated_logits {generated.shape}: "
            "expected the same (clips, classes) with at least one clip"
        )
    if not (np.isfinite(reference).all() and np.isfinite(generated).all()):
        raise ValueError("logits hold NaN or infinite values")
    log_p, log_q = log_softmax(reference, axis=1), log_softmax(generated, axis=1)
    divergence: npt.NDArray[np.float64] = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return divergence
