"""What every stage starts with: its arguments, threads, determinism, device and precision."""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from specmaskfoley.errors import one_line_errors

if TYPE_CHECKING:
    import torch

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
        with one_line_errors(1):
            main(**arguments)

    return run


def start(params: Params) -> torch.device:
    """Seed the global generator, and `start_device`."""
    import torch

    torch.manual_seed(params.seed)
    return start_device(params.run)


def start_device(run: Run) -> torch.device:
    """Set torch's threads and determinism, and pick the device."""
    import torch

    if run.threads:
        torch.set_num_threads(run.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    return pick_device(run.device)


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is cuda, else mps, else cpu.

    Raises:
        ValueError: the device does not exist here.
    """
    import torch

    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"run.device={name!r} cannot be used here ({reason}); try run.device=auto") from None
    return device


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Context in which networks run: in half precision if `run.precision` says so.

    `auto` means bfloat16 on CUDA and float32 elsewhere: on a CPU with native bfloat16 instructions a step of the
    mini networks took twice (Transformer) to nine times (codec) as long in bfloat16 (measured, torch 2.11).
    """
    import torch

    half = half_dtype(precision, device)
    return torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None)


def half_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The half precision that `run.precision` means on this device, if any."""
    import torch

    if precision == "float16":
        return torch.float16
    return torch.bfloat16 if precision == "bfloat16" or (precision == "auto" and device.type == "cuda") else None


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively: CUDA, and processors with AVX512-BF16 or AMX."""
    import torch

    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda"


def worker_count(params: Params) -> int:
    """Processes for rendering and decoding: run.workers, or one a core."""
    return params.run.workers or os.cpu_count() or 1
