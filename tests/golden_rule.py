"""Weights and inputs that follow from a name or a seed alone; the golden arrays were made from them.

The rule is section 0 of the project's reference facts: whoever has the official names has the weights.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"


def shared(name: str) -> Path:
    """A file of the reference material beside the repository; without it the test is skipped."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"reference file {name} is not here (looked in {SHARED.resolve()})")
    return path


def golden_tensor(key: str, shape: Sequence[int]) -> Tensor:
    """The value of the parameter with the official name `key`."""
    if key.endswith("running_var"):
        return torch.ones(*shape)
    if key.endswith("running_mean"):
        return torch.zeros(*shape)
    noise = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if len(shape) == 1 and key.endswith("weight"):
        return 1.0 + 0.1 * noise
    if len(shape) <= 1:
        return 0.02 * noise
    return noise / math.sqrt(math.prod(shape[1:]))


def golden_weights(keys: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    return {key: golden_tensor(key, shape) for key, shape in keys.items()}


def golden_wave(seed: int, samples: int, sample_rate: int) -> Tensor:
    """(1, samples): six modulated sinusoids and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples, dtype=torch.float64) / sample_rate
    drawn = torch.rand(6, 3, generator=generator).double()
    frequency = 80.0 * (0.45 * sample_rate / 80.0) ** drawn[:, :1]
    amplitude, phase = 0.02 + 0.1 * drawn[:, 1:2], 2 * math.pi * drawn[:, 2:]
    wave = (amplitude * torch.sin(2 * math.pi * frequency * time + phase)).sum(0)
    wave = wave * (0.6 + 0.4 * torch.sin(4 * math.pi * time))
    wave = wave + 0.02 * torch.randn(samples, generator=generator).double()
    return wave.clamp(-1, 1).float()[None]


def relative_error(found: Tensor, golden: np.ndarray) -> float:
    """Relative L2 error."""
    difference = found.double().numpy() - golden.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(golden.astype(np.float64)))
