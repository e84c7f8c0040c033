"""Weight files that others made: read without running anything in them, loaded whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

_SHOWN = 5


def load_strictly(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    where: str,
    *,
    prefix: str = "",
    ignore: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> None:
    """Copy official weights into a module whose names, after `prefix`, are the official ones.

    Args:
        where: the file, for messages.
        prefix: the part of an official name that the module's own names lack.
        ignore: beginnings of official names that belong to parts this module does not have; any other name that
            it does not know is an error.
        keep: names of the module that the file need not hold (buffers that the constructor makes).

    Raises:
        ValueError: names are missing, unknown or of another shape. The module is untouched then.
    """
    own = {prefix + name: value for name, value in module.state_dict().items()}
    kept = {prefix + name for name in keep}
    missing = [name for name in own if name not in tensors and name not in kept]
    unknown = [name for name in tensors if name not in own and not name.startswith(tuple(ignore))]
    misshapen = [
        f"{name} {list(tensors[name].shape)} instead of {list(value.shape)}"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise ValueError(f"{where}: not the weights of {type(module).__name__}: {'; '.join(problems)}")
    with torch.no_grad():
        for name, value in own.items():
            if name in tensors:
                value.copy_(tensors[name])
