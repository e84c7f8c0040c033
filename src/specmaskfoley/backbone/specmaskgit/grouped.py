"""A step's passes in few operations, for GPUs: the backbone and the control branch go through a layer together.

Over so few tokens a GPU spends as long on starting an operation as on doing it. So one normalisation, one product and
one attention serve both networks, and products add to what they are added to. The blocks' results, but for the order
of additions.

Shape letters: G groups (the backbone; the branch, where it has a layer), P passes, B clips, N tokens a clip, D width,
E width of the MLP, M = P * B * N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.backbone.layers import attend
from specmaskfoley.backbone.role import Backbone, ControlLayers

_SPARE = 8
"""Columns behind the MLP's hidden units. Two are constant, so that the product which follows adds biases as well; eight
keep the rows of half precision aligned to 16 bytes."""


class _Layer(NamedTuple):
    """Weights (G, outputs, inputs) and biases (G, 1, outputs).

    down: (G, D, E + spare), the bias in the first spare column, the bias of `zero` in the second of the backbone.
    zero: (D, D) of the branch's residual, None where it has no layer.
    """

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    out_bias: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    zero: Tensor | None


class GroupedPasses:
    """The blocks of a backbone and of its control branch.

    In another type than float32 the networks' weights become views of these, so that memory holds them once. The
    affine part of a norm moves into the linear layer behind it: in nothing else do the norms of two networks differ.
    """

    @torch.no_grad()
    def __init__(self, backbone: Backbone, control: ControlLayers | None, dtype: torch.dtype, heads: int) -> None:
        self.dtype, self.heads = dtype, heads
        branch: list[Any] = list(zip(control.blocks, control.zero_out, strict=True)) if control is not None else []
        alone = [(None, None)] * (len(backbone.blocks) - len(branch))
        self.layers = [
            _layer([block] if copy is None else [block, copy], zero, dtype)
            for block, (copy, zero) in zip(backbone.blocks, branch + alone, strict=True)
        ]

    def __call__(self, embedded: Tensor, offsets: Tensor, with_video: int) -> Tensor:
        """
        Args:
            embedded: (P, B, N, D) tokens of every pass, those without video first.
            offsets: (1 or 2, B, N, D) what is added to them for the backbone and for the branch.
            with_video: number of passes with video.

        Returns:
            (P, B, N, D) of the last block.
        """
        groups = 2 if with_video else 1
        x = embedded.new_empty(groups, *embedded.shape, dtype=self.dtype)
        x = torch.add(embedded, offsets[:groups, None], out=x).flatten(1, 3)
        # The branch computes passes without video as well, for nothing: products of equal sizes go in one operation.
        first = x.shape[1] // len(embedded) * (len(embedded) - with_video)
        units = self.layers[0].up.shape[1]
        hidden = x.new_zeros(*x.shape[:2], units + _SPARE)
        hidden[..., units].fill_(1.0)
        hidden[0, first:, units + 1].fill_(1.0)
        for layer in self.layers:
            groups = min(len(x), len(layer.qkv))
            x, hidden = x[:groups], hidden[:groups]
            mixed = self._attention(layer, x, embedded.shape[2])
            x.baddbmm_(mixed, layer.out[:groups].mT).add_(layer.out_bias[:groups])
            before = _product(F.layer_norm(x, x.shape[-1:]), layer.up, layer.up_bias)
            _gelu(before, hidden[..., :units])
            x.baddbmm_(hidden, layer.down[:groups].mT)
            if groups == 2 and layer.zero is not None:
                x[0, first:].addmm_(x[1, first:], layer.zero.T)
        return x[0].view_as(embedded)

    def _attention(self, layer: _Layer, x: Tensor, num_tokens: int) -> Tensor:
        qkv = _product(F.layer_norm(x, x.shape[-1:]), layer.qkv, layer.qkv_bias)
        q, k, v = qkv.view(-1, num_tokens, 3, self.heads, x.shape[-1] // self.heads).permute(2, 0, 3, 1, 4)
        return attend(q, k, v).transpose(1, 2).reshape(x.shape)


def _gelu(x: Tensor, out: Tensor) -> None:
    """Into a part of a larger tensor."""
    if x.is_cuda:
        torch.ops.aten.gelu.out(x, out=out)
    else:
        out.copy_(F.gelu(x))  # a CPU writes as if `out` were contiguous (torch 2.11)


def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer of every group: (G, M, inputs) -> (G, M, outputs)."""
    if len(x) == 1:
        return F.linear(x[0], weight[0], bias[0, 0])[None]
    return torch.baddbmm(bias, x, weight.mT)


def _layer(blocks: Sequence[Any], zero: nn.Linear | None, dtype: torch.dtype) -> _Layer:
    attentions, mlps = [block.attention for block in blocks], [block.mlp for block in blocks]
    downs = [mlp[2] for mlp in mlps]
    down = torch.stack([F.pad(linear.weight, (0, _SPARE)) for linear in downs])
    units = down.shape[2] - _SPARE
    down[:, :, units] = torch.stack([linear.bias for linear in downs])
    if zero is not None:
        down[0, :, units + 1] = zero.bias
    layer = _Layer(
        *_linear([attention.qkv for attention in attentions], [block.norm1 for block in blocks], dtype),
        *_linear([attention.out for attention in attentions], [], dtype),
        *_linear([mlp[0] for mlp in mlps], [block.norm2 for block in blocks], dtype),
        down=down.to(dtype),
        zero=None if zero is None else zero.weight.to(dtype),
    )
    if dtype != torch.float32:
        for linear, weight in zip(downs, layer.down[:, :, :units], strict=True):
            linear.weight = nn.Parameter(weight, requires_grad=False)
        if zero is not None and layer.zero is not None:
            zero.weight = nn.Parameter(layer.zero, requires_grad=False)
    return layer


def _linear(linears: Sequence[nn.Linear], norms: Sequence[nn.LayerNorm], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights and biases of the layers of the groups, with the affine part of the norms before them."""
    weights: list[Tensor] = [linear.weight for linear in linears]
    biases: list[Tensor] = [linear.bias for linear in linears]
    if norms:
        biases = [bias + weight @ norm.bias for bias, weight, norm in zip(biases, weights, norms, strict=True)]
        weights = [weight * norm.weight for weight, norm in zip(weights, norms, strict=True)]
    weight, bias = torch.stack(weights).to(dtype), torch.stack(biases)[:, None].to(dtype)
    if dtype != torch.float32:
        for index, linear in enumerate(linears):
            linear.weight = nn.Parameter(weight[index], requires_grad=False)
            linear.bias = nn.Parameter(bias[index, 0], requires_grad=False)
        for norm in norms:
            nn.init.ones_(norm.weight)
            nn.init.zeros_(norm.bias)
    return weight, bias
