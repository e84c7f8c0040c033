"""What a CUDA graph of the fast sampler would hold, watched on a GPU that has shapes and types alone."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import torch
from torch import Tensor

from helpers.fake_gpu import CUDA, Watch
from specmaskfoley.sampling import fast
from specmaskfoley.sampling.guidance import Condition


class WatchedGraph:
    """Instead of a CUDA graph: its loop, watched."""

    kernels: ClassVar[Counter[str]] = Counter()
    uniform: ClassVar[bool] = True

    def __init__(self, *loop: Any) -> None:
        self.loop = loop

    def __call__(self, given: fast._Given) -> Tensor:
        sampler, made_for, decoding, passes, fresh = self.loop
        shapes = [[part.shape for part in one.flat()] for one in (given, made_for)]
        assert shapes[0] == shapes[1]  # a CUDA graph cannot tell
        decoding.uniform = self.uniform
        with Watch() as watch:
            tokens = sampler._decode(given, decoding, passes, fresh)
        WatchedGraph.kernels = watch.kernels
        return tokens  # type: ignore[no-any-return]


def on_cuda(condition: Condition, device: torch.device = CUDA) -> Condition:
    given = {name: part for name, part in vars(condition).items() if part is not None}
    return Condition(**{name: torch.empty_like(part, device=device) for name, part in given.items()})
