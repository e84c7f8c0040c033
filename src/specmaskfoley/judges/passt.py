"""PaSST-S: the tagger behind FD and KL (Koutini et al. 2022, kkoutini/PaSST, AudioSet mAP 47.6 with SWA).

The network comes from the authors' package hear21passt. Its front end does not: that draws from torch's global
generator even in eval mode and calls what torch is about to drop.

Shape letters: B batch, N samples.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from specmaskfoley.weights.official import OfficialNetwork, paper_packages
from specmaskfoley.weights.reading import load_strictly

CLASSES, WIDTH = 527, 768
"""AudioSet classes; width of the embedding."""

_SAMPLES = 320_000
_BANDS, _FRAMES = 128, 1000
_FFT, _HOP, _WINDOW = 1024, 320, 800
_HIGH_HZ = 15000.0
_PREEMPHASIS = 0.97
_LOG_OFFSET = 1e-5


class PaSST(OfficialNetwork):
    """Waveform (B, N) at 32 kHz, zero mean -> class logits (B, 527), embedding (B, 768).

    Weights: passt-s-f128-p16-s10-ap.476-swa.pt.

    Raises:
        ValueError: the package hear21passt is not installed.
    """

    sample_rate = 32000

    def __init__(self) -> None:
        super().__init__()
        with paper_packages("PaSST", "the package hear21passt"):
            upstream: Any = importlib.import_module("hear21passt.models.passt")
        upstream.first_RUN = False  # else its first forward pass prints every shape
        with torch.device("cpu"):  # its constructor reads values of a tensor, and tensors on meta have none
            self.net: nn.Module = upstream.PaSST(
                img_size=(_BANDS, 998),
                patch_size=16,
                stride=10,
                num_classes=CLASSES,
                embed_dim=WIDTH,
                depth=12,
                num_heads=12,
                distilled=True,
            )
        # Trained on 998 frames and used on 1000, which are as many patches; with this size set, it does not warn.
        self.net.patch_embed.img_size = (_BANDS, _FRAMES)

    def load_official(self, tensors: Mapping[str, Tensor], where: str) -> None:
        load_strictly(self.net, tensors, where)  # the names are those of upstream's own module

    def mel(self, waveform: Tensor) -> Tensor:
        """Normalised log-mel of the first 10 s; what is shorter is followed by zeros.

        Args:
            waveform: (B, N) at 32 kHz.

        Returns:
            (B, 128, 1000) float32.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            x = waveform[:, :_SAMPLES].float()
            x = F.pad(x, (0, _SAMPLES - x.shape[1]))
            x = x[:, 1:] - _PREEMPHASIS * x[:, :-1]
            window = torch.hann_window(_WINDOW, periodic=False, device=x.device)
            spectrum = torch.stft(x, _FFT, _HOP, _WINDOW, window, return_complex=True)
            power = spectrum.real.square() + spectrum.imag.square()
            filters, _ = torchaudio.compliance.kaldi.get_mel_banks(
                _BANDS, _FFT, self.sample_rate, 0.0, _HIGH_HZ, vtln_low=100.0, vtln_high=-500.0, vtln_warp_factor=1.0
            )
            mel = F.pad(filters, (0, 1)).to(x.device) @ power
            return (torch.log(mel + _LOG_OFFSET) + 4.5) / 5.0

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) -> logits (B, 527) before the sigmoid, embedding (B, 768); float32."""
        logits, embedding = self.net(self.mel(waveform)[:, None])
        return logits.float(), embedding.float()
