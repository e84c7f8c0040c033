"""SpecMaskGIT: a masked generative Transformer over spectrogram tokens (Comunità et al. 2024).

Shape letters: B batch, F token rows, T token columns, N = F * T, D width, K codes, P prompt width.
Tokens are flattened row-major, frequency slowest, as SpecVQGAN gives them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.backbone.layers import Block
from specmaskfoley.backbone.role import Backbone, ControlLayers, Inputs
from specmaskfoley.backbone.specmaskgit.decoding import MaskGITDecoding, QuickMaskGITDecoding
from specmaskfoley.backbone.specmaskgit.grouped import GroupedPasses
from specmaskfoley.settings import Decoding, TokenGrid
from specmaskfoley.settings import SpecMaskGIT as Settings


class SpecMaskGIT(Backbone):
    """Predicts the masked tokens from the visible ones.

    The mask embedding is the condition: a masked position holds the projected CLAP embedding of the
    prompt, or one learnt unconditional mask.
    """

    levels = 1

    def __init__(self, settings: Settings, *, grid: TokenGrid, codes: int, prompt_width: int) -> None:
        super().__init__()
        self.grid, self.codes, self.sequence_rows = grid, codes, grid.rows
        self.width, self.heads = settings.width, settings.heads
        width = settings.width
        self.tokens = nn.Embedding(codes, width)
        self.unconditional_mask = nn.Parameter(torch.empty(width))
        self.prompt = nn.Linear(prompt_width, width)
        self.positions = nn.Parameter(torch.empty(grid.size, width))
        self.blocks = nn.ModuleList(Block(width, settings.heads, settings.mlp_width) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(width)
        self.to_codes = nn.Linear(width, codes)
        self.apply(_initialise)
        # Embeddings near the scale that the first LayerNorm makes of them anyway: with the usual 0.02, the mini
        # backbone needed about twice the steps to the same validation loss (measured).
        for embedding in (self.tokens.weight, self.unconditional_mask, self.positions, self.prompt.weight):
            nn.init.normal_(embedding, std=0.2)

    def embed(
        self,
        tokens: Tensor,
        masked: Tensor,
        prompt: Tensor,
        use_prompt: Tensor,
        *,
        level: int = 0,
        at: Tensor | None = None,
    ) -> Inputs:
        """See `Backbone.embed`; a prompt is (P,), a CLAP-role embedding."""
        mask = self.prompt(prompt)
        if at is None:
            mask = torch.where(use_prompt[:, None], mask, self.unconditional_mask)[:, None]
        else:
            taken = mask.gather(1, at.clamp(min=0)[..., None].expand(-1, -1, self.width))
            mask = torch.where((use_prompt[:, None] & (at >= 0))[..., None], taken, self.unconditional_mask)
        visible = self.tokens(torch.where(masked, 0, tokens))
        x = torch.where(masked[..., None], mask, visible) + self.positions
        return Inputs(x, [None] * len(self.blocks), level)

    def head(self, level: int) -> nn.Linear:
        return self.to_codes

    def random_mask(self, size: int, level: int, generator: torch.Generator) -> Tensor:
        """The masked share is cos(pi/2 * u), u uniform (MaskGIT)."""
        share = torch.cos(math.pi / 2 * torch.rand(size, generator=generator))
        count = (share * self.grid.size).ceil().clamp(min=1)
        order = torch.rand(size, self.grid.size, generator=generator).argsort(1).argsort(1)
        return order < count[:, None]

    def of_level(self, values: Tensor, level: int) -> Tensor:
        return values

    def plain_decoding(
        self, how: Decoding, seeds: Sequence[int], known: tuple[Tensor, Tensor] | None
    ) -> MaskGITDecoding:
        return MaskGITDecoding(how, seeds, known, self.grid.size, self.codes, self.positions.device)

    def fast_decoding(
        self, how: Decoding, seeds: Sequence[int], known: tuple[Tensor, Tensor] | None
    ) -> QuickMaskGITDecoding:
        return QuickMaskGITDecoding(how, seeds, known, self.grid.size, self.codes, self.positions.device)

    def hear(
        self,
        prompt: Tensor,
        at: Tensor | None,
        negative: Tensor | None,
        networks: Sequence[nn.ModuleList],
    ) -> tuple[Tensor, ...]:
        """Table (K + 1 + B * Q, D) of the codes, of the unconditional mask and of the clips' prompts, then B more of
        what is not to be heard; and the rows of it, (3, B, 1 or N), that masked tokens take with each kind of words."""
        batch, none = len(prompt), self.codes
        prompts = prompt[:, None] if at is None else prompt
        rows = none + 1 + torch.arange(batch * prompts.shape[1], device=prompt.device).view(batch, -1)
        table = [self.tokens.weight, self.unconditional_mask[None], self.prompt(prompts.flatten(0, 1))]
        prompted = rows if at is None else rows.gather(1, at.clamp(min=0)).masked_fill(at < 0, none)
        unwanted = torch.full_like(prompted, none)
        if negative is not None:
            table.append(self.prompt(negative))
            last = none + 1 + rows.numel() + torch.arange(batch, device=prompt.device)
            unwanted = last[:, None].expand_as(prompted)
        return torch.cat(table), torch.stack([torch.full_like(prompted, none), prompted, unwanted])

    def embed_heard(self, heard: Sequence[Tensor], tokens: Tensor, words: Sequence[int]) -> Tensor:
        table, masks = heard
        rows = torch.where(tokens == self.codes, torch.cat([masks[one, None] for one in words]), tokens)
        return F.embedding(rows, table)

    def contexts(
        self, heard: Sequence[Tensor], words: Sequence[int], level: int, network: int, dtype: torch.dtype
    ) -> Sequence[Any]:
        return [None] * len(self.blocks)

    def grouped(self, control: ControlLayers | None, dtype: torch.dtype) -> GroupedPasses:
        return GroupedPasses(self, control, dtype, self.heads)


def _initialise(module: nn.Module) -> None:
    """Small init (Nguyen & Salazar 2019): std sqrt(2 / 5D), which at D=768 is the usual 0.02."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=(2 / (5 * module.in_features)) ** 0.5)
        nn.init.zeros_(module.bias)
