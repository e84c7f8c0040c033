"""Shards that grow: rows made once are kept, whichever clips are wanted next.

A directory (`storage.scratch.pool`) holds, as Parquet files that appear whole or not at all:

- `unit-*`: what this run has made so far, a few rows each; its name says which rows;
- `rows-*`: units of earlier runs with other clips;
- `shard-*`: the shards of finished runs, of which the stage's output holds links.

Every row has a key for what it was made from, so that files never become stale: a row with another key is not used.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from specmaskfoley.storage.files import atomic_path, sha256_text
from specmaskfoley.storage.tables import read_keys, read_shard, shard_path, write_shard


@dataclass(frozen=True)
class Row:
    """A row to make: the clip's id, and what decides its content."""

    clip_id: str
    key: str


AnyRow = TypeVar("AnyRow", bound=Row)


def row_key(*parts: str) -> str:
    """32 hex digits that identify everything a row is made from."""
    return sha256_text("\0".join(parts))[:32]


class ShardPool(Generic[AnyRow]):
    """The rows in `directory` and those still to make, for the rows wanted of each split.

    The run after a killed one has the same units, so that both give the same bytes: a network may round differently
    when a batch holds other clips.

    Args:
        directory: of this pool alone; not used by two runs at once (`storage.scratch.pool` locks it).
        wanted: split -> rows, in their order in the shards; no split may be empty.
    """

    def __init__(
        self, directory: Path, wanted: Mapping[str, Sequence[AnyRow]], *, unit_rows: int, shard_rows: int
    ) -> None:
        self._directory, self._wanted, self._shard_rows = directory, wanted, shard_rows
        todo = self._look()
        plan = _digest([str(unit_rows), *(row.key for row in todo)])
        marker = directory / "plan"
        if not marker.exists() or marker.read_text(encoding="utf-8") != plan:
            # Another plan than before: the finished units become files of rows like any other.
            for unit in self._files("unit"):
                os.replace(unit, unit.with_name(unit.name.replace("unit-", "rows-", 1)))
            todo = self._look()
            with atomic_path(marker) as temporary:
                temporary.write_text(_digest([str(unit_rows), *(row.key for row in todo)]), encoding="utf-8")
        self.units = [todo[first : first + unit_rows] for first in range(0, len(todo), unit_rows)]

    def _look(self) -> list[AnyRow]:
        """Find the files that hold rows; returns the rows that are in none."""
        self._places = {key: path for path in self._files("rows", "shard") for key in read_keys(path)}
        rows = {row.key: row for rows in self._wanted.values() for row in rows if row.key not in self._places}
        return list(rows.values())

    def unit_path(self, unit: Sequence[Row]) -> Path:
        """Where the rows of a unit belong."""
        return self._directory / f"unit-{_digest([row.key for row in unit])}.parquet"

    def finished(self, unit: Sequence[Row]) -> bool:
        return self.unit_path(unit).exists()

    def deliver(self, out: Path) -> None:
        """Write the shards `<split>-00000.parquet`, ... of all wanted rows into `out`; every unit must be finished."""
        self._places |= {key: path for path in self._files("unit") for key in read_keys(path)}
        if out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True)
        read = lru_cache(maxsize=2)(read_shard)  # rows come in order: two files at a time are enough
        kept = set()
        for split, rows in self._wanted.items():
            for number, first in enumerate(range(0, len(rows), self._shard_rows)):
                part = rows[first : first + self._shard_rows]
                shard = self._directory / f"shard-{_digest([f'{row.clip_id} {row.key}' for row in part])}.parquet"
                if not shard.exists():
                    ids, arrays = self._gather(part, read)
                    write_shard(shard, ids, arrays, keys=[row.key for row in part])
                kept.add(shard)
                _link(shard, shard_path(out, split, number))
        self._drop_copies(kept)

    def _gather(self, rows: Sequence[Row], read: object) -> tuple[list[str], dict[str, np.ndarray]]:
        parts: dict[str, list[np.ndarray]] = {}
        places: dict[Path, dict[str, int]] = {}
        for row in rows:
            path = self._places[row.key]
            if path not in places:
                places[path] = {key: number for number, key in enumerate(read_keys(path))}
            for name, array in read(path)[1].items():  # type: ignore[operator]
                parts.setdefault(name, []).append(array[places[path][row.key]])
        return [row.clip_id for row in rows], {name: np.stack(values) for name, values in parts.items()}

    def _drop_copies(self, kept: set[Path]) -> None:
        """Delete files whose rows are all in the present shards."""
        here = {key for shard in kept for key in read_keys(shard)}
        for path in self._files("unit", "rows", "shard"):
            if path not in kept and here.issuperset(read_keys(path)):
                path.unlink()

    def _files(self, *kinds: str) -> list[Path]:
        return [path for kind in kinds for path in sorted(self._directory.glob(f"{kind}-*.parquet"))]


def _link(source: Path, target: Path) -> None:
    """A hard link where the file system has them (finished shards are never written to), else a copy."""
    try:
        os.link(source, target)
    except OSError:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _digest(lines: Sequence[str]) -> str:
    return sha256_text("\n".join(lines))[:24]
