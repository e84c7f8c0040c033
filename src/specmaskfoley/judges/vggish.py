"""VGGish: the embedding behind FAD (Hershey et al. 2017), of each stretch of 0.96 s.

Module names are those of torchvggish's public weights, vggish-10086976.pth. The embedding is the last linear layer's
output, without its ReLU, the PCA and the quantisation of the public model: what the benchmark of the paper compares.

Shape letters: B batch, N samples, k examples a clip.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specmaskfoley.weights.official import OfficialNetwork

FRAMES, BANDS = 96, 64
"""Spectrogram frames and mel bands of an example."""

_WINDOW, _HOP, _FFT = 400, 160, 512
_LOW_HZ, _HIGH_HZ = 125.0, 7500.0
_LOG_OFFSET = 0.01


class VGGish(OfficialNetwork):
    """Waveform (B, N) at 16 kHz, zero mean -> (B, k, 128), k = 10 for 10 s."""

    sample_rate = 16000

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(1, 64),
            nn.MaxPool2d(2),
            *_conv(64, 128),
            nn.MaxPool2d(2),
            *_conv(128, 256),
            *_conv(256, 256),
            nn.MaxPool2d(2),
            *_conv(256, 512),
            *_conv(512, 512),
            nn.MaxPool2d(2),
        )
        self.embeddings = nn.Sequential(
            nn.Linear(512 * (FRAMES // 16) * (BANDS // 16), 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, 128),
        )

    def examples(self, waveform: Tensor) -> Tensor:
        """Log-mel stretches of 0.96 s side by side; what does not fill one at the end is dropped.

        Args:
            waveform: (B, N) at 16 kHz.

        Returns:
            (B, k, 96, 64) float32, time before frequency; computed in float64 as upstream.

        Raises:
            ValueError: the waveform is shorter than one example.
        """
        shortest = _WINDOW + (FRAMES - 1) * _HOP
        if waveform.shape[-1] < shortest:
            raise ValueError(
                f"waveform has {waveform.shape[-1]} samples: VGGish needs at least {shortest} at {self.sample_rate} Hz "
                "(0.975 s); pad it or leave the clip out"
            )
        with torch.autocast(waveform.device.type, enabled=False):
            window = torch.hann_window(_WINDOW, dtype=torch.float64, device=waveform.device)
            frames = waveform.double().unfold(-1, _WINDOW, _HOP) * window
            magnitude = torch.fft.rfft(frames, _FFT).abs()
            log_mel = torch.log(magnitude @ _mel_filters(self.sample_rate).to(waveform.device) + _LOG_OFFSET)
        count = log_mel.shape[1] // FRAMES
        return log_mel[:, : count * FRAMES].reshape(-1, count, FRAMES, BANDS).float()

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, N) -> (B, k, 128) float32."""
        examples = self.examples(waveform)
        x = self.features(examples.flatten(0, 1)[:, None])
        x = x.permute(0, 2, 3, 1).flatten(1)  # channels last, as in the TensorFlow model the weights come from
        return self.embeddings(x).view(*examples.shape[:2], -1).float()  # type: ignore[no-any-return]


def _conv(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()


def _mel_filters(sample_rate: int) -> Tensor:
    """(257, 64) float64: triangles that are linear in HTK mel (most banks are linear in Hz)."""
    bins = _mel(torch.linspace(0, sample_rate / 2, _FFT // 2 + 1, dtype=torch.float64))[:, None]
    low, high = (float(_mel(torch.tensor(hz, dtype=torch.float64))) for hz in (_LOW_HZ, _HIGH_HZ))
    corners = torch.linspace(low, high, BANDS + 2, dtype=torch.float64)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    return torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)


def _mel(hz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hz / 700.0)
