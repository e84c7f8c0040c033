"""How the backbone learns: cross entropy on masked tokens, nothing else (SpecMaskGIT, Comunità et al. 2024).

Shape letters: n clips, B clips of a step over all processes, b clips of this pass, N tokens a clip, D width, K codes,
P prompt width, t video frames, d feature width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.backbone.network import Backbone
from specmaskfoley.device import autocast
from specmaskfoley.training.batches import Batch, InMemory
from specmaskfoley.training.loop import Scores

_VALIDATION_BATCH = 64


@dataclass(frozen=True)
class TokenClips:
    """Clips in memory.

    n ids, tokens (n, N) int16, audio prompts (n, P); for control sync (n, t, d) and semantic (n, d).
    """

    ids: Sequence[str]
    tokens: Tensor
    prompt: Tensor
    sync: Tensor | None = None
    semantic: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def columns(self) -> Batch:
        """The columns that `backbone.data.token_rows` streams for such clips."""
        found = {"tokens": self.tokens, "audio_prompt": self.prompt, "sync": self.sync, "semantic_mean": self.semantic}
        return {name: values for name, values in found.items() if values is not None}

    def rows(self) -> InMemory:
        """These clips as training rows."""
        return InMemory(self.ids, **{name: values.numpy() for name, values in self.columns().items()})


def random_mask(batch: int, num_tokens: int, generator: torch.Generator) -> Tensor:
    """(batch, num_tokens) bool; the masked share is cos(pi/2 * u), u uniform (MaskGIT), and at least one token."""
    share = torch.cos(math.pi / 2 * torch.rand(batch, generator=generator))
    count = (share * num_tokens).ceil().clamp(min=1)
    order = torch.rand(batch, num_tokens, generator=generator).argsort(1).argsort(1)
    return order < count[:, None]


class Reconstruction(nn.Module):
    """The forward pass that is trained: the columns of b clips, with masked (b, N) and use_prompt (b,) -> (b, N, K)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, batch: Batch) -> Tensor:
        return self.backbone(embed_batch(self.backbone, batch))  # type: ignore[no-any-return]


def embed_batch(backbone: Backbone, batch: Batch) -> Tensor:
    """The masked embeddings of b clips: (b, N, D)."""
    return backbone.embed(batch["tokens"], batch["masked"], batch["audio_prompt"].float(), batch["use_prompt"])


class BackboneObjective:
    """Mask reconstruction with the clip's audio embedding as the mask, dropped at `prompt_dropout`.

    Attributes:
        modules: what learns; network: its forward pass on the columns of a batch.
    """

    criterion = "loss"
    splits = True

    def __init__(
        self,
        backbone: Backbone,
        valid: TokenClips,
        *,
        prompt_dropout: float,
        device: torch.device,
        precision: str = "float32",
        label_smoothing: float = 0.0,
    ) -> None:
        self.backbone, self.valid = backbone, valid
        self.prompt_dropout, self.device, self.precision = prompt_dropout, device, precision
        self.label_smoothing = label_smoothing
        self.modules: nn.Module = backbone
        self.network: nn.Module = Reconstruction(backbone)
        self._forward: Callable[[Batch], Tensor] = self.network  # compiled and spread over processes by `distribute`

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"model": [p for p in self.modules.parameters() if p.requires_grad]}

    def distribute(self, prepare: Callable[..., nn.Module], total: Callable[[Tensor], Tensor]) -> None:
        self._forward = prepare(self.network)

    def draw(self, size: int, step: int, generator: torch.Generator) -> Batch:
        """Masks (B, N), which prompts are kept (B,), and each clip's weight (B,): a step's loss is the mean over all
        its masked tokens, wherever they are computed."""
        num_tokens = self.backbone.positions.shape[0]
        masked = random_mask(size, num_tokens, generator)
        use_prompt = torch.rand(size, generator=generator) >= self.prompt_dropout
        return {"masked": masked, "use_prompt": use_prompt, "weight": torch.full((size,), 1.0 / int(masked.sum()))}

    def loss(self, group: str, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        batch = self._on_device(batch)
        with autocast(self.precision, self.device):
            logits = self._forward(batch)
        share = batch["masked"] * batch["weight"][:, None]
        loss, hits = _cross_entropy(logits, batch["tokens"], self.label_smoothing)
        return (loss * share).sum(), {"loss": (loss.detach() * share).sum(), "accuracy": (hits * share).sum()}

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Nothing changes without a gradient."""

    def validate(self, generator: torch.Generator) -> Scores:
        """Over all masked tokens, with the training's mix of prompts and equal masks at every call: cross entropy,
        share of the most likely codes that are right, and the perplexity of the codes that are predicted (1: always
        the same one, K: all alike)."""
        sums = torch.zeros(3, device=self.device)
        predicted = torch.zeros(self.backbone.head.out_features, device=self.device)
        columns = self.valid.columns()
        for rows in torch.split(torch.arange(len(self.valid)), _VALIDATION_BATCH):
            drawn = self.draw(len(rows), 0, generator)
            batch = self._on_device({**{name: values[rows] for name, values in columns.items()}, **drawn})
            with autocast(self.precision, self.device):
                logits = self.network(batch)
            masked = batch["masked"]
            loss, hits = _cross_entropy(logits, batch["tokens"])
            sums += torch.stack([(loss * masked).sum(), (hits * masked).sum(), masked.sum()])
            predicted += logits[masked].float().softmax(-1).sum(0)
        loss_sum, hit_sum, count = sums.tolist()
        share = (predicted / count).double()
        perplexity = float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))
        return {"loss": loss_sum / count, "accuracy": hit_sum / count, "perplexity": perplexity}

    def _on_device(self, batch: Batch) -> Batch:
        moved = {name: values.to(self.device, non_blocking=True) for name, values in batch.items()}
        return {**moved, "tokens": moved["tokens"].long().flatten(1)}


def _cross_entropy(logits: Tensor, tokens: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """(b, N, K), (b, N) -> cross entropy and whether the most likely code is right, each (b, N)."""
    flat = logits.float().flatten(0, 1)
    loss = F.cross_entropy(flat, tokens.flatten(), reduction="none", label_smoothing=smoothing)
    return loss.view_as(tokens), logits.detach().argmax(-1) == tokens
