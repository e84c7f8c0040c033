"""How near extraction comes to what decoding alone allows: clips/s into shards against clips/s decoded.

    python benchmarks/extraction.py [FOLDER OF VIDEOS] [--clips 48] [--rounds 3] [--profile vggsound]

Both use the same number of processes and read what the profile's encoders read. The encoders themselves are replaced by
a mean over every frame, so that what is left is the pipeline: processes, the way of the arrays, batches, shards.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from decoding import render

from specmaskfoley.clips.folder import find_videos
from specmaskfoley.device import worker_count
from specmaskfoley.extraction.decoding import ClipReader
from specmaskfoley.extraction.worker import ClipRow, Unit, Worker
from specmaskfoley.media.clips import MediaBatch, read_clip, semantic_view, sync_view
from specmaskfoley.media.frames import View
from specmaskfoley.media.sound import Sound
from specmaskfoley.processes.isolation import IsolatedPool
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import read_shard

SOUND = Sound(48_000, 480_000)  # CLAP's


class FrameMeans:
    """Stands where the encoders stand."""

    stage: ClassVar[str] = "means"
    reads_label: ClassVar[bool] = False
    precision = "float32"

    def __init__(self, params: Params, device: Any) -> None:
        self.views: tuple[View, ...] = (sync_view(params), semantic_view(params))
        self.sounds: tuple[Sound, ...] = (SOUND,)

    def encode(self, batch: MediaBatch, labels: Sequence[str]) -> dict[str, np.ndarray]:
        sync, semantic = (batch.frames[view][:, :, ::16, ::16].mean((2, 3)) for view in self.views)
        return {"sync": sync.astype(np.float16), "semantic": semantic.astype(np.float16)}

    @staticmethod
    def batch_size(params: Params) -> int:
        return params.encoders.batch_size

    @staticmethod
    def settings(params: Params) -> list[Any]:
        return []

    @staticmethod
    def inputs(params: Params) -> list[str]:
        return []


class DecodeOnly(ClipReader):
    """Decodes, and keeps the arrays to itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        return DecodeOnly, (self._views, self._sounds)

    def __call__(self, place: tuple[str, float]) -> Any:
        torch.set_num_threads(1)
        read_clip(place[0], self._views, self._sounds, place[1])
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", default="vggsound")
    options = parser.parse_args()
    params = Params.load("params.yaml", options.profile)
    cores = worker_count(params)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "clips"
        if options.folder is None:
            folder.mkdir()
            render(folder)
        videos = [str(folder / path) for path in find_videos(folder).values()]
        paths = [videos[number % len(videos)] for number in range(options.clips)]
        ceiling, ours = [], []
        for number in range(options.rounds):
            ceiling.append(decode(paths, params, cores))
            ours.append(extract(paths, params, cores, Path(scratch) / f"{number}.parquet"))
            print(
                f"round {number + 1}: decoded {ceiling[-1]:.2f} clips/s, into shards {ours[-1]:.2f} clips/s", flush=True
            )
    share = statistics.median(mine / most for mine, most in zip(ours, ceiling, strict=True))
    print(
        f"{cores} processes, {options.clips} clips, median of {options.rounds}: decoding alone "
        f"{statistics.median(ceiling):.2f} clips/s, into shards {statistics.median(ours):.2f} clips/s: {share:.0%}"
    )


def decode(paths: list[str], params: Params, cores: int) -> float:
    """Clips/s of processes that only decode."""
    means = FrameMeans(params, None)
    with IsolatedPool(cores, timeout_s=60, memory_gb=8) as pool:
        reader = DecodeOnly(means.views, means.sounds)
        places = [(path, 0.0) for path in paths]
        list(pool.map(reader, places[: 2 * cores]))  # start and import
        began = time.perf_counter()
        assert all(result is True for result in pool.map(reader, places))
        return len(paths) / (time.perf_counter() - began)


def extract(paths: list[str], params: Params, cores: int, target: Path) -> float:
    """Clips/s of the worker of stage features."""
    with Worker(params, FrameMeans, cores) as worker:
        warm = [ClipRow(f"warm{number}", f"warm{number}", path, "") for number, path in enumerate(paths[: 2 * cores])]
        worker.make([Unit(target.with_name("warm.parquet"), tuple(warm))], bar=False)
        clips = tuple(ClipRow(str(number), str(number), path, "") for number, path in enumerate(paths))
        size = params.run.unit_clips
        units = [
            Unit(target.with_name(f"{target.stem}-{first}.parquet"), clips[first : first + size])
            for first in range(0, len(clips), size)
        ]
        began = time.perf_counter()
        assert not worker.make(units, bar=False)
        took = time.perf_counter() - began
    assert sum(len(read_shard(unit.target)[0]) for unit in units) == len(paths)
    return len(paths) / took


if __name__ == "__main__":
    main()
