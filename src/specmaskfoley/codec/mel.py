"""Sound to tokens and back by way of a mel and a vocoder.

Shape letters: B clips, F token rows, T token columns, M mel bands, L mel frames, S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specmaskfoley.codec.role import CodecNetwork, Reader, Tokenizer
from specmaskfoley.device import autocast, fast_bfloat16, half_dtype
from specmaskfoley.media.mel import build_mel
from specmaskfoley.settings import Params
from specmaskfoley.vocoders.trained import build_vocoder, load_vocoder


class MelReader(Reader):
    def __init__(self, network: CodecNetwork, params: Params, device: torch.device) -> None:
        self.device, self._network = device, network
        self._mel = build_mel(params.audio).to(device)

    @torch.inference_mode()
    def mel(self, waveform: Tensor) -> Tensor:
        """(B, S) -> (B, M, L)."""
        return self._mel(waveform.to(self.device))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def encode(self, waveform: Tensor) -> Tensor:
        return self._network.tokens(self._mel.normalize(self.mel(waveform))[:, None])


class MelTokenizer(MelReader, Tokenizer):
    """Frames are the mel (B, M, L) that the vocoder reads."""

    def __init__(self, network: CodecNetwork, params: Params, device: torch.device, *, trained: bool) -> None:
        super().__init__(network, params, device)
        self.frames_per_column = params.grid.step // params.audio.hop_length
        # Of tokens to sound, on CPUs alone; tokens of a sound, which networks learn from, are always float32's.
        native = device.type == "cpu" and fast_bfloat16(device) and half_dtype(params.run.precision, device)
        self._precision = "bfloat16" if native else "float32"
        assert params.vocoder is not None  # Params has checked it
        make = load_vocoder if trained else build_vocoder
        self._vocoder = make(params.vocoder, params).to(device).eval()

    @torch.inference_mode()
    def frames(self, tokens: Tensor) -> Tensor:
        with autocast(self._precision, self.device):
            mel = self._network.decode(tokens.to(self.device))[:, 0]
        return self._mel.denormalize(mel.float())

    @torch.inference_mode()
    def sound(self, frames: Tensor) -> Tensor:
        with autocast(self._precision, self.device):
            return self._vocoder(frames)  # type: ignore[no-any-return]
