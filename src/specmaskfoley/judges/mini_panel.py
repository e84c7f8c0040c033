"""The judges that the pipeline trains itself, as one panel.

Shape letters: n clips, M mel bands, L mel frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from specmaskfoley.encoders.offsets import offset_grid
from specmaskfoley.judges.mini import AudioEmbedder, AudioVideoEmbedder, OffsetClassifier, Tagger
from specmaskfoley.judges.panel import Heard, Panel, Seen, to_numpy
from specmaskfoley.media.clips import model_sound, semantic_view, sync_view
from specmaskfoley.media.frames import View
from specmaskfoley.media.mel import MelSpectrogram
from specmaskfoley.media.sound import Sound
from specmaskfoley.settings import MiniJudges, Params
from specmaskfoley.storage.checkpoint import load_model, read_setting


class MiniPanel(Panel):
    """Tagger (PaSST's role), audio embedder (VGGish's), audio-video embedder (ImageBind's), offset classifier."""

    batch_size = 16

    def __init__(self, params: Params, judges: MiniJudges, texts: Sequence[str]) -> None:
        super().__init__()
        audio, video = params.audio, params.video
        self.audio_settings, self.sync_fps = audio, video.sync_fps
        self.texts = tuple(texts)
        self.grid = offset_grid(judges.sync_max_offset_s, judges.sync_classes)
        self.window = round(judges.sync_window_s * video.sync_fps)
        self.sync_view, self.semantic_view, self.sound = sync_view(params), semantic_view(params), model_sound(params)
        self.views, self.sounds = (self.sync_view, self.semantic_view), (self.sound,)
        self.mel = MelSpectrogram(audio)
        self.tagger = Tagger(judges.width, len(texts))
        self.audio = AudioEmbedder(audio.num_mels, judges.width, len(texts))
        self.audio_video = AudioVideoEmbedder(judges.width)
        self.offset = OffsetClassifier(
            audio.num_mels, judges.width, tuple(round(offset * video.sync_fps) for offset in self.grid)
        )

    @classmethod
    def load(cls, params: Params) -> Self:
        assert isinstance(params.judges, MiniJudges)
        panel = cls(params, params.judges, read_setting(params.paths.judges, "texts"))
        load_model(params.paths.judges, panel, judges=params.judges)
        return panel

    @property
    def mel_per_frame(self) -> float:
        return self.audio_settings.sample_rate / self.audio_settings.hop_length / self.sync_fps

    @property
    def stretch(self) -> int:
        """Mel frames of about 0.96 s, VGGish's example length; the whole clip where it is shorter."""
        return min(
            round(0.96 * self.audio_settings.sample_rate / self.audio_settings.hop_length),
            self.audio_settings.num_frames,
        )

    @torch.inference_mode()
    def hear(self, waves: Mapping[Sound, Tensor]) -> Heard:
        log_mel = self.mel(self.to_device(waves[self.sound]))
        logits, embedding = self.tagger(log_mel)
        whole = log_mel.shape[-1] // self.stretch * self.stretch
        pieces = torch.split(log_mel[..., :whole], self.stretch, dim=-1)
        stretches = torch.stack([self.audio(piece) for piece in pieces], dim=1)
        length = round(self.window * self.mel_per_frame)
        # The last window of sound starts where the last window of pictures starts.
        start = round((round(log_mel.shape[-1] / self.mel_per_frame) - self.window) * self.mel_per_frame)
        start = min(start, log_mel.shape[-1] - length)
        first = self.offset.encode_audio(log_mel[..., :length], self.window)
        last = self.offset.encode_audio(log_mel[..., start : start + length], self.window)
        joint = self.audio_video.encode_audio(log_mel)
        windows = to_numpy(first), to_numpy(last)
        return Heard(to_numpy(logits), to_numpy(embedding), to_numpy(stretches), to_numpy(joint), windows)

    @torch.inference_mode()
    def see(self, frames: Mapping[View, Tensor]) -> Seen:
        sync, semantic = self.to_device(frames[self.sync_view]), self.to_device(frames[self.semantic_view])
        first = self.offset.encode_video(sync[:, : self.window])
        last = self.offset.encode_video(sync[:, -self.window :])
        return Seen(to_numpy(self.audio_video.encode_video(semantic)), (to_numpy(first), to_numpy(last)))

    def compare(self, video: Tensor, audio: Tensor) -> Tensor:
        return self.offset.compare(video, audio)
