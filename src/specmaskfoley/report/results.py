"""What the evaluation writes, read back: scores, intervals, which clips they are of, scores of other systems."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from specmaskfoley.metrics import METRICS

SCORES_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("system", "clip_id", "label")),
        # null: a clip without such a value, as onset F1 where no event is known
        *(pa.field(metric.name, pa.float64()) for metric in METRICS if metric.per_clip is not None),
    ]
)
"""The table of scores clip by clip; means over takes."""

Scores = Mapping[str, float | int | None]
"""Metric or count -> value, of one system."""


class _Written(BaseModel):
    """Later versions may write more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Interval(_Written):
    """95 % bootstrap interval over clips, and the standard deviation over takes, None for a single take."""

    low: float
    high: float
    sd: float | None = None


class Subset(_Written):
    """Scores on some of the clips."""

    clips: int
    hash: str
    scores: dict[str, dict[str, float | None]] = {}


class ScoredClips(_Written):
    """Which clips the numbers are of: metrics/clips.json."""

    clips: int
    hash: str
    coverage: float | None = None
    takes: int = 1
    duration_s: float | None = None
    excluded: dict[str, str] = {}  # clip -> where and why it is not scored
    noted: dict[str, str] = {}  # clip -> what is odd about it, although it is scored
    subsets: dict[str, Subset] = {}


class Evaluation(_Written):
    """metrics/evaluate.json, and intervals.json and clips.json where they exist."""

    scores: dict[str, dict[str, float | int | None]]
    intervals: dict[str, dict[str, Interval]] = {}
    clips: ScoredClips | None = None


class OtherSystems(_Written):
    """metrics/systems/*.json: scores of other systems, written by `specmaskfoley evaluate`."""

    systems: dict[str, dict[str, float | int | None]]
    reference: dict[str, float | int | None] = {}
    intervals: dict[str, dict[str, Interval]] = {}
    clips: ScoredClips | None = None
    profile: str
    judges: str
    as_published: bool = False


def read_evaluation(text_of: Callable[[str], str | None], where: str) -> Evaluation:
    """The evaluation of which `text_of` returns the files by name, None for a file that does not exist.

    Raises:
        ValueError: evaluate.json is missing, or a file is not what evaluation writes.
    """
    found = {}
    for name in ("evaluate", "intervals", "clips"):
        if (text := text_of(f"{name}.json")) is not None:
            try:
                found["scores" if name == "evaluate" else name] = json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}/{name}.json: not valid JSON: {error}") from None
    if "scores" not in found:
        raise ValueError(f"{where}/evaluate.json: no such file; it is written by dvc repro")
    try:
        return Evaluation.model_validate(found)
    except ValidationError as error:
        raise ValueError(f"{where}: {_first(error)}; written by another version?") from None


def read_other_systems(path: Path) -> OtherSystems:
    """One file of scores of other systems.

    Raises:
        ValueError: the file is not what `specmaskfoley evaluate` writes.
    """
    try:
        return OtherSystems.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: {_first(error)}; expected what specmaskfoley evaluate --out writes") from None


def _first(error: ValidationError) -> str:
    what = error.errors()[0]
    return f"{'.'.join(str(part) for part in what['loc'])}: {what['msg']}".removeprefix(": ")
