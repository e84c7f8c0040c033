"""How the mini encoders learn, on the training split only.

Shape letters: n clips, t video frames, S frame side, M mel bands, L mel frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.device import autocast
from specmaskfoley.encoders import build_prompt, build_semantic, build_sync
from specmaskfoley.encoders.contrast import info_nce, labelled_nce
from specmaskfoley.encoders.mini import PromptEncoder, SemanticEncoder, SyncEncoder
from specmaskfoley.settings import MiniPromptEncoder, MiniVideoEncoder, Params, Training
from specmaskfoley.training.batches import Batch
from specmaskfoley.training.loop import Objective, Scores

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class AudioVisual:
    """Clips of one split in memory: n ids.

    sync_frames: (n, t, S, S, 3) uint8, semantic_frames likewise at their own rate, log_mel: (n, M, L),
    labels: (n,) index into `texts`; mel_per_frame: mel frames for one sync frame.
    """

    ids: Sequence[str]
    sync_frames: Tensor
    semantic_frames: Tensor
    log_mel: Tensor
    labels: Tensor
    texts: tuple[str, ...]
    mel_per_frame: float

    def __len__(self) -> int:
        return len(self.log_mel)


class EncoderObjective(Generic[Network]):
    """What the objectives below share: one network, one optimizer group, nothing to do after a step, nothing to draw
    ahead; a loss that compares the clips of a batch with each other, which no part of it has.
    """

    criterion: str | None = None
    splits = False

    def __init__(
        self,
        network: Network,
        train: AudioVisual,
        valid: AudioVisual,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        self.network = network
        self.modules: nn.Module = network
        self.train, self.valid, self.device, self.precision = train, valid, device, precision

    def call(self, network: Callable[..., Tensor], *inputs: Tensor | int) -> Tensor:
        """Run a network in the training precision; losses are then computed in float32."""
        with autocast(self.precision, self.device):
            return network(*inputs).float()

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"model": list(self.modules.parameters())}

    def distribute(self, prepare: Callable[..., nn.Module], total: Callable[[Tensor], Tensor]) -> None:
        """One process trains it, as it is."""

    def draw(self, size: int, step: int, generator: torch.Generator) -> Batch:
        return {}

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Nothing changes without a gradient."""

    def take(self, data: Tensor, rows: Tensor) -> Tensor:
        return data[rows].to(self.device)


class SyncObjective(EncoderObjective[SyncEncoder]):
    """InfoNCE between a frame and the sound at the same time, against all other times and clips of the batch."""

    @property
    def window(self) -> int:
        """Frames a step: half of a clip. The loss's cost grows with its square, the variety of a batch does not."""
        return self.train.sync_frames.shape[1] // 2

    def loss(self, group: str, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        loss, accuracy = self._contrast(self.train, batch["row"], generator)
        return loss, {"loss": loss.detach(), "accuracy": accuracy}

    def validate(self, generator: torch.Generator) -> Scores:
        rows = torch.arange(min(len(self.valid), 16))
        loss, accuracy = self._contrast(self.valid, rows, generator)
        return {"loss": loss.item(), "accuracy": float(accuracy)}

    def _contrast(self, data: AudioVisual, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        frames, mel = data.sync_frames, data.log_mel
        mel_length = round(self.window * data.mel_per_frame)
        last = min(frames.shape[1] - self.window, int((mel.shape[-1] - mel_length) / data.mel_per_frame))
        start = int(torch.randint(last + 1, (1,), generator=generator))
        mel_start = round(start * data.mel_per_frame)
        seen = self.call(self.network, self.take(frames[:, start : start + self.window], rows))
        sound = self.take(mel[..., mel_start : mel_start + mel_length], rows)
        heard = self.call(self.network.encode_audio, sound, self.window)
        v = F.normalize(seen, dim=-1).flatten(0, 1)
        a = F.normalize(heard, dim=-1).flatten(0, 1)
        loss = info_nce(v, a, self.network.temperature)
        # Exact hits are rare among near-identical neighbours: within two frames of the same clip counts.
        with torch.no_grad():
            best = (v @ a.T).argmax(1)
            near = (best - torch.arange(len(v), device=v.device)).abs() <= 2
        return loss, near.float().mean()


class SemanticObjective(EncoderObjective[SemanticEncoder]):
    """Frames against the texts of all labels."""

    def loss(self, group: str, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        frames = self.train.semantic_frames
        picked = torch.randperm(frames.shape[1], generator=generator)[:4]
        seen = self.call(self.network, self.take(frames[:, picked], batch["row"]))
        labels = self.take(self.train.labels, batch["row"]).repeat_interleave(len(picked))
        texts = self.network.encode_text(self.train.texts)
        loss = labelled_nce(seen.flatten(0, 1), labels, texts, self.network.temperature)
        return loss, {"loss": loss.detach()}

    def validate(self, generator: torch.Generator) -> Scores:
        seen = self.network(self.valid.semantic_frames.to(self.device)).mean(1)
        texts = self.network.encode_text(self.valid.texts)
        return {"accuracy": accuracy(seen @ texts.T, self.valid.labels)}


class PromptObjective(EncoderObjective[PromptEncoder]):
    """Sounds against the texts of all labels, and against each other's second halves.

    The second term keeps what a label does not say (pitch, loudness, how much happens) in the audio embedding.
    """

    def loss(self, group: str, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        mel = self.take(self.train.log_mel, batch["row"])
        half = mel.shape[-1] // 2
        encode = self.network.encode_audio
        first, second = self.call(encode, mel[..., :half]), self.call(encode, mel[..., half:])
        labels = self.take(self.train.labels, batch["row"])
        texts = self.network.encode_text(self.train.texts)
        scale = self.network.temperature
        whole = self.call(encode, mel)
        to_text = labelled_nce(torch.cat([whole, first]), labels.repeat(2), texts, scale)
        loss = to_text + 0.1 * info_nce(first, second, scale)
        return loss, {"loss": loss.detach()}

    def validate(self, generator: torch.Generator) -> Scores:
        heard = self.network.encode_audio(self.valid.log_mel.to(self.device))
        texts = self.network.encode_text(self.valid.texts)
        return {"accuracy": accuracy(heard @ texts.T, self.valid.labels)}


def encoder_objectives(
    params: Params, train: AudioVisual, valid: AudioVisual, device: torch.device
) -> dict[str, tuple[Objective, Training]]:
    """Objective and training settings of each role whose encoder is trained here, by the role's name."""
    encoders, precision = params.encoders, params.run.precision
    found: dict[str, tuple[Objective, Training]] = {}
    if isinstance(encoders.sync, MiniVideoEncoder) and encoders.train_sync:
        sync = build_sync(encoders.sync, params).to(device)
        found["sync"] = SyncObjective(sync, train, valid, device, precision), encoders.train_sync
    if isinstance(encoders.semantic, MiniVideoEncoder) and encoders.train_semantic:
        semantic = build_semantic(encoders.semantic, params).to(device)
        found["semantic"] = SemanticObjective(semantic, train, valid, device, precision), encoders.train_semantic
    if isinstance(encoders.prompt, MiniPromptEncoder) and encoders.train_prompt:
        prompt = build_prompt(encoders.prompt, params).to(device)
        found["prompt"] = PromptObjective(prompt, train, valid, device, precision), encoders.train_prompt
    return found


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of rows of (n, classes) whose best class is the label."""
    return float((scores.argmax(1).cpu() == labels.cpu()).float().mean())
