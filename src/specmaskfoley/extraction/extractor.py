"""What every extractor of clips has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from specmaskfoley.media.clips import MediaBatch
from specmaskfoley.media.frames import View
from specmaskfoley.media.sound import Sound
from specmaskfoley.settings import Params, weights_of
from specmaskfoley.storage.files import read_json


class Extractor(Protocol):
    """Computes the arrays of a row from batches of clips.

    A row depends on `settings`, `inputs`, the code that the extractor reaches, the clip's bytes and, if `reads_label`,
    its label. run.threads, the batch size and the device may change its last bits and do not count.
    """

    stage: ClassVar[str]
    reads_label: ClassVar[bool]
    precision: str
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


def weight_sums(params: Params, *sections: Any) -> dict[str, str]:
    """SHA-256 of each official weight file that these sections of the settings name."""
    official = read_json(params.paths.weights)
    return {name: official[name]["sha256"] for section in sections for name in weights_of(section)}
