"""Sound to tokens and back: mel, codec, vocoder.

Shape letters: B clips, F token rows, T token columns, M mel bands, L mel frames, S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specmaskfoley.codec.network import Codec
from specmaskfoley.codec.trained import load_codec
from specmaskfoley.device import autocast, fast_bfloat16, half_dtype
from specmaskfoley.media.mel import build_mel
from specmaskfoley.settings import Params
from specmaskfoley.vocoders.trained import build_vocoder, load_vocoder

_PEAK = 0.98


class Tokenizer:
    """Sound to tokens and back.

    Args:
        trained: False takes new networks of the profile's sizes, whose sound is noise: to measure time and memory.
    """

    def __init__(self, params: Params, device: torch.device, *, trained: bool = True) -> None:
        self.device = device
        # Of tokens to sound, on CPUs alone; tokens of a sound, which networks learn from, are always float32's.
        native = device.type == "cpu" and fast_bfloat16(device) and half_dtype(params.run.precision, device)
        self._precision = "bfloat16" if native else "float32"
        self._mel = build_mel(params.audio).to(device)
        if trained:
            self._codec, self._vocoder = load_codec(params, device), load_vocoder(params, device)
        else:
            self._codec = Codec(params.codec).to(device).eval()
            self._vocoder = build_vocoder(params.audio, params.vocoder).to(device).eval()

    @torch.inference_mode()
    def mel(self, waveform: Tensor) -> Tensor:
        """(B, S) -> (B, M, L)."""
        return self._mel(waveform.to(self.device))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def encode(self, waveform: Tensor) -> Tensor:
        """(B, S) -> tokens (B, F, T)."""
        return self._codec.encode(self._mel.normalize(self.mel(waveform))[:, None]).tokens

    @torch.inference_mode()
    def decode_mel(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> (B, M, L), as the vocoder reads it."""
        with autocast(self._precision, self.device):
            mel = self._codec.decode(tokens.to(self.device))[:, 0]
        return self._mel.denormalize(mel.float())

    @torch.inference_mode()
    def vocoder(self, mel: Tensor) -> Tensor:
        """(B, M, L) -> (B, S)."""
        with autocast(self._precision, self.device):
            return self._vocoder(mel)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def decode(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> waveform (B, S) on the CPU."""
        waveform = self.vocoder(self.decode_mel(tokens)).cpu()
        # Phase reconstruction overshoots now and then; turning the clip down beats clipping it.
        return waveform / (waveform.abs().amax(1, keepdim=True) / _PEAK).clamp(min=1.0)
