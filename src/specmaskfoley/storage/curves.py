"""Training curves on disk, for `dvc plots` and the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from specmaskfoley.storage.files import atomic_path

Curves = Mapping[str, Sequence[tuple[int, float]]]


def write_curves(metrics: str, name: str, curves: Curves) -> None:
    """Write metrics/curves/<name>.csv, one row a step with empty cells where nothing was measured.

    Raises:
        ValueError: naming the curve that has a value that is not finite.
    """
    for column, points in curves.items():
        if bad := [(step, value) for step, value in points if not math.isfinite(value)]:
            raise ValueError(f"{name}: {column} is {bad[0][1]} at step {bad[0][0]}; only finite numbers can be drawn")
    table = pd.DataFrame({column: pd.Series(dict(points), dtype=float) for column, points in curves.items()})
    with atomic_path(Path(metrics) / "curves" / f"{name}.csv") as temporary:
        table.sort_index().to_csv(temporary, index_label="step", float_format="%.6g", lineterminator="\n")


def read_curves(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    """The curves of one CSV."""
    table = pd.read_csv(path, index_col="step")
    return {str(name): [(float(s), float(v)) for s, v in table[name].dropna().items()] for name in table}  # type: ignore[arg-type]
