"""What every stage starts with: its arguments, threads, determinism, device and precision."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import os
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specmaskfoley.errors import one_line_errors

if TYPE_CHECKING:
    import torch
    from torch import nn

    from specmaskfoley.settings import Params, Run


def stage_main(main: Callable[..., None]) -> Callable[[], None]:
    """A stage as a program: an error of the user is one line and exit code 1.

    Where `main` has an argument `dry_run`, there is an option --dry-run.
    """

    def run() -> None:
        parser = argparse.ArgumentParser(description=(inspect.getmodule(main) or main).__doc__)
        if "dry_run" in inspect.signature(main).parameters:
            parser.add_argument(
                "--dry-run",
                action="store_true",
                help="take a few steps, print what all of them will need, keep nothing",
            )
        arguments = vars(parser.parse_args())
        with one_line_errors(1, _way_back()):
            main(**arguments)

    return run


def _way_back() -> str:
    """How to undo `dvc exp run -S` after an error; one with --temp or --queue leaves nothing in the checkout."""
    root = os.environ.get("DVC_ROOT", "")
    if not os.environ.get("DVC_EXP_NAME") or Path(root).resolve() != Path.cwd().resolve():
        return ""
    return "; params.yaml keeps what -S set: to undo it, git checkout params.yaml && dvc repro"


def start(params: Params, stage: str = "") -> torch.device:
    """Seed the global generator, and `start_device`."""
    import torch

    torch.manual_seed(params.seed)
    return start_device(params.run, stage)


def start_device(run: Run, stage: str = "") -> torch.device:
    """Set torch's threads, determinism and current device."""
    import torch

    if threads := run.threads_of(stage):
        torch.set_num_threads(threads)
    set_deterministic(True, warn_only=True)
    # Filling every fresh tensor would be a kernel each, and none is read before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    device = pick_device(run.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # for graphs, streams and libraries, which take the current one
    return device


def set_deterministic(on: bool, *, warn_only: bool) -> None:
    """What `torch.use_deterministic_algorithms` sets, but for the compiler's own switch.

    The public function imports the compiler to set that, which takes a second: `compiled` calls it.
    """
    import torch

    torch._C._set_deterministic_algorithms(on, warn_only=warn_only)


def announce(device: torch.device, precision: str) -> None:
    """Print the first line of a stage: what it runs on."""
    print(f"device {device_name(device)}, {precision}", flush=True)


def device_name(device: torch.device) -> str:
    """`cuda:1 (NVIDIA H200)`, `cpu (8 threads)`: for people."""
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is cuda, else mps, else cpu. A GPU that torch cannot use is told on stderr.

    Raises:
        ValueError: the device does not exist here.
    """
    import torch

    if name == "auto":
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            cuda = torch.cuda.is_available()
        if caught and not cuda:  # torch warns where there is a driver that does not serve, as one that is too old
            reason = str(caught[0].message).partition(" (Triggered")[0]
            print(f"run.device=auto: the GPU is not used: {' '.join(reason.split())}", file=sys.stderr, flush=True)
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"run.device={name!r} cannot be used here ({reason}); try run.device=auto") from None
    return device


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Context in which networks run: in half precision if `run.precision` says so.

    `auto` means bfloat16 where the device multiplies it (`fast_bfloat16`), float32 elsewhere.
    """
    import torch

    if device.type == "meta":  # networks whose operations are counted
        return nullcontext()
    half = half_dtype(precision, device)
    return torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None)


def half_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The half precision that `run.precision` means on this device, if any."""
    import torch

    if precision == "float16":
        return torch.float16
    return torch.bfloat16 if precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device)) else None


def precision_name(precision: str, device: torch.device) -> str:
    """What `run.precision` means on this device: float32, bfloat16 or float16."""
    return str(half_dtype(precision, device) or "float32").removeprefix("torch.")


def compile_trouble(device: torch.device) -> str:
    """What torch.compile lacks here, in a few words; empty if it has all it needs."""
    host = "CXX" if device.type == "cpu" else "CC"
    compilers = [os.environ.get(host), *(("g++", "clang++") if host == "CXX" else ("gcc", "clang"))]
    if not any(name and shutil.which(name) for name in compilers):
        return f"no {'C++' if host == 'CXX' else 'C'} compiler ({host}, {compilers[1]} or {compilers[2]})"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return f"no Python headers ({sysconfig.get_path('include')}/Python.h; Debian: python3-dev)"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    return ""


def compiled(network: nn.Module) -> nn.Module:
    """The network, compiled when it first runs, to kernels that give the same result every time."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.compile(network)  # type: ignore[return-value]


def round_weights(network: nn.Module, half: torch.dtype | None) -> None:
    """Weights of linear layers, convolutions and attention to half precision, once; None: nothing is done.

    For a frozen network that runs in `autocast`, which would round them at every pass, with the same result: it keeps
    rounded weights only of those that learn. Norms stay in float32.
    """
    from torch import nn

    products = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)
    for module in network.modules() if half is not None else ():
        if isinstance(module, products):
            module.to(half)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively: CUDA, and processors with AVX512-BF16 or AMX."""
    import torch

    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda"


def worker_count(params: Params) -> int:
    """Processes for rendering and decoding: run.workers, or one a core."""
    return params.run.workers or os.cpu_count() or 1
