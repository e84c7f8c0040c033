"""What an evaluation writes into a folder, and the same read back.

`systems/<system>.json` has the scores of one system, flat; `intervals.json` says how certain they are, and `clips.json`
which clips they are of, and by which judges.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from specmaskfoley.metrics import METRICS
from specmaskfoley.storage.files import write_json

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
    """Which clips the numbers are of, and by which judges: clips.json.

    Attributes:
        clips: how many; None where each metric has its own, as with `as_published`.
        counts: system -> `clips`, `onset_clips`, `coverage`, or `<metric>_clips`.
        excluded: clip -> where and why it is not scored.
        noted: clip -> what is odd about it, although it is scored.
        by: what `subsets` are values of, where they are categories.
        warnings: what a reader of the scores has to know first.
        remarks: what a reader should know.
        ranked: whether they tell which system is best.
    """

    clips: int | None = None
    hash: str = ""
    coverage: float | None = None
    takes: int = 1
    duration_s: float | None = None
    excluded: dict[str, str] = {}
    noted: dict[str, str] = {}
    counts: dict[str, dict[str, float | int]] = {}
    subsets: dict[str, Subset] = {}
    by: str = ""
    profile: str = ""
    judges: str = ""
    as_published: bool = False
    warnings: list[str] = []
    remarks: list[str] = []
    ranked: bool = True


class Evaluation(_Written):
    """The scores of a folder: system -> metrics and counts."""

    scores: dict[str, dict[str, float | int | None]]
    intervals: dict[str, dict[str, Interval]] = {}
    clips: ScoredClips = ScoredClips()


def write_evaluation(
    folder: Path, scores: Mapping[str, Scores], intervals: Mapping[str, Any], clips: Mapping[str, Any]
) -> None:
    """Write the files of `read_evaluation`; scores of systems that are not among these are removed."""
    for path in (folder / "systems").glob("*.json"):
        if path.stem not in scores:
            path.unlink()
    for name, row in scores.items():
        write_json(folder / "systems" / f"{name}.json", row)
    write_json(folder / "intervals.json", intervals)
    write_json(folder / "clips.json", clips)


def read_evaluation(text_of: Callable[[str], str | None], where: str) -> Evaluation:
    """The evaluation of which `text_of` returns the files by name, None for a file that does not exist.

    Raises:
        ValueError: a file is missing, or not what an evaluation writes.
    """

    def read(name: str) -> Any:
        text = text_of(name)
        if text is None:
            raise ValueError(f"{where}/{name}: no such file; dvc repro or specmaskfoley evaluate --out writes it")
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}/{name}: not valid JSON: {error}") from None

    found = {"clips": read("clips.json"), "intervals": read("intervals.json"), "scores": {}}
    try:
        counts = ScoredClips.model_validate(found["clips"]).counts
        found["scores"] = {system: read(f"systems/{system}.json") for system in counts}
        evaluation = Evaluation.model_validate(found)
    except ValidationError as error:
        raise ValueError(f"{where}: {_first(error)}; written by another version?") from None
    scores = {system: {**row, **counts[system]} for system, row in evaluation.scores.items()}
    return evaluation.model_copy(update={"scores": scores})


def read_folder(folder: Path) -> Evaluation:
    """The evaluation in a folder.

    Raises:
        ValueError: as `read_evaluation`.
    """

    def text_of(name: str) -> str | None:
        file = folder / name
        return file.read_text(encoding="utf-8") if file.exists() else None

    return read_evaluation(text_of, str(folder))


def _first(error: ValidationError) -> str:
    what = error.errors()[0]
    return f"{'.'.join(str(part) for part in what['loc'])}: {what['msg']}".removeprefix(": ")
