"""Convolutions with weight normalisation (Salimans & Kingma 2016) under the names of published vocoder files.

torch's own has two sets of names: the deprecated function gives `weight_g` and `weight_v`, which all vocoder files
use, its successor `parametrizations.weight.original0` and `original1`. Some files hold the plain product.

Shape letters: O first axis of a kernel, I second, K its length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.weights.official import OfficialNetwork

_SUCCESSORS = {
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
}


class NormedConv1d(nn.Conv1d):
    """A convolution whose kernel is `weight_g` (O, 1, 1) times the direction of `weight_v` (O, I, K)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _split_weight(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, _kernel(self), self.bias, self.stride, self.padding, self.dilation)


class NormedConvTranspose1d(nn.ConvTranspose1d):
    """The transposed one; here O is the number of inputs, as upstream's norm runs over the first axis."""

    padding: tuple[int, ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _split_weight(self)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.conv_transpose1d(x, _kernel(self), self.bias, self.stride, self.padding, self.output_padding)


class NormedVocoder(OfficialNetwork):
    """A vocoder of the convolutions above; `mel` is the recipe that it reads (`audio.mel`)."""

    mel: ClassVar[str]

    def load_official(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """As of any official network, in whichever of the three forms each kernel comes."""
        own, found = self.state_dict(), _legacy_names(tensors)
        converted: dict[str, Tensor] = {}
        for name, value in found.items():
            magnitude, direction = f"{name}_g", f"{name}_v"
            if magnitude in own and found.keys().isdisjoint((magnitude, direction)) and value.ndim == 3:
                converted[magnitude], converted[direction] = _norm(value.float()), value
            else:
                converted[name] = value
        super().load_official(converted, where)

    @staticmethod
    def sound(last: nn.Module, x: Tensor) -> Tensor:
        """What the last convolution makes of (B, C, T): (B, T) within [-1, 1]; always in float32, as samples in half
        precision would hiss."""
        with torch.autocast(x.device.type, enabled=False):
            return torch.tanh(last(x.float()))[:, 0]


def _legacy_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Successors renamed to `weight_g` and `weight_v`, unless the file holds both."""
    renamed = {}
    for name, value in tensors.items():
        for successor, legacy in _SUCCESSORS.items():
            official = name.removesuffix(successor) + legacy
            if name.endswith(successor) and official not in tensors:
                name = official
        renamed[name] = value
    return renamed


def _split_weight(conv: nn.Conv1d | nn.ConvTranspose1d) -> None:
    weight = conv.weight
    del conv.weight
    conv.weight_g = nn.Parameter(_norm(weight.detach()))
    conv.weight_v = weight


def _kernel(conv: nn.Conv1d | nn.ConvTranspose1d) -> Tensor:
    """(O, I, K); in float32 also where the convolution runs in half precision."""
    return conv.weight_g * F.normalize(conv.weight_v, dim=(1, 2))  # type: ignore[arg-type, operator]


def _norm(weight: Tensor) -> Tensor:
    """(O, I, K) -> (O, 1, 1)."""
    return torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)  # type: ignore[no-any-return]
