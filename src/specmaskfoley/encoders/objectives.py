"""How the mini encoders learn, on the training split only.

Shape letters: n items, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.device import autocast
from specmaskfoley.encoders.data import AudioVisual
from specmaskfoley.encoders.mini import PromptEncoder, SemanticEncoder, SyncEncoder
from specmaskfoley.encoders.trained import ROLES, build_encoder
from specmaskfoley.settings import Params, Training
from specmaskfoley.training.batches import Batch
from specmaskfoley.training.loop import Objective, Scores

Network = TypeVar("Network", bound=nn.Module)


@dataclass(eq=False)
class EncoderObjective(Generic[Network]):
    """What the objectives of the mini encoders and judges share: one network, one optimizer group, nothing to draw
    ahead, nothing to do after a step.

    Most losses compare the clips of a batch with each other, so a batch is never split.
    """

    network: Network
    train: AudioVisual
    valid: AudioVisual
    device: torch.device
    _: KW_ONLY
    precision: str = "float32"
    criterion: str | None = field(default=None, init=False)
    splits: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.modules: nn.Module = self.network

    def scores(self, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The `loss` of rows of the training split, and what else to log."""
        raise NotImplementedError

    def validate(self, generator: torch.Generator) -> Scores:
        """See `training.loop.Objective`."""
        raise NotImplementedError

    def loss(self, group: str, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        scores = self.scores(batch["row"], generator)
        return scores["loss"], {name: value.detach() for name, value in scores.items()}

    def call(self, network: Callable[..., Tensor], *inputs: Tensor | int) -> Tensor:
        """Run a network in the training precision; losses are then computed in float32."""
        with autocast(self.precision, self.device):
            return network(*inputs).float()

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"model": list(self.modules.parameters())}

    def distribute(self, prepare: Callable[..., nn.Module], total: Callable[[Tensor], Tensor]) -> None:
        """One process trains it, not compiled."""

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

    def scores(self, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        loss, accuracy = self._contrast(self.train, rows, generator)
        return {"loss": loss, "accuracy": accuracy}

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
        seen = self.call(self.network.of_frames, self.take(frames[:, start : start + self.window], rows))
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

    def scores(self, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        frames = self.train.semantic_frames
        picked = torch.randperm(frames.shape[1], generator=generator)[:4]
        seen = self.call(self.network, self.take(frames[:, picked], rows))
        labels = self.take(self.train.labels, rows).repeat_interleave(len(picked))
        texts = self.network.encode_text(self.train.texts)
        return {"loss": labelled_nce(seen.flatten(0, 1), labels, texts, self.network.temperature)}

    def validate(self, generator: torch.Generator) -> Scores:
        seen = self.network(self.valid.semantic_frames.to(self.device)).mean(1)
        texts = self.network.encode_text(self.valid.texts)
        return {"accuracy": accuracy(seen @ texts.T, self.valid.labels)}


class PromptObjective(EncoderObjective[PromptEncoder]):
    """Sounds against the texts of all labels, and against each other's second halves.

    The second term keeps what a label does not say (pitch, loudness, how much happens) in the audio embedding.
    """

    def scores(self, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        mel = self.take(self.train.log_mel, rows)
        half = mel.shape[-1] // 2
        encode = self.network.encode_audio
        first, second = self.call(encode, mel[..., :half]), self.call(encode, mel[..., half:])
        labels = self.take(self.train.labels, rows)
        texts = self.network.encode_text(self.train.texts)
        scale = self.network.temperature
        whole = self.call(encode, mel)
        to_text = labelled_nce(torch.cat([whole, first]), labels.repeat(2), texts, scale)
        return {"loss": to_text + 0.1 * info_nce(first, second, scale)}

    def validate(self, generator: torch.Generator) -> Scores:
        heard = self.network.encode_audio(self.valid.log_mel.to(self.device))
        texts = self.network.encode_text(self.valid.texts)
        return {"accuracy": accuracy(heard @ texts.T, self.valid.labels)}


OBJECTIVES = {"sync": SyncObjective, "semantic": SemanticObjective, "prompt": PromptObjective}


def encoder_objectives(
    params: Params, train: AudioVisual, valid: AudioVisual, device: torch.device
) -> dict[str, tuple[Objective, Training]]:
    """Objective and training settings of each role whose encoder is trained here, by the role's name."""
    found: dict[str, tuple[Objective, Training]] = {}
    for role, objective in OBJECTIVES.items():
        training: Training | None = getattr(params.encoders, f"train_{role}")
        if training is not None:
            encoder: Any = build_encoder(ROLES[role], params).to(device)
            found[role] = objective(encoder, train, valid, device, precision=params.run.precision), training
    return found


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of rows of (n, classes) whose best class is the label."""
    return float((scores.argmax(1).cpu() == labels.cpu()).float().mean())


def info_nce(first: Tensor, second: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of (n, D) pairs: row i belongs to row i."""
    logits = first @ second.T * log_scale.clamp(max=4.6).exp()
    target = torch.arange(len(first), device=first.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def labelled_nce(items: Tensor, labels: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """Cross entropy of items (n, D) against the embeddings (labels, D) of every label's text."""
    return F.cross_entropy(items @ texts.T * log_scale.clamp(max=4.6).exp(), labels)
