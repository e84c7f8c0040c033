"""Training curves on disk: a CSV for `dvc plots` and the last values for `dvc metrics`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from specmaskfoley.storage.files import atomic_path, write_json

Curves = Mapping[str, Sequence[tuple[int, float]]]


def write_curves(metrics: str, name: str, curves: Curves) -> None:
    """Write metrics/curves/<name>.csv, one row a step with empty cells where nothing was measured,
    and metrics/training/<name>.json with the last value of each curve."""
    steps = sorted({step for points in curves.values() for step, _ in points})
    cells = {column: dict(points) for column, points in curves.items()}
    with (
        atomic_path(Path(metrics) / "curves" / f"{name}.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *cells])
        for step in steps:
            writer.writerow([step, *(_cell(values.get(step)) for values in cells.values())])
    last = {column: float(f"{points[-1][1]:.6g}") for column, points in curves.items()}
    write_json(Path(metrics) / "training" / f"{name}.json", last)


def read_curves(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    """The curves of one CSV."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "step"] if rows else []
    return {name: [(float(row["step"]), float(row[name])) for row in rows if row[name]] for name in names}


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
