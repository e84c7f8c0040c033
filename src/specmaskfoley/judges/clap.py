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
from specmaskfoley.metrics.ib import ib_per_clip
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
        """
        Raises:
            ValueError: the profile's prompt encoder hears no sounds.
        """
        if not params.encoders.prompt.hears:
            raise ValueError(
                f"--extra clap: encoders.prompt.kind={params.encoders.prompt.kind} embeds texts alone; take the judges "
                "of another profile (--profile vggsound)"
            )
        return cls(load_encoder(PROMPT, params, torch.device("cpu")), params)

    @torch.inference_mode()
    def hear(self, waveform: Tensor) -> Tensor:
        return self.encoder.embed_audio(waveform).float()

    @torch.inference_mode()
    def scores(self, heard: np.ndarray, words: Sequence[str]) -> Mapping[str, np.ndarray]:
        embedded = {text: self.encoder.embed_text([text])[0].float().cpu().numpy() for text in set(words) if text}
        given = [row for row, text in enumerate(words) if text]
        found = np.full(len(words), np.nan)
        if given:  # the formula is IB's: a cosine
            found[given] = ib_per_clip(np.stack([embedded[words[row]] for row in given]), heard[given])
        return {"clap": found}
