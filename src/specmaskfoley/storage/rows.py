"""Rows of shards, a group at a time and in any order: what training streams from.

Only clip ids and file footers are held in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import local

import numpy as np
import pyarrow.parquet as pq

from specmaskfoley.storage.tables import open_shards, to_array

_OPEN_FILES = 64

Join = Mapping[str, Sequence[str]]
"""Directories of shards with the same clips, and the columns wanted of each."""

_Place = tuple[tuple[tuple[Path, tuple[str, ...]], ...], int]
"""Where a group is: files with the columns wanted of each, and its number in them."""


class ShardRows:
    """Rows of one split, joined over directories and, in turn, over data sets.

    Args:
        joins: a data set each; rows are numbered through them in this order.

    Raises:
        ValueError: shards or columns are missing, or the directories of a join list other clips.
    """

    def __init__(self, joins: Sequence[Join], split: str) -> None:
        self.ids: list[str] = []
        self._groups: list[_Place] = []
        sizes: list[int] = []
        for join in joins:
            ids, places, groups = _joined(join, split)
            self.ids += ids
            sizes += groups
            self._groups += places
        self.group_sizes = np.array(sizes, dtype=np.int64)
        """Rows of each group; row numbers run through the groups."""
        self._thread = local()

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, group: int) -> dict[str, np.ndarray]:
        """Column -> (rows of the group, ...), read-only; may be called from several threads."""
        files, number = self._groups[group]
        arrays: dict[str, np.ndarray] = {}
        for path, columns in files:
            table = self._file(path).read_row_group(number, columns=list(columns), use_threads=False)
            arrays |= {name: to_array(table, name) for name in columns}
        return arrays

    def take(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Column -> (n, ...) of some rows, in their order."""
        first = np.concatenate([[0], np.cumsum(self.group_sizes)])
        groups = np.searchsorted(first, np.asarray(rows), side="right") - 1
        read = {int(group): self.read(int(group)) for group in np.unique(groups)}
        found = [
            {name: array[row - first[group]] for name, array in read[int(group)].items()}
            for row, group in zip(rows, groups, strict=True)
        ]
        return {name: np.stack([row[name] for row in found]) for name in found[0]}

    def _file(self, path: Path) -> pq.ParquetFile:
        """A reader for this thread alone. Not memory-mapped: what is read once would count as memory for long."""
        files: OrderedDict[Path, pq.ParquetFile] | None = getattr(self._thread, "files", None)
        if files is None:
            files = self._thread.files = OrderedDict()
        file = files.pop(path, None) or pq.ParquetFile(path, pre_buffer=False)
        files[path] = file
        while len(files) > _OPEN_FILES:
            files.popitem(last=False)[1].close()
        return file


def _joined(join: Join, split: str) -> tuple[list[str], list[_Place], list[int]]:
    """Ids, the place of each group, and the rows of each group of a data set."""
    directories = list(join)
    opened = [open_shards(directory, split, join[directory]) for directory in directories]
    if len({len(shards) for shards in opened}) > 1:
        raise ValueError(_differ(directories, split))
    ids: list[str] = []
    places, sizes = [], []
    for parts in zip(*opened, strict=True):
        listed = [file.read(columns=["clip_id"]).column("clip_id").to_pylist() for _, file in parts]
        groups = [[file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] for _, file in parts]
        if any(other != listed[0] for other in listed) or any(other != groups[0] for other in groups):
            raise ValueError(_differ(directories, split))
        files = tuple((path, tuple(join[name])) for name, (path, _) in zip(directories, parts, strict=True))
        ids += listed[0]
        for number, size in enumerate(groups[0]):
            if size:
                places.append((files, number))
                sizes.append(size)
    return ids, places, sizes


def _differ(directories: Sequence[str], split: str) -> str:
    return f"{' and '.join(directories)} list different clips of split {split}; run `dvc repro`"
