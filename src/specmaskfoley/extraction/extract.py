"""From usable clips to shards: what was made before is kept, the rest is made by run.engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from specmaskfoley.clips.inspection import set_aside
from specmaskfoley.extraction.decoding import ClipReader
from specmaskfoley.extraction.engines import ENGINES, Lost
from specmaskfoley.extraction.extractor import Extractor
from specmaskfoley.extraction.worker import Clip, Unit
from specmaskfoley.lineage import kept_key
from specmaskfoley.settings import Params
from specmaskfoley.storage.scratch import pool
from specmaskfoley.storage.shards import Row, ShardPool, row_key
from specmaskfoley.storage.tables import SHARD_LAYOUT, SPLITS, LedgerRow, ready_clips


def extract(params: Params, kind: type[Extractor], out: str) -> None:
    """Shards of all usable clips in the directory `out`; what was made before, in any run, is not made again.

    Raises:
        ValueError: a split has no usable clip, or some clips could not be read; the rest is kept.
    """
    clips = {split: [_clip(row, kind) for row in ready_clips(params.paths.usable, split)] for split in SPLITS}
    lost = make_shards(params, kind, clips, out)
    if lost:
        for path, (state, reason) in lost.items():
            set_aside(params, path, state, reason)
        path, (state, reason) = next(iter(lost.items()))
        states = ", ".join(f"{count} {name}" for name, count in Counter(s for s, _ in lost.values()).items())
        raise ValueError(
            f"{len(lost)} clips can no longer be read ({states}), such as {path}: {reason}. It is noted; the "
            "others are kept. Leave them out: dvc repro -f prepare, then dvc repro"
        )


def make_shards(params: Params, kind: type[Extractor], clips: Mapping[str, Sequence[Clip]], out: str) -> Lost:
    """Shards of the clips of each split, none of which is empty, in the directory `out`.

    Returns:
        Paths of clips that could not be read -> state and reason. With any, the rows of the others are kept for the
        next time, but `out` is not written.
    """
    rows = {split: [Row(clip.clip_id, clip.key) for clip in found] for split, found in clips.items()}
    by_key = {clip.key: clip for found in clips.values() for clip in found}
    settings = [*kind.settings(params), SHARD_LAYOUT]
    key = kept_key([kind, ClipReader], settings, params, kind.inputs(params))
    with pool(kind.stage, key) as directory:
        batch = kind.batch_size(params)
        shards = ShardPool(
            directory,
            rows,
            unit_rows=batch * max(1, params.run.unit_clips // batch),
            shard_rows=params.prepare.shard_rows,
        )
        units = [
            Unit(shards.unit_path(unit), tuple(by_key[row.key] for row in unit))
            for unit in shards.units
            if not shards.finished(unit)
        ]
        todo = sum(len(unit.clips) for unit in units)
        print(f"{kind.stage}: {len(by_key)} clips, {len(by_key) - todo} of them kept from before", flush=True)
        lost = {} if not units else ENGINES[params.run.engine](units, params, kind, todo)
        if not lost:
            shards.deliver(Path(out))
    return lost


def _clip(row: LedgerRow, kind: type[Extractor]) -> Clip:
    key = row_key(str(row.sha256), *([row.label] if kind.reads_label else []))
    return Clip(row.clip_id, key, row.path, row.label)
