"""Networks that are built to be loaded, without drawing the weights that the file then replaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

# Of tensors and of `torch.nn.init`, whose others call these; by name, since transformers puts its own in their place.
_DRAWS = {"uniform_", "normal_", "kaiming_uniform_", "erfinv_"}


class Unfilled(TorchFunctionMode):
    """Context in which weights are not drawn, but hold whatever was in memory; constants are set as ever.

    For networks that are loaded strictly in it: 680 million weights of the `magnet` profile take a core 11 s to draw.
    accelerate's `init_empty_weights` leaves weights without memory, which loaders that copy into them cannot fill.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
