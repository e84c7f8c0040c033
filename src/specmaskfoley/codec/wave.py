"""Sound to tokens and back by a codec of samples, without mel and vocoder.

Shape letters: B clips, F codebooks, T token columns, C code width, S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specmaskfoley.codec.role import CodecNetwork, Reader, Tokenizer


class WaveReader(Reader):
    def __init__(self, network: CodecNetwork, device: torch.device) -> None:
        self.device, self._network = device, network

    @torch.inference_mode()
    def encode(self, waveform: Tensor) -> Tensor:
        return self._network.tokens(waveform.to(self.device))


class WaveTokenizer(WaveReader, Tokenizer):
    """Frames are the quantised latents (B, C, T)."""

    frames_per_column = 1

    @torch.inference_mode()
    def frames(self, tokens: Tensor) -> Tensor:
        return self._network.lookup(tokens.to(self.device))

    @torch.inference_mode()
    def sound(self, frames: Tensor) -> Tensor:
        return self._network.decode_latents(frames)
