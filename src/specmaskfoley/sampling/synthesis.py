"""Sounds for every test clip by each system that the evaluation compares."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from specmaskfoley.sampling.generator import Generator, clip_seed
from specmaskfoley.sampling.guidance import needs_video
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import stream_arrays
from specmaskfoley.systems import SYSTEMS, sampling_of


@dataclass(frozen=True)
class Sounds:
    """A batch of one system: tokens (n, F, T) int64, waveform (n, samples)."""

    ids: list[str]
    tokens: Tensor
    waveform: Tensor


def synthesise(generator: Generator, system: str, take: int, params: Params) -> Iterator[Sounds]:
    """Batches of the test split in the order of the shards; take n is drawn with the seed params.seed + n."""
    sampling = sampling_of(system, take, params)
    true = SYSTEMS[system].source == "decoded"
    prompt = "audio_prompt" if sampling.mode == "audio" else "text_prompt"
    columns = ["tokens"] if true else [prompt, *(["sync", "semantic"] if needs_video(sampling.mode) else [])]
    size = params.sample.batch_size
    with tqdm(desc=f"{system}, take {take}", unit="clip") as progress:
        for ids, arrays in stream_arrays(params.paths.tokens if true else params.paths.features, "test", columns):
            for first in range(0, len(ids), size):
                rows = slice(first, first + size)
                if true:
                    tokens = torch.from_numpy(arrays["tokens"][rows].astype(np.int64))
                else:
                    given = {name: torch.from_numpy(array[rows].astype(np.float32)) for name, array in arrays.items()}
                    tokens = generator.tokens(
                        prompt=given[prompt],
                        sync=given.get("sync"),
                        semantic=given.get("semantic"),
                        seeds=[clip_seed(sampling.seed, clip_id) for clip_id in ids[rows]],
                        sampling=sampling,
                    ).cpu()
                yield Sounds(ids[rows], tokens, generator.decode(tokens))
                progress.update(len(tokens))


class Overlap:
    """Runs tasks in order in one thread while its maker goes on; at most one waits, so that memory stays bounded.

    Leaving waits for the last task, or after an error drops the one that waits. A task's error is raised by the next
    `run`, or on leaving.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Overlap:
        return self

    def run(self, task: Callable[[], None]) -> None:
        while len(self._pending) > 1:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(task))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for future in self._pending:
                future.result()
