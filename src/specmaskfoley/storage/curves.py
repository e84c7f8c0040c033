"""Training curves on disk, for `dvc plots` and the report."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

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
    cells = {column: dict(points) for column, points in curves.items()}
    with (
        atomic_path(Path(metrics) / "curves" / f"{name}.csv") as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["step", *cells])
        for step in sorted(set().union(*cells.values())):
            table.writerow([step, *(f"{column[step]:.6g}" if step in column else "" for column in cells.values())])


def read_curves(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    """The curves of one CSV."""
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        rows = list(table)
    names = (table.fieldnames or [])[1:]
    return {name: [(float(row["step"]), float(row[name])) for row in rows if row[name]] for name in names}
