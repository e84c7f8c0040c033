"""How the judges learn: on the training split, from seeds of their own, apart from the generator's encoders.

Shape letters: n clips, t video frames, M mel bands, L mel frames.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from specmaskfoley.encoders.contrast import info_nce
from specmaskfoley.encoders.objectives import AudioVisual, EncoderObjective, accuracy
from specmaskfoley.judges.mini import AudioEmbedder, AudioVideoEmbedder, OffsetClassifier, Tagger
from specmaskfoley.judges.mini_panel import MiniPanel
from specmaskfoley.settings import MiniJudges, Training
from specmaskfoley.training.batches import Batch
from specmaskfoley.training.loop import Objective, Scores

JUDGES = ("tagger", "audio", "audio_video", "offset")


class TaggerObjective(EncoderObjective[Tagger]):
    """Class of a clip from its sound."""

    def loss(self, group: str, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.call(self.network.classify, self.take(self.train.log_mel, batch["row"]))
        loss = F.cross_entropy(logits, self.take(self.train.labels, batch["row"]))
        return loss, {"loss": loss.detach()}

    def validate(self, generator: torch.Generator) -> Scores:
        logits, _ = self.network(self.valid.log_mel.to(self.device))
        return {"accuracy": accuracy(logits, self.valid.labels)}


class AudioObjective(EncoderObjective[AudioEmbedder]):
    """Class of a random stretch of sound."""

    def __init__(
        self,
        judge: AudioEmbedder,
        train: AudioVisual,
        valid: AudioVisual,
        device: torch.device,
        stretch: int,
        precision: str = "float32",
    ) -> None:
        super().__init__(judge, train, valid, device, precision)
        self.stretch = stretch

    def loss(self, group: str, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        mel = self.train.log_mel
        start = int(torch.randint(mel.shape[-1] - self.stretch + 1, (1,), generator=generator))
        logits = self.call(self.network.classify, self.take(mel[..., start : start + self.stretch], batch["row"]))
        loss = F.cross_entropy(logits, self.take(self.train.labels, batch["row"]))
        return loss, {"loss": loss.detach()}

    def validate(self, generator: torch.Generator) -> Scores:
        mel = self.valid.log_mel
        whole = mel.shape[-1] // self.stretch * self.stretch
        pieces = torch.split(mel[..., :whole], self.stretch, dim=-1)
        logits = torch.stack([self.network.classify(piece.to(self.device)) for piece in pieces]).mean(0)
        return {"accuracy": accuracy(logits, self.valid.labels)}


class AudioVideoObjective(EncoderObjective[AudioVideoEmbedder]):
    """InfoNCE between the pictures and the sound of a clip."""

    def loss(self, group: str, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        frames = self.train.semantic_frames
        picked = torch.randperm(frames.shape[1], generator=generator)[:6]
        video = self.call(self.network.encode_video, self.take(frames[:, picked], batch["row"]))
        audio = self.call(self.network.encode_audio, self.take(self.train.log_mel, batch["row"]))
        loss = info_nce(video, audio, self.network.temperature)
        return loss, {"loss": loss.detach()}

    def validate(self, generator: torch.Generator) -> Scores:
        """Mean cosine of true pairs and of pairs shifted by one clip."""
        video = self.network.encode_video(self.valid.semantic_frames.to(self.device))
        audio = self.network.encode_audio(self.valid.log_mel.to(self.device))
        true, other = (video * audio).sum(1).mean(), (video * audio.roll(1, 0)).sum(1).mean()
        return {"cosine": float(true), "cosine_shifted": float(other)}


class OffsetObjective(EncoderObjective[OffsetClassifier]):
    """Class of the offset between a window of pictures and a window of sound of the same clip."""

    def __init__(
        self,
        judge: OffsetClassifier,
        train: AudioVisual,
        valid: AudioVisual,
        device: torch.device,
        window: int,
        precision: str = "float32",
    ) -> None:
        """
        Args:
            window: frames of picture and of sound that are compared.
        """
        super().__init__(judge, train, valid, device, precision)
        self.window = window
        if train.sync_frames.shape[1] - window < max(judge.lags):
            raise ValueError(
                "judges.sync_window_s plus judges.sync_max_offset_s is longer than audio.duration_s: "
                "no clip holds a window at the largest offset"
            )

    def loss(self, group: str, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        logits, target = self._shifted(self.train, batch["row"], generator)
        loss = F.cross_entropy(logits, target)
        return loss, {"loss": loss.detach()}

    def validate(self, generator: torch.Generator) -> Scores:
        """Accuracy and mean absolute error in seconds of video frames, each clip at one random offset."""
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
    return {
        "tagger": (TaggerObjective(panel.tagger, train, valid, device, precision), settings.train_tagger),
        "audio": (AudioObjective(panel.audio, train, valid, device, panel.stretch, precision), settings.train_audio),
        "audio_video": (
            AudioVideoObjective(panel.audio_video, train, valid, device, precision),
            settings.train_audio_video,
        ),
        "offset": (OffsetObjective(panel.offset, train, valid, device, panel.window, precision), settings.train_sync),
    }
