"""Video features and prompt embeddings of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from specmaskfoley.device import pick_device, precision_name
from specmaskfoley.encoders import features
from specmaskfoley.extraction.extractor import weight_sums
from specmaskfoley.media.clips import MediaBatch
from specmaskfoley.media.sound import Sound
from specmaskfoley.settings import Params


class FeatureExtractor:
    """Columns sync (t, d), semantic (u, d), text_prompt (*P) and, where the encoder hears, audio_prompt (*P), all
    float16 (see `features`), and semantic_mean (d,) float32: all that training reads of semantic, which is a third of a
    row.
    """

    stage = "features"
    reads_label = True

    def __init__(self, params: Params, device: torch.device) -> None:
        self._features = features.Features(params, device)
        self.precision = precision_name(params.run.precision, device)
        self.views = (self._features.sync_view, self._features.semantic_view)
        self.sounds: tuple[Sound, ...] = (self._features.prompt_sound,) if self._features.hears else ()

    def encode(self, batch: MediaBatch, labels: Sequence[str]) -> dict[str, np.ndarray]:
        sync, semantic = self._features.video(*(torch.from_numpy(batch.frames[view]) for view in self.views))
        arrays = {
            "sync": sync,
            "semantic": semantic,
            "semantic_mean": semantic.float().mean(1),
            "text_prompt": self._features.text_prompt(labels),
        }
        for sound in self.sounds:
            arrays["audio_prompt"] = self._features.audio_prompt(torch.from_numpy(batch.waves[sound]))
        return {name: array.cpu().numpy() for name, array in arrays.items()}

    @staticmethod
    def batch_size(params: Params) -> int:
        return params.encoders.batch_size

    @staticmethod
    def settings(params: Params) -> list[Any]:
        encoders = (params.encoders.sync, params.encoders.semantic, params.encoders.prompt)
        precision = precision_name(params.run.precision, pick_device(params.run.device))
        return [params.audio, params.video, *encoders, weight_sums(params, *encoders), precision]

    @staticmethod
    def inputs(params: Params) -> list[str]:
        return [params.paths.encoders]
