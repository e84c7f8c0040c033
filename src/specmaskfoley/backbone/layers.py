"""Transformer parts shared by the backbone and its control branch.

Shape letters: B batch, N sequence, D width, H heads, m positions of the sequence.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Bidirectional multi-head attention with a fused query/key/value projection: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """With `at`, (B, m) int64, the results at these positions alone: (B, m, D)."""
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if at is not None:
            q = q.gather(2, at[:, None, :, None].expand(-1, self.heads, -1, q.shape[-1]))
        return self.out(attend(q, k, v).transpose(1, 2).reshape(b, -1, d))  # type: ignore[no-any-return]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention: (B, H, m, d), (B, H, N, d), (B, H, N, d) -> (B, H, m, d)."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # On sequences this short, plain products take half the time of the fused kernel (docs/training.md).
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v  # type: ignore[no-any-return]
    return F.scaled_dot_product_attention(q, k, v)


class Block(nn.Module):
    """Pre-norm Transformer block; 7,087,872 parameters at D=768, MLP 3072."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.GELU(), nn.Linear(mlp_width, width))

    def forward(self, x: Tensor, context: None = None, at: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D), or (B, m, D) with `at`, as in the attention; there is no context."""
        mixed = self.attention(self.norm1(x), at)
        x = (x if at is None else take(x, at)) + mixed
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


def take(x: Tensor, at: Tensor) -> Tensor:
    """Positions of a sequence: (B, N, D), (B, m) int64 -> (B, m, D)."""
    return x.gather(1, at[..., None].expand(-1, -1, x.shape[-1]))


def zero_linear(width: int) -> nn.Linear:
    """A linear layer that outputs zero until training moves it (ControlNet, Zhang et al. 2023)."""
    linear = nn.Linear(width, width)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
