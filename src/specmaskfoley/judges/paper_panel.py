"""The paper's judges as one panel: PaSST (FD, KL), VGGish (FAD), ImageBind (IB score), Synchformer (DeSync).

What they are shown follows the benchmark of MMAudio (av-benchmark) but for one thing: a generated sound of whole tokens
(9.85 s) is padded with silence to `audio.duration_s` (10 s), where the benchmark would take another clip.

Shape letters: n clips, N samples, t frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from specmaskfoley.encoders.synchformer import Synchformer, scale_frames
from specmaskfoley.judges.imagebind import ImageBind
from specmaskfoley.judges.panel import Heard, Panel, Seen, to_numpy
from specmaskfoley.judges.passt import PaSST
from specmaskfoley.judges.vggish import VGGish
from specmaskfoley.media.frames import View
from specmaskfoley.media.sound import Sound
from specmaskfoley.settings import Params
from specmaskfoley.weights.loading import load_weights

_WINDOW = 14
"""Segments of Synchformer's offset classifier: 4.8 s."""


class PaperPanel(Panel):
    """The official networks in float32, whatever run.precision says; their weights are loaded from outside."""

    batch_size = 4

    def __init__(self, params: Params) -> None:
        super().__init__()
        seconds = params.audio.duration_s
        self.passt, self.vggish, self.imagebind, self.synchformer = PaSST(), VGGish(), ImageBind(), Synchformer()
        self.grid = Synchformer.offset_grid()
        self.sync_view = View(25.0, int(25 * seconds), 224, "crop", "rate_filter")
        self.crops_view = View(0.5, int(0.5 * seconds), 224, "three_crops", "rate_filter")
        self.sound_16k, self.sound_32k = (Sound(rate, int(rate * seconds), "hann") for rate in (16000, 32000))
        self.views, self.sounds = (self.sync_view, self.crops_view), (self.sound_16k, self.sound_32k)

    @classmethod
    def load(cls, params: Params) -> Self:
        panel = cls(params)
        for name in ("passt", "vggish", "imagebind", "synchformer"):
            getattr(panel, name).load_official(*load_weights(getattr(params.judges, name).weights, params))
        return panel

    @torch.inference_mode()
    def hear(self, waves: Mapping[Sound, Tensor]) -> Heard:
        wave_16k, wave_32k = self.to_device(waves[self.sound_16k]), self.to_device(waves[self.sound_32k])
        logits, embedding = self.passt(_zero_mean(wave_32k))
        stretches = self.vggish(_zero_mean(wave_16k))
        joint = self.imagebind.encode_audio(wave_16k)
        segments = self.synchformer.encode_audio(wave_16k)
        first, last = segments[:, :_WINDOW], segments[:, -_WINDOW:]
        # Half precision: two windows of a clip are 0.5 MB of float32, and a test split has 15,000 clips.
        windows = to_numpy(first, torch.float16), to_numpy(last, torch.float16)
        return Heard(to_numpy(logits), to_numpy(embedding), to_numpy(stretches), to_numpy(joint), windows)

    @torch.inference_mode()
    def see(self, frames: Mapping[View, Tensor]) -> Seen:
        sync, crops = self.to_device(frames[self.sync_view]), self.to_device(frames[self.crops_view])
        joint = self.imagebind.encode_video(crops.permute(0, 1, 2, 5, 3, 4).float() / 255)
        segments = self.synchformer.encode_video(scale_frames(sync))
        first, last = segments[:, :_WINDOW], segments[:, -_WINDOW:]
        return Seen(to_numpy(joint), (to_numpy(first, torch.float16), to_numpy(last, torch.float16)))

    def compare(self, video: Tensor, audio: Tensor) -> Tensor:
        return self.synchformer.compare(video.float(), audio.float())


def _zero_mean(waveform: Tensor) -> Tensor:
    return waveform - waveform.mean(-1, keepdim=True)
