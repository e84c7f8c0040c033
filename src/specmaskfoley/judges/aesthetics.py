"""Audiobox Aesthetics: how a listener would rate a sound on four axes (Tjandra et al. 2025, arXiv 2502.05139).

The network (WavLM and four heads) comes from the authors' package audiobox_aesthetics. Its own reader does not: that
fetches weights from a hub.

Shape letters: B batch, N samples.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from specmaskfoley.judges.extra import Extra
from specmaskfoley.media.sound import Sound
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import read_json
from specmaskfoley.weights.loading import find_weights, load_weights
from specmaskfoley.weights.official import OfficialNetwork, paper_packages
from specmaskfoley.weights.reading import load_strictly

AXES = ("pq", "pc", "ce", "cu")
"""Production quality, production complexity, content enjoyment, content usefulness: names in `metrics.EXTRA`."""

_WINDOW = 160_000
"""Samples of the 10 s that are rated at a time."""

_WEIGHTS, _CONFIG = "audiobox_aesthetics", "audiobox_aesthetics_config"


class Aesthetics(OfficialNetwork):
    """Waveform (B, N) at 16 kHz -> ratings (B, 4) in the order of `AXES`, on the authors' scale of 1 to 10.

    Args:
        config: of the published model: sizes of the heads, and mean and deviation of each axis in `target_transform`.
        where: its file, for messages.

    Raises:
        ValueError: the package is not installed, or the config is of another model.
    """

    sample_rate = 16000
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        super().__init__()
        with paper_packages("Audiobox Aesthetics", "the package audiobox_aesthetics"):
            upstream: Any = importlib.import_module("audiobox_aesthetics.model.aes")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=FutureWarning)  # torch is about to drop this weight norm
                self.net: Any = upstream.AesMultiOutput(**config)
            scales = [config["target_transform"][axis.upper()] for axis in AXES]
            mean, deviation = ([float(scale[name]) for scale in scales] for name in ("mean", "std"))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{where}: not the config of Audiobox Aesthetics ({error})") from error
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation), persistent=False)

    def load_official(self, tensors: Mapping[str, Tensor], where: str) -> None:
        load_strictly(self.net, tensors, where)  # the names are those of upstream's own module

    def forward(self, waveform: Tensor) -> Tensor:
        """Stretches of 10 s, the last one as long as it is, count by their lengths."""
        windows = torch.split(waveform, _WINDOW, dim=1)
        ratings = [self._rate(window) * (window.shape[1] / waveform.shape[1]) for window in windows]
        return torch.stack(ratings).sum(0)

    def _rate(self, window: Tensor) -> Tensor:
        samples = window.shape[1]
        heard = (torch.arange(_WINDOW, device=window.device) < samples).expand(len(window), 1, _WINDOW)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Support for mismatched", category=UserWarning)
            found = self.net({"wav": F.pad(window, (0, _WINDOW - samples))[:, None], "mask": heard})
        return torch.stack([found[axis.upper()] for axis in AXES], dim=1) * self.deviation + self.mean


class AestheticsJudge(Extra):
    """`hear` gives the four ratings themselves."""

    weights = (_WEIGHTS, _CONFIG)

    def __init__(self, network: Aesthetics, params: Params) -> None:
        super().__init__()
        self.network = network
        self.sound = Sound(network.sample_rate, round(network.sample_rate * params.audio.duration_s), "hann")

    @classmethod
    def load(cls, params: Params) -> Self:
        path = find_weights(_CONFIG, params)
        network = Aesthetics(read_json(path), str(path))
        network.load_official(*load_weights(_WEIGHTS, params))
        return cls(network, params)

    @torch.inference_mode()
    def hear(self, waveform: Tensor) -> Tensor:
        return self.network(waveform).float()  # type: ignore[no-any-return]

    def scores(self, heard: np.ndarray, words: Sequence[str]) -> Mapping[str, np.ndarray]:
        return dict(zip(AXES, heard.T.astype(np.float64), strict=True))
