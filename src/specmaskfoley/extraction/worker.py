"""One network on one device, fed by processes that decode: clips in, a file of rows out, unit by unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from specmaskfoley.device import announce, start_device, worker_count
from specmaskfoley.extraction.decoding import ClipReader, Decoded
from specmaskfoley.extraction.extractor import Extractor
from specmaskfoley.media.clips import MediaBatch
from specmaskfoley.processes.isolation import IsolatedPool, Lost
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import sha256_text
from specmaskfoley.storage.shards import Row
from specmaskfoley.storage.tables import write_shard


@dataclass(frozen=True)
class ClipRow(Row):
    """A row to make of a clip: of what its file holds from `start_s` on."""

    path: str
    label: str
    start_s: float = 0.0


@dataclass(frozen=True)
class Unit:
    """Clips whose rows are made together, and the file they go into."""

    target: Path
    clips: tuple[ClipRow, ...]


def make_here(units: Sequence[Unit], params: Params, extractor: type[Extractor]) -> dict[str, Lost]:
    """Use one device, fed by `run.workers` decoding processes."""
    with Worker(params, extractor) as worker:
        return worker.make(units)


class Worker:
    """Makes units; to be used in a `with`. Clips that cannot be read, or crash their reader, cost no other clip.

    Args:
        decoders: processes that decode; None: run.workers, or one a core.
    """

    def __init__(self, params: Params, extractor: type[Extractor], decoders: int | None = None) -> None:
        device = start_device(params.run)
        self._extractor = extractor(params, device)
        announce(device, self._extractor.precision)
        self._batch_size = extractor.batch_size(params)
        prepare = params.prepare
        self._pool = IsolatedPool(
            decoders or worker_count(params), timeout_s=prepare.clip_timeout_s, memory_gb=prepare.clip_memory_gb
        )

    def __enter__(self) -> Worker:
        self._pool.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.__exit__(*error)

    def make(self, units: Sequence[Unit], *, bar: bool = True) -> dict[str, Lost]:
        """Write every unit's file; the paths of clips that could not be read, and why."""
        decoded = self._pool.map(
            ClipReader(self._extractor.views, self._extractor.sounds),
            [(clip.path, clip.start_s) for unit in units for clip in unit.clips],
            title=self._extractor.stage if bar else "",
            ahead=self._batch_size,
        )
        return {path: lost for unit in units for path, lost in self._make_unit(unit, decoded).items()}

    def _make_unit(self, unit: Unit, decoded: Iterator[Decoded | Lost]) -> dict[str, Lost]:
        made: list[ClipRow] = []
        batches: list[dict[str, np.ndarray]] = []
        lost: dict[str, Lost] = {}
        for first in range(0, len(unit.clips), self._batch_size):
            clips = unit.clips[first : first + self._batch_size]
            found = list(zip(clips, islice(decoded, len(clips)), strict=True))
            lost |= {clip.path: item for clip, item in found if isinstance(item, Lost)}
            good = [(clip, item) for clip, item in found if not isinstance(item, Lost)]
            if good:
                made += [clip for clip, _ in good]
                batches.append(self._encode(good))
        if made:
            # A unit that lacks rows is not the unit; its rows are kept under their own name.
            names = sha256_text("\n".join(clip.key for clip in made))[:24]
            write_shard(
                unit.target.with_name(f"rows-{names}.parquet") if lost else unit.target,
                [clip.clip_id for clip in made],
                {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]},
                keys=[clip.key for clip in made],
            )
        return lost

    def _encode(self, found: list[tuple[ClipRow, Decoded]]) -> dict[str, np.ndarray]:
        # Always the same size, so that a clip's row does not depend on how many share its batch.
        size = self._batch_size
        arrays = {key: np.zeros((size, *shape), dtype) for key, (dtype, shape) in found[0][1].layout.items()}
        for number, (_, decoded) in enumerate(found):
            decoded.move_into(arrays, number)
        batch = MediaBatch(
            slice(0, size),
            {view: arrays[view] for view in self._extractor.views},
            {sound: arrays[sound] for sound in self._extractor.sounds},
        )
        labels = [clip.label for clip, _ in found]
        encoded = self._extractor.encode(batch, labels + labels[-1:] * (size - len(found)))
        return {name: array[: len(found)] for name, array in encoded.items()}
