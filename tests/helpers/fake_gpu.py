"""A GPU without one: tensors on `cuda` that have shape and type but no values, and a watch on what is done with them.

Fake tensors take no memory, so that networks of any size run in a moment; nothing is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import torch
import torchaudio
from torch import Tensor, nn
from torch._subclasses import fake_impls, fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_leaves, tree_map_only

from specmaskfoley.device import autocast
from specmaskfoley.judges import vggish

CUDA = torch.device("cuda", 0)

_Network = TypeVar("_Network", bound=nn.Module)

_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "item", "equal", "_unique2", "unique_dim"}
"""The host cannot go on before the device has the value, or the number of values."""
_PRODUCTS = {"linear", "matmul", "mm", "bmm", "addmm", "baddbmm"}
_PRODUCT_FAMILIES = ("conv", "_scaled_dot_product", "scaled_dot_product")
"""A GPU refuses these for unequal types, which fake tensors do not notice."""
_NO_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided", "detach", "_unsafe_view", "lift_fresh", "alias"}


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Inside, all new tensors are fake, and `cuda` exists; tensors from outside are refused."""
    generator = torch.Generator
    # The way round them asks cuDNN for its favourite layout.
    others = {op: made for op, made in fake_impls.op_implementations_dict.items() if "convolution" not in str(op)}
    with (
        FakeTensorMode(allow_non_fake_inputs=False),  # first, since without a GPU it prepares for that
        patch.dict(fake_impls.op_implementations_dict, others, clear=True),
        patch.object(fake_tensor, "CONSTANT_NUMEL_LIMIT", 0),  # else small tensors made of numbers keep them
        patch.object(torch, "Generator", lambda device="cpu": generator()),
        patch.object(fake_tensor, "init_gpu_context", lambda device: None),
        patch.object(nn.Module, "_apply", _apply),
        patch("torchaudio.functional.melscale_fbanks", by_host(torchaudio.functional.melscale_fbanks)),
        patch("torchaudio.compliance.kaldi.get_mel_banks", by_host(torchaudio.compliance.kaldi.get_mel_banks)),
        patch("torchaudio.compliance.kaldi._get_epsilon", _epsilon),
        patch("specmaskfoley.judges.vggish._mel_filters", by_host(vggish._mel_filters)),
        patch("torch.backends.cudnn.is_acceptable", lambda tensor: False),  # asks the driver
        patch("torch.cuda.is_available", lambda: True),
        patch("torch.cuda.is_current_stream_capturing", lambda: False),
        patch("torch.cuda.is_bf16_supported", lambda: True),
        patch("torch.amp.autocast_mode.torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
    ):
        yield


def on_gpu(network: _Network, device: torch.device = CUDA) -> _Network:
    """Every parameter and buffer of a network, which may be on `meta`, replaced by a fake one on the GPU."""
    return _apply(network, lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=device))


def on_cuda(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=CUDA)


def run(network: nn.Module, call: Callable[[Any], Any], precision: str = "auto") -> Tensor:
    """In the precision that a GPU takes by itself, or another."""
    with fake_gpu(), torch.inference_mode(), Watch(strict=False), autocast(precision, CUDA):
        found: Tensor = call(on_gpu(network))
    assert found.device == CUDA
    return found


def by_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that computes constants on the host, with values, whose results are fake from then on."""

    def computed(*args: Any, **kwargs: Any) -> Any:
        mode = next(mode for mode in reversed(_get_current_dispatch_mode_stack()) if isinstance(mode, FakeTensorMode))
        with _disable_current_modes():
            made = function(*args, **kwargs)
            return tree_map_only(Tensor, mode.from_tensor, made)

    return computed


def _epsilon(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Instead of torchaudio's, which is a tensor from before."""
    return torch.zeros((), dtype=dtype, device=device)


@torch.no_grad()
def _apply(network: _Network, change: Callable[[Tensor], Tensor], recurse: bool = True) -> _Network:
    """As `nn.Module._apply`, which swaps the parts of two tensors; fake ones refuse that."""
    changed: dict[int, Tensor] = {}
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is not None and id(old) not in changed:
                    new = change(old)
                    is_weight = tensors is module._parameters
                    changed[id(old)] = nn.Parameter(new, old.requires_grad) if is_weight else new
                if old is not None:
                    tensors[name] = changed[id(old)]  # type: ignore[index]
    return network


class Watch(TorchDispatchMode):
    """Fails on products of unequal types and, if `strict`, wherever the host and the device meet.

    Attributes:
        kernels: how often each operation ran that starts a kernel: views and empty tensors do not.
    """

    def __init__(self, strict: bool = True) -> None:
        super().__init__()
        self.strict = strict
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function.namespace == "prim":  # asks where a tensor lies
            return function(*args, **kwargs)
        name = function.overloadpacket.__name__
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        product = name.rstrip("_") in _PRODUCTS or name.startswith(_PRODUCT_FAMILIES)
        if product and not name.endswith("backward"):  # which also reads float32 sums of the attention
            kinds = {tensor.dtype for tensor in inputs if tensor.dtype != torch.bool}
            assert len(kinds) <= 1, f"{name} of unequal types: {sorted(map(str, kinds))}"
        if name == "scaled_dot_product_attention":
            # One kernel, whose result lies as (B, N, H, d); fake tensors would take it apart.
            self.kernels[name] += 1
            return args[0].transpose(1, 2).new_empty(args[0].transpose(1, 2).shape).transpose(1, 2)
        if function._can_decompose():
            with self:
                made = function.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        assert not (self.strict and name in _WAITS), f"{name}: the host waits for the device"
        result = function(*args, **kwargs)
        places = {leaf.device.type for leaf in [*inputs, *tree_leaves(result)] if isinstance(leaf, Tensor)}
        assert not (self.strict and places - {"cuda"}), f"{name}: a tensor of the host"
        if not (function.is_view or name in _NO_KERNEL):
            self.kernels[name] += 1
        return result
