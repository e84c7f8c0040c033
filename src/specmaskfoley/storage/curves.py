"""Training curves on disk: a CSV for `dvc plots` and the last values for `dvc metrics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from specmaskfoley.storage.files import atomic_path, write_json

Curves = Mapping[str, Sequence[tuple[int, float]]]


def write_curves(metrics: str, name: str, curves: Curves) -> None:
    """Write metrics/curves/<name>.csv, one row a step with empty cells where nothing was measured,
    and metrics/training/<name>.json with the last value of each curve."""
    table = pd.DataFrame({column: pd.Series(dict(points), dtype=float) for column, points in curves.items()})
    with atomic_path(Path(metrics) / "curves" / f"{name}.csv") as temporary:
        table.sort_index().to_csv(temporary, index_label="step", float_format="%.6g", lineterminator="\n")
    last = {column: float(f"{points[-1][1]:.6g}") for column, points in curves.items()}
    write_json(Path(metrics) / "training" / f"{name}.json", last)


def read_curves(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    """The curves of one CSV."""
    table = pd.read_csv(path, index_col="step")
    return {str(name): [(float(s), float(v)) for s, v in table[name].dropna().items()] for name in table}  # type: ignore[arg-type]
