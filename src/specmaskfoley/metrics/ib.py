"""ImageBind score: does the sound mean what the video shows?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from specmaskfoley.metrics.judged import Listened, Partners


def ib_scores(heard: Listened, partners: Partners) -> npt.NDArray[np.float64] | None:
    """The metric, clip by clip, -1..1 (papers print it times 100)."""
    return None if partners.seen is None else ib_per_clip(partners.seen, heard.joint)


def ib_per_clip(video: npt.ArrayLike, audio: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(n,): cosine between the two embeddings of each clip, -1..1; 0 where one is all zeros.

    Args:
        video: (n, d), row i is the input video of row i of `audio`.
        audio: (n, d).
    """
    v, a = np.asarray(video, dtype=np.float64), np.asarray(audio, dtype=np.float64)
    if v.ndim != 2 or v.shape != a.shape or 0 in v.shape:
        raise ValueError(
            f"video {v.shape} and audio {a.shape}: expected the same (clips, width) with at least one clip"
        )
    if not (np.isfinite(v).all() and np.isfinite(a).all()):
        raise ValueError("embeddings hold NaN or infinite values")
    norms = np.linalg.norm(v, axis=1) * np.linalg.norm(a, axis=1)
    cosine: npt.NDArray[np.float64] = np.einsum("nd,nd->n", v, a) / np.maximum(norms, 1e-12)
    return cosine
