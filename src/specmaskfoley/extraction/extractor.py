"""The face of everything that is extracted of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from specmaskfoley.media.clips import MediaBatch
from specmaskfoley.media.frames import View
from specmaskfoley.media.sound import Sound
from specmaskfoley.settings import Params


class Extractor(Protocol):
    """Arrays of batches of clips.

    `settings`, `inputs` and the code that it reaches are everything that decides them, besides the clip's bytes and, if
    `reads_label`, its label; run.threads, the batch size and the device may change last bits and do not count.
    """

    stage: ClassVar[str]
    reads_label: ClassVar[bool]
    views: tuple[View, ...]
    sounds: tuple[Sound, ...]

    def __init__(self, params: Params, device: torch.device) -> None: ...

    def encode(self, batch: MediaBatch, labels: Sequence[str]) -> dict[str, np.ndarray]:
        """Column -> (n, ...) of n clips, read as `views` and `sounds` say."""
        ...

    @staticmethod
    def batch_size(params: Params) -> int: ...
    @staticmethod
    def settings(params: Params) -> list[Any]: ...
    @staticmethod
    def inputs(params: Params) -> list[str]: ...
