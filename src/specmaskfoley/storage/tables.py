"""Parquet: the clip list, the ledger, and shards of arrays.

A shard row is one clip: its id, and the bytes of each array, whose dtype and shape stand in the field's metadata
(`numpy.frombuffer(row, dtype).reshape(shape)`). Bytes of a fixed length are read at the speed of memory; lists of
numbers took fifteen times as long (`benchmarks/loader.py` says what is reached). Files hold no time or machine, so the
same rows always give the same bytes.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specmaskfoley.storage.absent import pandas_absent
from specmaskfoley.storage.files import atomic_path

with pandas_absent():  # pyarrow looks for it once, at the first list that becomes a column
    pa.array([])

SPLITS = ("train", "val", "test")
STATES = (
    "ready",
    "duplicate",  # its YouTube video is also in val or test
    "missing",
    "private",
    "removed",
    "geo_blocked",
    "age_restricted",
    "failed",  # the transfer, again and again
    "corrupt",
    "no_video",
    "no_audio",
    "silent",
    "short",
    "timeout",  # reading took longer than prepare.clip_timeout_s
    "crashed",  # reading ended its process, or took more than prepare.clip_memory_gb
)
LISTED = "listed"
"""State of a clip in the clip list that has its file, and has not been inspected yet."""

CLIP_LIST_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("split", pa.string()),  # null: not stated by the source
        pa.field("events", pa.list_(pa.float64())),  # seconds; null: unknown, []: no discrete events
        pa.field("source", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),  # LISTED or one of STATES
        pa.field("reason", pa.string(), nullable=False),  # "" if listed or ready
        pa.field("tried_at", pa.string()),  # when it was last fetched or given up: 2026-01-31T12:00:00Z
        pa.field("tries", pa.int32()),  # runs that tried to fetch it
    ]
)

LEDGER_SCHEMA = pa.schema(
    [
        *CLIP_LIST_SCHEMA,
        pa.field("sha256", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("duration_s", pa.float64()),  # where the video ends
        pa.field("fps", pa.float64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("rotation", pa.int32()),
        pa.field("audio_rate", pa.int32()),
        pa.field("audio_channels", pa.int32()),
        pa.field("video_start_s", pa.float64()),
        pa.field("audio_start_s", pa.float64()),
        pa.field("padded_s", pa.float64()),  # how much of the model's duration must be padded
        pa.field("padding", pa.string()),  # prepare.padding where padded_s is not 0
        pa.field("decoder", pa.string()),  # versions that read it
    ]
)

USABLE_SCHEMA = pa.schema([field for field in LEDGER_SCHEMA if field.name not in ("tried_at", "tries")])
"""The ledger's ready rows without times: what later stages depend on, so that trying a missing clip once more, in
vain, reruns none of them."""

SHARD_LAYOUT = "fixed-size bytes, groups of 8 rows"
"""Part of what makes a kept shard fit: rows of an earlier layout are made again."""

GROUP_ROWS = 8
"""Rows that are read together: few, so that a training that reads in a random order of groups has little in common
among neighbours, and enough that a group of video features is a read of megabytes."""

_DTYPES = ("int16", "float16", "float32", "uint8")


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """What later stages read of a usable clip; the columns are explained in CLIP_LIST_SCHEMA and LEDGER_SCHEMA."""

    clip_id: str
    path: str
    label: str
    split: str | None
    events: tuple[float, ...] | None
    sha256: str


def write_table(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write dict rows; columns a row lacks become null.

    Raises:
        ValueError: for a key the schema does not know, or a value of another type.
    """
    known = set(schema.names)
    for row in rows:
        if unknown := set(row) - known:
            raise ValueError(f"{path}: {', '.join(sorted(unknown))} not in the columns {', '.join(schema.names)}")
        for field in schema:
            if not field.nullable and row.get(field.name) is None:
                raise ValueError(f"{path}: {field.name} of {row.get('clip_id', 'a row')} must not be empty")
    try:
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{path}: a value does not fit its column: {error}") from None
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_table(path: str | os.PathLike[str], schema: pa.Schema) -> list[dict[str, Any]]:
    """Read dict rows.

    Raises:
        ValueError: if the file is missing, not Parquet, or of another schema.
    """
    table = _open(Path(path)).read()
    if not table.schema.equals(schema, check_metadata=False):
        raise ValueError(f"{path}: {_difference(table.schema, schema)}; written by another version?")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def ready_clips(usable_path: str | os.PathLike[str], split: str | None = None) -> list[LedgerRow]:
    """Usable clips of one split (or of all), ordered by clip_id.

    Raises:
        ValueError: none is usable.
    """
    rows = read_table(usable_path, USABLE_SCHEMA)
    ready = [row for row in rows if split is None or row["split"] == split]
    if not ready:
        which = f"split {split!r}" if split is not None else "any split"
        counts = Counter(str(row["split"]) for row in rows)
        found = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
        raise ValueError(
            f"{usable_path}: no usable clip in {which} (usable: {found}); why the others are not: specmaskfoley ledger"
        )
    for row in ready:
        row["events"] = None if row["events"] is None else tuple(row["events"])
    names = [field.name for field in fields(LedgerRow)]
    return sorted((LedgerRow(**{name: row[name] for name in names}) for row in ready), key=lambda row: row.clip_id)


def summarise(rows: Sequence[Mapping[str, Any]]) -> str:
    """Clips a state, with the first reason of each: `3 ready, 1 silent (peak -71 dBFS is below -60)`."""
    counts = Counter(str(row["state"]) for row in rows)
    parts = []
    for state in sorted(counts, key=[LISTED, *STATES].index):
        reasons = sorted({str(row["reason"]) for row in rows if row["state"] == state and row["reason"]})
        more = f" and {len(reasons) - 1} other reasons" if len(reasons) > 1 else ""
        parts.append(f"{counts[state]} {state}" + (f" ({reasons[0]}{more})" if reasons else ""))
    return ", ".join(parts) or "no clips"


class ShardWriter:
    """Write rows of arrays as `<split>-00000.parquet`, `<split>-00001.parquet`, … in one directory.

    Each shard appears whole. After an error the shards finished so far stay; rows not yet in a full shard
    are dropped.

    Args:
        directory: created if missing; older shards of the split are removed on entering.
        fields: column name -> (dtype, shape of one row's array).
        metadata: strings kept in every shard, such as the settings the arrays were made with.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        split: str,
        fields: Mapping[str, tuple[str, tuple[int, ...]]],
        rows_per_shard: int,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        if rows_per_shard < 1:
            raise ValueError(f"rows_per_shard={rows_per_shard} must be positive")
        if not split or not split.replace("_", "").isalnum():
            raise ValueError(f"split={split!r} must be letters, digits and _")
        self._directory = Path(directory)
        self._split = split
        self._fields = {
            name: (_dtype(name, dtype), tuple(int(n) for n in shape)) for name, (dtype, shape) in fields.items()
        }
        self._rows = rows_per_shard
        self._metadata = dict(metadata or {})
        self._ids: list[str] = []
        self._arrays: dict[str, list[np.ndarray]] = {name: [] for name in self._fields}
        self._shards = 0

    def __enter__(self) -> ShardWriter:
        self._directory.mkdir(parents=True, exist_ok=True)
        for old in _shards(self._directory, self._split):
            old.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A split without clips still gets one shard, which says so to the reader.
        if kind is None and (self._ids or not self._shards):
            self._write(len(self._ids))

    def append(self, ids: Sequence[str], **arrays: np.ndarray) -> None:
        """Add n rows: their clip ids, and for every field an array (n, *shape) of exactly its dtype."""
        if set(arrays) != set(self._fields):
            raise ValueError(f"expected the fields {sorted(self._fields)}, got {sorted(arrays)}")
        for name, (dtype, shape) in self._fields.items():
            array = arrays[name]
            if array.dtype != dtype or array.shape != (len(ids), *shape):
                raise ValueError(f"{name}: expected {dtype} {(len(ids), *shape)}, got {array.dtype} {array.shape}")
        self._ids.extend(ids)
        for name, array in arrays.items():
            self._arrays[name].append(np.array(array, order="C"))  # a copy: the caller may reuse its buffer
        while len(self._ids) >= self._rows:
            self._write(self._rows)

    def _write(self, rows: int) -> None:
        ids, self._ids = self._ids[:rows], self._ids[rows:]
        arrays = {}
        for name, (dtype, shape) in self._fields.items():
            array = np.concatenate([np.empty((0, *shape), dtype), *self._arrays[name]])
            arrays[name], self._arrays[name] = array[:rows], [array[rows:]]
        write_shard(shard_path(self._directory, self._split, self._shards), ids, arrays, metadata=self._metadata)
        self._shards += 1


def shard_path(directory: Path, split: str, number: int) -> Path:
    return directory / f"{split}-{number:05d}.parquet"


def write_shard(
    path: str | os.PathLike[str],
    ids: Sequence[str],
    arrays: Mapping[str, np.ndarray],
    *,
    keys: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write one shard, whole or not at all: clip ids, arrays (n, *shape), and the keys of what rows were made from."""
    columns: list[pa.Array] = [pa.array(ids, pa.string())]
    schema = [pa.field("clip_id", pa.string(), nullable=False)]
    if keys is not None:
        columns.append(pa.array(keys, pa.string()))
        schema.append(pa.field("key", pa.string(), nullable=False))
    for name, array in arrays.items():
        dtype, shape = _dtype(name, array.dtype.name), array.shape[1:]
        kind = pa.binary(dtype.itemsize * math.prod(shape))
        # As bytes first: Arrow knows no buffer of numbers of half precision.
        buffer = pa.py_buffer(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        columns.append(pa.FixedSizeBinaryArray.from_buffers(kind, len(ids), [None, buffer]))
        about = {"dtype": dtype.name, "shape": json.dumps(shape)}
        schema.append(pa.field(name, kind, nullable=False, metadata=about))
    table = pa.Table.from_arrays(columns, schema=pa.schema(schema, metadata=dict(metadata or {})))
    with atomic_path(path) as temporary:
        # Numbers without repeats: dictionaries and statistics only cost time here, and a slower compression
        # saves little of features (a tenth) and reads at a tenth of the speed.
        pq.write_table(
            table, temporary, compression="lz4", use_dictionary=False, write_statistics=False, row_group_size=GROUP_ROWS
        )


def read_keys(path: Path) -> list[str]:
    """What each row of a shard was made from."""
    keys: list[str] = _open(path).read(columns=["key"]).column("key").to_pylist()
    return keys


def read_shard(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """One shard: clip ids, and column -> (n, *shape)."""
    return _read_arrays([_open(path)], None)


def read_arrays(
    directory: str | os.PathLike[str], split: str, columns: Sequence[str] | None = None
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read all shards of a split: clip ids, and column -> (n, *shape). The arrays may be read-only.

    Raises:
        ValueError: if the split or a column is missing, or the shards do not belong together.
    """
    files = [file for _, file in open_shards(directory, split, columns)]
    return _read_arrays(files, columns)


def stream_arrays(
    directory: str | os.PathLike[str], split: str, columns: Sequence[str] | None = None
) -> Iterator[tuple[list[str], dict[str, np.ndarray]]]:
    """`read_arrays` shard by shard, for splits that do not fit in memory."""
    for _, file in open_shards(directory, split, columns):
        yield _read_arrays([file], columns)


def open_shards(
    directory: str | os.PathLike[str], split: str, columns: Sequence[str] | None = None
) -> list[tuple[Path, pq.ParquetFile]]:
    """All shards of a split, in order.

    Raises:
        ValueError: if the split or a column is missing, or the shards do not belong together.
    """
    directory = Path(directory)
    paths = _shards(directory, split)
    if not paths:
        found = sorted({path.name.rsplit("-", 1)[0] for path in directory.glob("*-?????.parquet")})
        has = f"it has {', '.join(found)}" if found else "it has no shards"
        raise ValueError(f"{directory}: no shards of split {split!r} ({has}); run the earlier stages: dvc repro")
    for number, path in enumerate(paths):
        if path.name != f"{split}-{number:05d}.parquet":
            raise ValueError(f"{directory}: shard {split}-{number:05d}.parquet is missing")
    files = [_open(path) for path in paths]
    schema = files[0].schema_arrow
    for path, file in zip(paths, files, strict=True):
        if not file.schema_arrow.equals(schema, check_metadata=True):
            raise ValueError(f"{path}: {_difference(file.schema_arrow, schema)}, unlike {paths[0].name}")
    arrays = _array_names(schema)
    if missing := [name for name in columns or () if name not in arrays]:
        raise ValueError(f"{paths[0]}: no column {', '.join(missing)}; it has {', '.join(arrays)}")
    return list(zip(paths, files, strict=True))


def _array_names(schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if name not in ("clip_id", "key")]


def _read_arrays(
    files: Sequence[pq.ParquetFile], columns: Sequence[str] | None
) -> tuple[list[str], dict[str, np.ndarray]]:
    schema = files[0].schema_arrow
    wanted = _array_names(schema) if columns is None else list(columns)
    tables = [file.read(columns=["clip_id", *wanted]) for file in files]
    ids = [clip_id for table in tables for clip_id in table.column("clip_id").to_pylist()]
    result = {}
    for name in wanted:
        parts = [to_array(table, name) for table in tables]
        result[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return ids, result


def to_array(table: pa.Table, name: str) -> np.ndarray:
    """A column of a shard, (n, *shape); without a copy if it lies in one piece."""
    dtype, shape = _dtype_and_shape(table.schema.field(name))
    parts = []
    for chunk in table.column(name).chunks:
        size = math.prod(shape)
        values = np.frombuffer(chunk.buffers()[1], dtype, len(chunk) * size, chunk.offset * size * dtype.itemsize)
        parts.append(values.reshape(-1, *shape))
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty((0, *shape), dtype), *parts])


def _dtype_and_shape(field: pa.Field) -> tuple[np.dtype[Any], tuple[int, ...]]:
    try:
        return np.dtype(field.metadata[b"dtype"].decode()), tuple(json.loads(field.metadata[b"shape"]))
    except (KeyError, TypeError):
        raise ValueError(f"column {field.name} does not say its dtype and shape; written by another version?") from None


def _shards(directory: Path, split: str) -> list[Path]:
    return sorted(directory.glob(f"{split}-?????.parquet"))


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run the earlier stages: dvc repro") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None


def _dtype(name: str, dtype: str) -> np.dtype[Any]:
    if dtype not in _DTYPES:
        raise ValueError(f"{name}: dtype {dtype!r} is not one of {', '.join(_DTYPES)}")
    return np.dtype(dtype)


def _difference(found: pa.Schema, expected: pa.Schema) -> str:
    missing = [name for name in expected.names if name not in found.names]
    extra = [name for name in found.names if name not in expected.names]
    other = [
        f"{name} is {found.field(name).type}, not {expected.field(name).type}"
        for name in expected.names
        if name in found.names and found.field(name).type != expected.field(name).type
    ]
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    parts += [f"has unknown {', '.join(extra)}"] if extra else []
    return "; ".join([*parts, *other]) or "its columns differ in order or metadata"
