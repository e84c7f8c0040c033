"""One network on one device, fed by processes that decode: clips in, a file of rows out, unit by unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from specmaskfoley.device import start, worker_count
from specmaskfoley.extraction.decoding import ClipReader, Decoded
from specmaskfoley.extraction.extractor import Extractor
from specmaskfoley.media.clips import Media
from specmaskfoley.processes.isolation import IsolatedPool, Lost
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import sha256_text
from specmaskfoley.storage.tables import write_shard


@dataclass(frozen=True)
class Clip:
    """A clip whose row is to be made: what a file holds from `start_s` on."""

    clip_id: str
    key: str
    path: str
    label: str
    start_s: float = 0.0


@dataclass(frozen=True)
class Unit:
    """Clips whose rows are made together, and the file they go into."""

    target: Path
    clips: tuple[Clip, ...]


class Worker:
    """Makes units. Clips that cannot be read (or end the process that reads them) cost no other clip.

    Args:
        decoders: processes that decode; None: run.workers, or one a core.
    """

    def __init__(self, params: Params, kind: type[Extractor], decoders: int | None = None) -> None:
        self._extractor = kind(params, start(params))
        self._batch_size = kind.batch_size(params)
        self._title = kind.stage
        prepare = params.prepare
        self._pool = IsolatedPool(
            decoders or worker_count(params), timeout_s=prepare.clip_timeout_s, memory_gb=prepare.clip_memory_gb
        )

    def __enter__(self) -> Worker:
        self._pool.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.__exit__(*error)

    def make(self, units: Sequence[Unit], *, bar: bool = True) -> dict[str, tuple[str, str]]:
        """Write every unit's file; paths of clips that could not be read -> state and reason."""
        extractor = self._extractor
        lost: dict[str, tuple[str, str]] = {}
        decoded = self._pool.map(
            ClipReader(extractor.views, extractor.sounds),
            [(clip.path, clip.start_s) for unit in units for clip in unit.clips],
            title=self._title if bar else "",
            ahead=self._batch_size,
        )
        for unit in units:
            failed = self._make(unit, decoded)
            lost |= {path: (item.state, item.reason) for path, item in failed.items()}
        return lost

    def _make(self, unit: Unit, decoded: Iterator[Decoded | Lost]) -> dict[str, Lost]:
        made: list[Clip] = []
        parts: list[dict[str, np.ndarray]] = []
        lost: dict[str, Lost] = {}
        for first in range(0, len(unit.clips), self._batch_size):
            clips = unit.clips[first : first + self._batch_size]
            found = list(zip(clips, islice(decoded, len(clips)), strict=True))
            lost |= {clip.path: item for clip, item in found if isinstance(item, Lost)}
            good = [(clip, item) for clip, item in found if not isinstance(item, Lost)]
            if good:
                made += [clip for clip, _ in good]
                parts.append(self._encode(good))
        if made:
            # A unit that lacks rows is not the unit; its rows are kept under their own name.
            names = sha256_text("\n".join(clip.key for clip in made))[:24]
            write_shard(
                unit.target.with_name(f"rows-{names}.parquet") if lost else unit.target,
                [clip.clip_id for clip in made],
                {name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
                keys=[clip.key for clip in made],
            )
        return lost

    def _encode(self, found: list[tuple[Clip, Decoded]]) -> dict[str, np.ndarray]:
        # Always the same size, so that a clip's row does not depend on how many share its batch.
        size = self._batch_size
        batch = {kind: np.zeros((size, *shape), dtype) for kind, (dtype, shape) in found[0][1].shapes.items()}
        for number, (_, decoded) in enumerate(found):
            decoded.move_into(batch, number)
        media = Media(
            slice(0, size),
            {view: batch[view] for view in self._extractor.views},
            {sound: batch[sound] for sound in self._extractor.sounds},
        )
        labels = [clip.label for clip, _ in found]
        arrays = self._extractor.encode(media, labels + labels[-1:] * (size - len(found)))
        return {name: array[: len(found)] for name, array in arrays.items()}
