"""From usable clips to shards: what was made before is kept, the rest is made by run.engine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from specmaskfoley.config import Params
from specmaskfoley.extraction.engines import ENGINES
from specmaskfoley.extraction.extractor import Extractor
from specmaskfoley.extraction.worker import Clip, Unit
from specmaskfoley.sources.inspection import set_aside
from specmaskfoley.storage.scratch import pool
from specmaskfoley.storage.shards import Row, ShardPool, row_key
from specmaskfoley.storage.tables import SHARD_LAYOUT, SPLITS, LedgerRow, ready_clips


def extract(params: Params, kind: type[Extractor], out: str) -> None:
    """Shards of all usable clips in the directory `out`; what was made before, in any run, is not made again.

    Raises:
        ValueError: a split has no usable clip, or some clips could not be read; the rest is kept.
    """
    clips = {split: ready_clips(params.paths.usable, split) for split in SPLITS}
    rows = {split: [Row(clip.clip_id, _key(clip, kind)) for clip in found] for split, found in clips.items()}
    by_key = {row.key: clip for split in SPLITS for row, clip in zip(rows[split], clips[split], strict=True)}
    settings = [*kind.settings(params), SHARD_LAYOUT]
    with pool(kind.stage, settings, kind.inputs(params), kind.code()) as directory:
        batch = kind.batch_size(params)
        shards = ShardPool(
            directory,
            rows,
            unit_rows=batch * max(1, params.run.unit_clips // batch),
            shard_rows=params.prepare.shard_rows,
        )
        units = [
            Unit(shards.unit_path(unit), tuple(_clip(row, by_key[row.key]) for row in unit))
            for unit in shards.units
            if not shards.finished(unit)
        ]
        todo = sum(len(unit.clips) for unit in units)
        print(f"{kind.stage}: {len(by_key)} clips, {len(by_key) - todo} of them kept from before", flush=True)
        lost = {} if not units else ENGINES[params.run.engine](units, params, kind, todo)
        if lost:
            for path, (state, reason) in lost.items():
                set_aside(params, path, state, reason)
            path, (state, reason) = next(iter(lost.items()))
            states = ", ".join(f"{count} {name}" for name, count in Counter(s for s, _ in lost.values()).items())
            raise ValueError(
                f"{len(lost)} clips can no longer be read ({states}), such as {path}: {reason}. It is noted; the "
                "others are kept. Leave them out: dvc repro -f prepare, then dvc repro"
            )
        shards.deliver(Path(out))


def _key(clip: LedgerRow, kind: type[Extractor]) -> str:
    return row_key(str(clip.sha256), *([clip.label] if kind.reads_label else []))


def _clip(row: Row, clip: LedgerRow) -> Clip:
    return Clip(row.clip_id, row.key, clip.path, clip.label)
