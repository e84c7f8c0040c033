"""Linear layers in int8 on processors with VNNI, for sampling alone.

Shape letters: M rows, D width in, E width out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def supports_int8(device: torch.device) -> bool:
    """Whether int8 products are faster than bfloat16 here, and exact: VNNI adds them in 32 bits."""
    return device.type == "cpu" and torch.cpu._is_vnni_supported()


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, a scale for each output, and 8-bit inputs scaled anew at every call."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        self.scale = (weight.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        self.zero = torch.zeros_like(self.scale, dtype=torch.int32)
        self.bias = None if linear.bias is None else linear.bias.detach().float()
        rounded = (weight / self.scale[:, None]).round().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(rounded, None)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., E) of the same type."""
        rows = x.reshape(-1, x.shape[-1]).float()
        low, high = (float(end) for end in torch.aminmax(rows))
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / 255, 1e-12)
        zero = round(-low / scale)
        rounded = torch.quantize_per_tensor(rows, scale, zero, torch.quint8)
        # The same bytes as int_repr(), which would copy them: a twentieth of the whole sampling time (measured).
        levels = torch.empty(0, dtype=torch.uint8).set_(rounded.untyped_storage(), 0, rounded.shape)  # type: ignore[call-overload]
        result = torch.ops.onednn.qlinear_pointwise(
            levels, scale, zero, self.packed, self.scale, self.zero, self.bias, 1.0, 0, x.dtype, "none", [], ""
        )
        return result.unflatten(0, x.shape[:-1])  # type: ignore[no-any-return]


def quantise(module: nn.Module) -> None:
    """Replace every linear layer inside a module, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            quantise(child)
