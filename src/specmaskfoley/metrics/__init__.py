"""The metrics, a file each, and the one table of them that scores, tables, figures, reports and model cards read.

A new metric is a new file in this folder and a new entry in METRICS. What only computes imports scipy in its functions:
every training and the report read the table, and scipy takes half a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from specmaskfoley.metrics.desync import desync_scores
from specmaskfoley.metrics.frechet import fad_score, fd_score
from specmaskfoley.metrics.ib import ib_scores
from specmaskfoley.metrics.inception import isc_score
from specmaskfoley.metrics.judged import Listened, Partners
from specmaskfoley.metrics.kl import kl_scores
from specmaskfoley.metrics.onsets import onset_f1_scores

PerClip = Callable[[Listened, Partners], np.ndarray | None]
"""(sounds, what they are compared with) -> (n,), NaN for a clip without a value; None if what it needs is unknown."""

OfSet = Callable[[Listened, Listened, np.ndarray | None], float | None]
"""(sounds, true sounds, how often each clip counts or None for once) -> a score, None if it is not defined."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A number of an evaluation and how people read it.

    Attributes:
        name: in the files and in MLflow.
        title: in tables and figures.
        about: what it says, in one sentence.
        better: which values are better, if either.
        unit: shown in headings.
        digits: after the decimal point; None for four significant digits.
    """

    name: str
    title: str
    about: str
    better: Literal["lower", "higher", ""] = ""
    unit: str = ""
    digits: int | None = None

    @property
    def arrow(self) -> str:
        return {"lower": "↓", "higher": "↑", "": ""}[self.better]

    @property
    def heading(self) -> str:
        """Title, unit and direction, such as `DeSync (s) ↓`."""
        unit = f"({self.unit})" if self.unit else ""
        return " ".join(part for part in (self.title, unit, self.arrow) if part)


@dataclass(frozen=True, kw_only=True)
class Metric(Column):
    """A score by which systems compete: the mean of `per_clip`, or `of_set`.

    Attributes:
        aspect: what is measured; tables have the metrics of one aspect side by side.
        bounds: the least and the greatest possible value.
    """

    aspect: Literal["sound", "meaning", "timing"]
    bounds: tuple[float, float]
    per_clip: PerClip | None = None
    of_set: OfSet | None = None


# In the order of metrics/scores.json.
METRICS = (
    Metric(
        name="fd", title="FD", better="lower", digits=2, aspect="sound", bounds=(0.0, math.inf), of_set=fd_score,
        about="Fréchet distance of tagger embeddings: are the sounds distributed as real ones?",
    ),
    Metric(
        name="fad", title="FAD", better="lower", digits=2, aspect="sound", bounds=(0.0, math.inf), of_set=fad_score,
        about="Fréchet distance of audio embeddings, a row a window",
    ),
    Metric(
        name="kl", title="KL", better="lower", digits=3, aspect="sound", bounds=(0.0, math.inf), per_clip=kl_scores,
        about="divergence of the tagger's classes from those of the true sound, in nats",
    ),
    Metric(
        name="isc", title="IS", better="higher", digits=2, aspect="sound", bounds=(1.0, math.inf), of_set=isc_score,
        about="inception score: does the tagger hear distinct classes, and many of them?",
    ),
    Metric(
        name="ib", title="IB", better="higher", digits=3, aspect="meaning", bounds=(-1.0, 1.0), per_clip=ib_scores,
        about="cosine of video and sound embeddings: does the sound mean what the picture shows? "
        "Papers print it times 100",
    ),
    Metric(
        name="desync", title="DeSync", unit="s", better="lower", digits=3, aspect="timing", bounds=(0.0, math.inf),
        about="offset between sound and picture as a judge network estimates it", per_clip=desync_scores,
    ),
    Metric(
        name="onset_f1", title="Onset F1", better="higher", digits=3, aspect="timing", bounds=(0.0, 1.0),
        about="detected sound onsets against the true event times", per_clip=onset_f1_scores,
    ),
)  # fmt: skip

EXTRA = (
    Metric(
        name="clap", title="CLAP", better="higher", digits=3, aspect="meaning", bounds=(-1.0, 1.0),
        about="cosine of the embeddings of sound and words: does the sound fit what is said of it?",
    ),
    Metric(
        name="pq", title="PQ", better="higher", digits=2, aspect="sound", bounds=(1.0, 10.0),
        about="Audiobox Aesthetics' production quality: clean, clear, well recorded?",
    ),
    Metric(
        name="pc", title="PC", digits=2, aspect="sound", bounds=(1.0, 10.0),
        about="its production complexity: how many things sound at once; neither way is better",
    ),
    Metric(
        name="ce", title="CE", better="higher", digits=2, aspect="sound", bounds=(1.0, 10.0),
        about="its content enjoyment",
    ),
    Metric(
        name="cu", title="CU", better="higher", digits=2, aspect="sound", bounds=(1.0, 10.0),
        about="its content usefulness: would one make something of this sound?",
    ),
)  # fmt: skip
"""Metrics of single clips by judges that are asked only on request, `specmaskfoley evaluate --extra`."""

COUNTS = (
    Column(name="clips", title="clips", digits=0, about="clips the metrics were computed on"),
    Column(
        name="onset_clips", title="onset clips", digits=0,
        about="of these, clips with discrete events: those of onset F1",
    ),
    Column(
        name="coverage", title="coverage", digits=3,
        about="share of the wanted clips that every system has a usable sound of",
    ),
)  # fmt: skip
"""How many clips a score is of."""

_ASPECTS = ("sound", "meaning", "timing")
SHOWN = tuple(sorted(METRICS, key=lambda metric: _ASPECTS.index(metric.aspect)))
"""The metrics in the order in which tables show them."""

COLUMNS: dict[str, Column] = {column.name: column for column in (*SHOWN, *EXTRA, *COUNTS)}
"""Every metric and count by its name, in the order of tables."""
