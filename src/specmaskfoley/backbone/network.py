"""SpecMaskGIT: a masked generative Transformer over spectrogram tokens (Comunità et al. 2024).

Shape letters: B batch, F token rows, T token columns, N = F * T, D width, K codes, P prompt width.
Tokens are flattened row-major, frequency slowest, as SpecVQGAN gives them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from specmaskfoley.backbone.layers import Block
from specmaskfoley.settings import Backbone as BackboneSettings


class Backbone(nn.Module):
    """Predicts the masked tokens from the visible ones.

    The mask embedding is the condition: a masked position holds the projected CLAP embedding of the
    prompt, or one learnt unconditional mask.
    """

    def __init__(self, settings: BackboneSettings, *, codebook_size: int, num_tokens: int, prompt_width: int) -> None:
        super().__init__()
        self.settings = settings
        width = settings.width
        self.tokens = nn.Embedding(codebook_size, width)
        self.unconditional_mask = nn.Parameter(torch.empty(width))
        self.prompt = nn.Linear(prompt_width, width)
        self.positions = nn.Parameter(torch.empty(num_tokens, width))
        self.blocks = nn.ModuleList(Block(width, settings.heads, settings.mlp_width) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, codebook_size)
        self.apply(_initialise)
        # Embeddings near the scale that the first LayerNorm makes of them anyway: with the usual 0.02, the mini
        # backbone needed about twice the steps to the same validation loss (measured).
        for embedding in (self.tokens.weight, self.unconditional_mask, self.positions, self.prompt.weight):
            nn.init.normal_(embedding, std=0.2)

    def embed(self, tokens: Tensor, masked: Tensor, prompt: Tensor, use_prompt: Tensor) -> Tensor:
        """Masked token embeddings, with positions: what enters block 1 and the control branch.

        Args:
            tokens: (B, N) int64; values at masked positions are ignored.
            masked: (B, N) bool.
            prompt: (B, P) CLAP-role embedding.
            use_prompt: (B,) bool; False puts the unconditional mask in its place.

        Returns:
            (B, N, D)
        """
        mask = torch.where(use_prompt[:, None], self.prompt(prompt), self.unconditional_mask)
        visible = self.tokens(torch.where(masked, 0, tokens))
        return torch.where(masked[..., None], mask[:, None], visible) + self.positions

    def forward(self, x: Tensor, residuals: Sequence[Tensor] = ()) -> Tensor:
        """Logits over the codes.

        Args:
            x: (B, N, D) from `embed`.
            residuals: added after block 1, 2, ..., each (b, N, D) for the last b <= B rows of the batch,
                so that guidance rows without control need no zeros.

        Returns:
            (B, N, K)
        """
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index < len(residuals):
                residual = residuals[index]
                plain = x.shape[0] - residual.shape[0]
                x = x + residual if plain == 0 else torch.cat([x[:plain], x[plain:] + residual])
        return self.head(self.norm(x))  # type: ignore[no-any-return]


def _initialise(module: nn.Module) -> None:
    """Small init (Nguyen & Salazar 2019): std sqrt(2 / 5D), which at D=768 is the usual 0.02."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=(2 / (5 * module.in_features)) ** 0.5)
        nn.init.zeros_(module.bias)
