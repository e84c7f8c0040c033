"""CLAP score: the profile's encoder of prompts as a judge of how well sounds fit words.

With the profile vggsound it is LAION-CLAP with the weights, sounds and bare captions of av-benchmark. Both scales steer
the generator with the same network, which flatters what it makes from words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from specmaskfoley.encoders.trained import PROMPT, Prompt, encoder_file, load_encoder
from specmaskfoley.judges.extra import Extra
from specmaskfoley.media.sound import Sound
from specmaskfoley.metrics.clap import clap_per_clip
from specmaskfoley.settings import Clap, Params


class ClapJudge(Extra):
    """`hear` gives embeddings; only clips with words have a score."""

    def __init__(self, encoder: Prompt, params: Params) -> None:
        super().__init__()
        self.encoder = encoder
        # CLAP repeats what is shorter than its 10 s, so that it is not given silence instead.
        samples = min(round(encoder.sample_rate * params.audio.duration_s), encoder.num_samples)
        official = isinstance(params.encoders.prompt, Clap)
        self.sound = Sound(encoder.sample_rate, samples, "hann" if official else "kaiser")
        if isinstance(params.encoders.prompt, Clap):
            self.weights = (params.encoders.prompt.weights, *params.encoders.prompt.tokenizer)
        else:
            self.trained = (encoder_file(params, PROMPT.name),)

    @classmethod
    def load(cls, params: Params) -> Self:
        return cls(load_encoder(PROMPT, params, torch.device("cpu")), params)

    @torch.inference_mode()
    def hear(self, waveform: Tensor) -> Tensor:
        return self.encoder.embed_audio(waveform).float()

    @torch.inference_mode()
    def scores(self, heard: np.ndarray, words: Sequence[str]) -> Mapping[str, np.ndarray]:
        places = {text: number for number, text in enumerate(dict.fromkeys(text for text in words if text))}
        rows = np.full(heard.shape, np.nan, dtype=np.float32)
        if places:
            embedded = torch.cat([self.encoder.embed_text([text]) for text in places]).float().cpu().numpy()
            for row, text in enumerate(words):
                if text:
                    rows[row] = embedded[places[text]]
        return {"clap": clap_per_clip(rows, heard)}
