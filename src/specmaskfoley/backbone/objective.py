"""How the backbone and its control branch learn: cross entropy on masked tokens, nothing else.

Shape letters: n clips, B clips of a step over all processes, b those at hand, N tokens a clip, K codes, P prompt width,
t video frames, d feature width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.backbone.network import Backbone
from specmaskfoley.control.network import ControlBranch
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
        """What `loading.token_rows` streams of such clips."""
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
    """The whole forward pass, logits of the masked clips of a batch; the network that is frozen is no part of it."""

    def __init__(self, backbone: Backbone, control: ControlBranch | None) -> None:
        super().__init__()
        self.trained = backbone if control is None else control
        self._backbone = (backbone,)  # a tuple hides it from parameters()

    def forward(self, batch: Batch) -> Tensor:
        """Columns of b clips, with masked (b, N) and use_prompt (b,) -> (b, N, K)."""
        backbone = self._backbone[0]
        x = backbone.embed(batch["tokens"], batch["masked"], batch["audio_prompt"].float(), batch["use_prompt"])
        if isinstance(self.trained, Backbone):
            return backbone(x)  # type: ignore[no-any-return]
        aligned = self.trained.align(batch["sync"].float(), batch["semantic_mean"].float())
        return backbone(x, self.trained(x, aligned))  # type: ignore[no-any-return]


class BackboneObjective:
    """Mask reconstruction with the clip's audio embedding as the mask, dropped at `prompt_dropout`."""

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
        control: ControlBranch | None = None,
    ) -> None:
        self.backbone, self.valid, self.control = backbone, valid, control
        self.prompt_dropout, self.device, self.precision = prompt_dropout, device, precision
        self.modules: nn.Module = backbone if control is None else control
        self.network = Reconstruction(backbone, control)
        self._forward: Callable[[Batch], Tensor] = self.network

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
        loss, hits = _compare(logits, batch["tokens"])
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
            loss, hits = _compare(logits, batch["tokens"])
            sums += torch.stack([(loss * masked).sum(), (hits * masked).sum(), masked.sum()])
            predicted += logits[masked].float().softmax(-1).sum(0)
        loss_sum, hit_sum, count = sums.tolist()
        share = (predicted / count).double()
        perplexity = float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))
        return {"loss": loss_sum / count, "accuracy": hit_sum / count, "perplexity": perplexity}

    def _on_device(self, batch: Batch) -> Batch:
        moved = {name: values.to(self.device, non_blocking=True) for name, values in batch.items()}
        return {**moved, "tokens": moved["tokens"].long().flatten(1)}


def _compare(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """(b, N, K), (b, N) -> cross entropy and whether the most likely code is right, each (b, N)."""
    loss = F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none")
    return loss.view_as(tokens), logits.detach().argmax(-1) == tokens
