"""Networks that are asked besides a panel when somebody wants their scores: `specmaskfoley evaluate --extra`.

Shape letters: n clips, N samples, D width of what a network makes of a sound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from specmaskfoley.media.sound import Sound
from specmaskfoley.settings import Params

EXTRAS = {
    "clap": "specmaskfoley.judges.clap:ClapJudge",
    "aesthetics": "specmaskfoley.judges.aesthetics:AestheticsJudge",
}
"""--extra -> the judge; only those that are asked for are imported."""


class Extra(nn.Module, ABC):
    """A judge of sounds alone, clip by clip.

    Attributes:
        sound: what it must be played.
        weights: official files that it is made of, by their names in weights.lock.yaml.
        trained: files of this pipeline that it is made of.
    """

    sound: Sound
    batch_size: ClassVar[int] = 8
    weights: tuple[str, ...] = ()
    trained: tuple[Path, ...] = ()

    @classmethod
    @abstractmethod
    def load(cls, params: Params) -> Self:
        """With its weights, on the CPU.

        Raises:
            ValueError: a file or a package is missing.
        """

    @abstractmethod
    def hear(self, waveform: Tensor) -> Tensor:
        """(n, N) -> (n, D) float32."""

    @abstractmethod
    def scores(self, heard: np.ndarray, words: Sequence[str]) -> Mapping[str, np.ndarray]:
        """What `hear` made (n, D), and n texts ("": none is known) -> metrics of `EXTRA` (n,), NaN where unknown."""


def load_extra(name: str, params: Params, device: torch.device) -> Extra:
    """
    Raises:
        ValueError: there is no such judge, or a file or a package that it needs is missing.
    """
    if name not in EXTRAS:
        raise ValueError(f"--extra {name}: expected {' or '.join(EXTRAS)}")
    extra: Extra = resolve_name(EXTRAS[name]).load(params)
    return extra.to(device).eval()
