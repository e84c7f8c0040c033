"""From usable clips to shards: what was made before is kept, the rest is made by run.engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name

from specmaskfoley.clips.inspection import set_aside
from specmaskfoley.extraction.decoding import ClipReader
from specmaskfoley.extraction.extractor import Extractor
from specmaskfoley.extraction.worker import ClipRow, Unit
from specmaskfoley.lineage import kept_key
from specmaskfoley.processes.isolation import Lost
from specmaskfoley.settings import Params
from specmaskfoley.storage.scratch import pool
from specmaskfoley.storage.shards import ShardPool, row_key
from specmaskfoley.storage.tables import SHARD_LAYOUT, SPLITS, LedgerRow, ready_clips

ENGINES = {
    "local": "specmaskfoley.extraction.worker:make_here",
    "ray": "specmaskfoley.extraction.cluster:make_on_ray",
}
"""run.engine -> a function that makes units."""


def extract(params: Params, extractor: type[Extractor], out: str) -> None:
    """Shards of all usable clips in the directory `out`; what was made before, in any run, is not made again.

    Raises:
        ValueError: a split has no usable clip, or some clips could not be read; the rest is kept.
    """
    clips = {split: [_clip(row, extractor) for row in ready_clips(params.paths.usable, split)] for split in SPLITS}
    lost = make_shards(params, extractor, clips, out)
    if lost:
        for path, item in lost.items():
            set_aside(params, path, item.state, item.reason)
        path, item = next(iter(lost.items()))
        states = ", ".join(f"{count} {name}" for name, count in Counter(each.state for each in lost.values()).items())
        raise ValueError(
            f"{len(lost)} clips can no longer be read ({states}), such as {path}: {item.reason}. It is noted; the "
            "others are kept. Leave them out: dvc repro -f prepare, then dvc repro"
        )


def make_shards(
    params: Params, extractor: type[Extractor], clips: Mapping[str, Sequence[ClipRow]], out: str
) -> dict[str, Lost]:
    """Shards of the clips of each split, none of which is empty, in the directory `out`.

    Returns:
        Paths of clips that could not be read, and why. With any, the rows of the others are kept for the next time, but
        `out` is not written.
    """
    settings = [*extractor.settings(params), SHARD_LAYOUT]
    key = kept_key([extractor, ClipReader], settings, params, extractor.inputs(params))
    with pool(extractor.stage, key) as directory:
        batch = extractor.batch_size(params)
        shards = ShardPool(
            directory,
            clips,
            unit_rows=batch * max(1, params.run.unit_clips // batch),
            shard_rows=params.prepare.shard_rows,
        )
        units = [Unit(shards.unit_path(unit), tuple(unit)) for unit in shards.units if not shards.finished(unit)]
        total = len({clip.key for found in clips.values() for clip in found})
        todo = sum(len(unit.clips) for unit in units)
        print(f"{extractor.stage}: {total} clips, {total - todo} of them kept from before", flush=True)
        lost: dict[str, Lost] = {}
        if units:
            lost = resolve_name(ENGINES[params.run.engine])(units, params, extractor)
        if not lost:
            shards.deliver(Path(out))
    return lost


def _clip(row: LedgerRow, extractor: type[Extractor]) -> ClipRow:
    key = row_key(row.sha256, *([row.label] if extractor.reads_label else []))
    return ClipRow(row.clip_id, key, row.path, row.label)
