"""How the judges learn: on the training split, from seeds of their own, apart from the generator's encoders.

Shape letters: n clips, t video frames, M mel bands, L mel frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from specmaskfoley.encoders.data import AudioVisual
from specmaskfoley.encoders.objectives import EncoderObjective, accuracy, info_nce
from specmaskfoley.judges.mini import AudioEmbedder, AudioVideoEmbedder, OffsetClassifier, Tagger
from specmaskfoley.judges.mini_panel import MiniPanel
from specmaskfoley.settings import MiniJudges, Training
from specmaskfoley.training.loop import Objective, Scores

JUDGES = ("tagger", "audio", "audio_video", "offset")


class TaggerObjective(EncoderObjective[Tagger]):
    """Class of a clip from its sound."""

    def scores(self, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        logits = self.call(self.network.classify, self.take(self.train.log_mel, rows))
        return {"loss": F.cross_entropy(logits, self.take(self.train.labels, rows))}

    def validate(self, generator: torch.Generator) -> Scores:
        logits, _ = self.network(self.valid.log_mel.to(self.device))
        return {"accuracy": accuracy(logits, self.valid.labels)}


@dataclass(eq=False)
class AudioObjective(EncoderObjective[AudioEmbedder]):
    """Class of a random stretch of sound, of `stretch` mel frames."""

    stretch: int

    def scores(self, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        mel = self.train.log_mel
        start = int(torch.randint(mel.shape[-1] - self.stretch + 1, (1,), generator=generator))
        logits = self.call(self.network.classify, self.take(mel[..., start : start + self.stretch], rows))
        return {"loss": F.cross_entropy(logits, self.take(self.train.labels, rows))}

    def validate(self, generator: torch.Generator) -> Scores:
        mel = self.valid.log_mel
        whole = mel.shape[-1] // self.stretch * self.stretch
        pieces = torch.split(mel[..., :whole], self.stretch, dim=-1)
        logits = torch.stack([self.network.classify(piece.to(self.device)) for piece in pieces]).mean(0)
        return {"accuracy": accuracy(logits, self.valid.labels)}


class AudioVideoObjective(EncoderObjective[AudioVideoEmbedder]):
    """InfoNCE between the pictures and the sound of a clip."""

    def scores(self, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        frames = self.train.semantic_frames
        picked = torch.randperm(frames.shape[1], generator=generator)[:6]
        video = self.call(self.network.encode_video, self.take(frames[:, picked], rows))
        audio = self.call(self.network.encode_audio, self.take(self.train.log_mel, rows))
        return {"loss": info_nce(video, audio, self.network.temperature)}

    def validate(self, generator: torch.Generator) -> Scores:
        """Mean cosine of true pairs and of pairs shifted by one clip."""
        video = self.network.encode_video(self.valid.semantic_frames.to(self.device))
        audio = self.network.encode_audio(self.valid.log_mel.to(self.device))
        true, other = (video * audio).sum(1).mean(), (video * audio.roll(1, 0)).sum(1).mean()
        return {"cosine": float(true), "cosine_shifted": float(other)}


@dataclass(eq=False)
class OffsetObjective(EncoderObjective[OffsetClassifier]):
    """Class of the offset between a window of pictures and a window of sound of the same clip, `window` frames each."""

    window: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train.sync_frames.shape[1] - self.window < max(self.network.lags):
            raise ValueError(
                "judges.sync_window_s plus judges.sync_max_offset_s is longer than audio.duration_s: "
                "no clip holds a window at the largest offset"
            )

    def scores(self, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        logits, target = self._shifted(self.train, rows, generator)
        return {"loss": F.cross_entropy(logits, target)}

    def validate(self, generator: torch.Generator) -> Scores:
        """Accuracy and mean absolute error in video frames, each clip at one random offset."""
        logits, target = self._shifted(self.valid, torch.arange(len(self.valid)), generator)
        lags = torch.tensor(self.network.lags, device=logits.device)
        error = (lags[logits.argmax(1)] - lags[target]).abs().float().mean()
        return {"accuracy": accuracy(logits, target), "error_frames": float(error)}

    def _shifted(self, data: AudioVisual, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        total = data.sync_frames.shape[1]
        per_frame = data.mel_per_frame
        length = round(self.window * per_frame)
        target = torch.randint(len(self.network.lags), (len(rows),), generator=generator)
        frames, mels = [], []
        for row, index in zip(rows.tolist(), target.tolist(), strict=True):
            # Sound that is late by `lag` frames: its window starts `lag` frames earlier in the file.
            lag = self.network.lags[index]
            low, high = max(0, lag), total - self.window + min(0, lag)
            start = int(torch.randint(low, high + 1, (1,), generator=generator))
            heard = min(round((start - lag) * per_frame), data.log_mel.shape[-1] - length)
            frames.append(data.sync_frames[row, start : start + self.window])
            mels.append(data.log_mel[row, :, heard : heard + length])
        video = self.call(self.network.encode_video, torch.stack(frames).to(self.device))
        audio = self.call(self.network.encode_audio, torch.stack(mels).to(self.device), self.window)
        return self.network.compare(video, audio), target.to(self.device)


def judge_objectives(
    panel: MiniPanel,
    train: AudioVisual,
    valid: AudioVisual,
    settings: MiniJudges,
    device: torch.device,
    precision: str = "float32",
) -> dict[str, tuple[Objective, Training]]:
    """Each judge's objective and training settings, by the judge's name in the panel."""
    data = (train, valid, device)
    tagger = TaggerObjective(panel.tagger, *data, precision=precision)
    audio = AudioObjective(panel.audio, *data, panel.stretch, precision=precision)
    audio_video = AudioVideoObjective(panel.audio_video, *data, precision=precision)
    offset = OffsetObjective(panel.offset, *data, panel.window, precision=precision)
    return {
        "tagger": (tagger, settings.train_tagger),
        "audio": (audio, settings.train_audio),
        "audio_video": (audio_video, settings.train_audio_video),
        "offset": (offset, settings.train_sync),
    }
