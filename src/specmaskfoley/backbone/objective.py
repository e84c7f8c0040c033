"""How a backbone learns: cross entropy on masked tokens, nothing else (SpecMaskGIT, Comunità et al. 2024).

Shape letters: n clips, B clips of a step over all processes, b clips of this pass, N tokens a clip, l of them decided
by a level, K codes, *P shape of a prompt, t video frames, d feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.backbone.role import Backbone, Inputs
from specmaskfoley.device import autocast
from specmaskfoley.training.batches import Batch, InMemory
from specmaskfoley.training.loop import Scores

_VALIDATION_BATCH = 64


@dataclass(frozen=True)
class TokenClips:
    """Clips in memory.

    n ids, tokens (n, N) int16, prompts (n, *P); for control sync (n, t, d) and semantic (n, d).
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
        found = {"tokens": self.tokens, "prompt": self.prompt, "sync": self.sync, "semantic_mean": self.semantic}
        return {name: values for name, values in found.items() if values is not None}

    def rows(self) -> InMemory:
        """These clips as training rows."""
        return InMemory(self.ids, **{name: values.numpy() for name, values in self.columns().items()})


class Reconstruction(nn.Module):
    """The forward pass that is trained: the columns of b clips, with masked (b, N) and use_prompt (b,) -> (b, l, K)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, batch: Batch, level: int) -> Tensor:
        return self.backbone(embed_batch(self.backbone, batch, level))  # type: ignore[no-any-return]


def embed_batch(backbone: Backbone, batch: Batch, level: int) -> Inputs:
    """What enters the blocks of b masked clips."""
    return backbone.embed(batch["tokens"], batch["masked"], batch["prompt"].float(), batch["use_prompt"], level=level)


class BackboneObjective:
    """Mask reconstruction with the clip's prompt as condition, dropped at `prompt_dropout`; a step trains one level.

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
        self._forward: Callable[[Batch, int], Tensor] = (
            self.network
        )  # compiled and spread over processes by `distribute`

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"model": [p for p in self.modules.parameters() if p.requires_grad]}

    def distribute(self, prepare: Callable[..., nn.Module], total: Callable[[Tensor], Tensor]) -> None:
        self._forward = prepare(self.network)

    def draw(self, size: int, step: int, generator: torch.Generator) -> Batch:
        """The level (B,), the same for all; masks (B, N), which prompts are kept (B,), and each clip's weight (B,): a
        step's loss is the mean over all masked tokens of its level, wherever they are computed."""
        levels = self.backbone.levels
        level = int(torch.randint(levels, (), generator=generator)) if levels > 1 else 0
        return self._draw(size, level, generator)

    def _draw(self, size: int, level: int, generator: torch.Generator) -> Batch:
        masked = self.backbone.random_mask(size, level, generator)
        use_prompt = torch.rand(size, generator=generator) >= self.prompt_dropout
        count = int(self.backbone.of_level(masked, level).sum())
        weight = torch.full((size,), 1.0 / count)
        return {"masked": masked, "use_prompt": use_prompt, "weight": weight, "level": torch.full((size,), level)}

    def loss(self, group: str, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        level = int(batch["level"][0])  # on the CPU, as all that is drawn: no wait for the device
        batch = self._on_device(batch)
        with autocast(self.precision, self.device):
            logits = self._forward(batch, level)
        share = self.backbone.of_level(batch["masked"], level) * batch["weight"][:, None]
        tokens = self.backbone.of_level(batch["tokens"], level)
        loss, hits = _cross_entropy(logits, tokens, self.label_smoothing)
        seen = {"loss": (loss.detach() * share).sum(), "accuracy": (hits * share).sum()}
        return (loss * share).sum(), seen

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Nothing changes without a gradient."""

    def validate(self, generator: torch.Generator) -> Scores:
        """With the training's mix of prompts and equal masks at every call: cross entropy over the masked tokens, share
        of the most likely codes that are right, and the perplexity of the codes that are predicted (1: always the same
        one, K: all alike). Of several levels the means, and the cross entropy of each."""
        levels = range(self.backbone.levels)
        found = [self._validate(level, generator) for level in levels]
        scores = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
        if len(found) > 1:
            scores |= {f"loss_level{level}": found[level]["loss"] for level in levels}
        return scores

    def _validate(self, level: int, generator: torch.Generator) -> Scores:
        of_level = self.backbone.of_level
        sums = torch.zeros(3, device=self.device)
        predicted = torch.zeros(self.backbone.codes, device=self.device)
        columns = self.valid.columns()
        for rows in torch.split(torch.arange(len(self.valid)), _VALIDATION_BATCH):
            drawn = self._draw(len(rows), level, generator)
            batch = self._on_device({**{name: values[rows] for name, values in columns.items()}, **drawn})
            with autocast(self.precision, self.device):
                logits = self.network(batch, level)
            masked = of_level(batch["masked"], level)
            loss, hits = _cross_entropy(logits, of_level(batch["tokens"], level))
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
    """(b, l, K), (b, l) -> cross entropy and whether the most likely code is right, each (b, l)."""
    flat = logits.float().flatten(0, 1)
    loss = F.cross_entropy(flat, tokens.flatten(), reduction="none", label_smoothing=smoothing)
    return loss.view_as(tokens), logits.detach().argmax(-1) == tokens
