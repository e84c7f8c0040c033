"""Are sounds of the kind that judges trained here know?

A small network has an opinion on any sound; its scores mean something only for sounds like those that it learnt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from specmaskfoley.evaluation.judging import Judging
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import ready_clips

MOST_FOREIGN = 0.25
"""Share of the clips that may lie apart; of sounds of the same kind, APART do."""

APART = 0.01


def foreign(judge: Judging, params: Params, embedding: np.ndarray) -> str:
    """Why judges that this pipeline trained cannot tell much of these sounds; empty if they can, or are official ones.

    Args:
        embedding: (n, D) of the tagger for the true sounds.
    """
    if params.judges.kind != "mini":
        return ""
    if not Path(params.paths.usable).exists():
        return (
            f"The judges of profile {params.profile} know the sounds that they were trained on only; whether these are "
            f"of their kind cannot be told without {params.paths.usable}."
        )
    own = [Path(row.path) for row in ready_clips(params.paths.usable, "test")]
    share = share_apart(embedding, judge.listen(own, title="listening to the test split").embedding)
    if share <= MOST_FOREIGN:
        return ""
    return (
        f"The judges of profile {params.profile} were trained on other sounds: {share:.0%} of these lie apart from the "
        "test split. Their scores say little here, and no system is marked as best. Official judges: --profile "
        "vggsound."
    )


def share_apart(embedding: np.ndarray, own: np.ndarray) -> float:
    """The share of sounds that are farther from the nearest of `own` than nearly all of these are from each other.

    Distances need no covariance, and no assumption on its shape.

    Args:
        embedding: (n, D)
        own: (m, D), m >= 2.
    """
    among = _distances(own, own)
    np.fill_diagonal(among, np.inf)
    usual = np.quantile(among.min(axis=1), 1 - APART)
    return float((_distances(embedding, own).min(axis=1) > usual).mean())


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, m)"""
    between: np.ndarray = np.linalg.norm(x[:, None].astype(np.float64) - y[None], axis=-1)
    return between
