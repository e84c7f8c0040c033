"""Linear layers as processors with bfloat16 instructions multiply them, for sampling alone.

Shape letters: D width in, E width out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specmaskfoley.device import fast_bfloat16


def supports_packing(dtype: torch.dtype, device: torch.device) -> bool:
    return device.type == "cpu" and dtype == torch.bfloat16 and fast_bfloat16(device)


class PackedLinear(nn.Module):
    """A bfloat16 linear layer whose weights are kept in the order in which the processor multiplies them.

    nn.Linear brings them into that order at every call, a tenth of the sampler's time (docs/sampling.md).

    Args:
        gelu: a GELU follows, which takes the sums before they are rounded.
    """

    def __init__(self, linear: nn.Linear, gelu: bool) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().bfloat16())
        self.bias = None if linear.bias is None else linear.bias.detach().bfloat16()
        self.then = "gelu" if gelu else "none"

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., E)"""
        return torch.ops.mkldnn._linear_pointwise(  # type: ignore[no-any-return]
            x, self.packed, self.bias, self.then, [], "none"
        )


def pack(module: nn.Module) -> None:
    """Replace every linear layer inside a module, in place, with the GELU behind it in a sequence."""
    children = dict(module.named_children())
    for name, child in children.items():
        if isinstance(child, nn.Linear):
            after = str(int(name) + 1) if isinstance(module, nn.Sequential) else ""
            gelu = isinstance(children.get(after), nn.GELU)
            setattr(module, name, PackedLinear(child, gelu))
            if gelu:
                setattr(module, after, nn.Identity())
        else:
            pack(child)
