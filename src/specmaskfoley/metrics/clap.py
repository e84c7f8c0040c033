"""CLAP score: does the sound fit the words?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from specmaskfoley.metrics.ib import ib_per_clip


def clap_per_clip(words: npt.ArrayLike, audio: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(n,): cosine between the embeddings of each clip's words and of its sound, as av-benchmark computes it.

    Args:
        words: (n, d), row i is the text of row i of `audio`; a row of NaN for a clip without words, whose score is NaN.
        audio: (n, d).
    """
    text, sound = np.asarray(words, dtype=np.float64), np.asarray(audio, dtype=np.float64)
    if text.shape != sound.shape or text.ndim != 2:
        raise ValueError(f"words {text.shape} and audio {sound.shape}: expected the same (clips, width)")
    given = ~np.isnan(text).all(axis=1)
    scores = np.full(len(text), np.nan)
    if given.any():
        scores[given] = ib_per_clip(text[given], sound[given])
    return scores
