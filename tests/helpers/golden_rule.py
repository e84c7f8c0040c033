"""The golden data: weights and inputs that follow from a name or a seed alone, and the outputs that belong to them.

`tests/golden` holds numbers that the official implementations gave; `*_manifest.json` are the official state-dict
names and shapes. Whoever has the names has the weights: see `golden_tensor`.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

REL_L2, REL_CENTERED = 1e-4, 1e-3

ERRORS: dict[str, tuple[float, float]] = {}
"""The largest relative L2 error, and the same of centred values, that each test met; pytest prints them at its end."""


class Golden:
    """A folder of golden data: what a component was given, and what came out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def spec(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))

    def arrays(self, name: str) -> Mapping[str, np.ndarray]:
        return np.load(self.folder / f"{name}.npz")

    def manifest(self, name: str) -> dict[str, list[int]]:
        """Official names and shapes, in the file's order."""
        return self.spec(f"{name}_manifest")["keys"]

    def weights(self, name: str, prefixes: Sequence[str] = ("",)) -> dict[str, Tensor]:
        """The official state dict by the rule, without what the constructor keeps; only names with these prefixes."""
        spec = self.spec(f"{name}_manifest")
        keep, integer = set(spec.get("keep", ())), set(spec.get("integer", ()))
        return {
            key: torch.zeros(shape, dtype=torch.int64) if key in integer else golden_tensor(key, shape)
            for key, shape in spec["keys"].items()
            if key not in keep and key.startswith(tuple(prefixes))
        }

    def inputs(self, name: str) -> dict[str, Tensor]:
        """All inputs of a component, checked against what their recipes record."""
        found = {}
        for key, recipe in self.spec(name)["inputs"].items():
            if isinstance(recipe, dict) and "kind" in recipe:
                found[key] = golden_input(recipe)
        return found


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


def golden_input(recipe: Mapping[str, Any]) -> Tensor:
    """The input that a recipe describes: {"kind", "seed", "shape"} and, by kind, "scale", "shift", "high", "sr"."""
    shape, generator = tuple(recipe["shape"]), torch.Generator().manual_seed(int(recipe["seed"]))
    kind = recipe["kind"]
    if kind == "randint":
        made = torch.randint(0, int(recipe["high"]), shape, generator=generator)
    elif kind == "wave":
        rows = math.prod(shape[:-1])
        made = torch.stack([_wave(generator, shape[-1], int(recipe["sr"])) for _ in range(rows)]).reshape(shape)
    else:
        made = {
            "randn": lambda: torch.randn(shape, generator=generator),
            "rand": lambda: torch.rand(shape, generator=generator),
            "uniform_pm1": lambda: torch.rand(shape, generator=generator) * 2.0 - 1.0,
        }[kind]()
        made = made * float(recipe.get("scale", 1.0)) + float(recipe.get("shift", 0.0))
    if "check" in recipe:
        check = recipe["check"]
        first = made.flatten()[: len(check["first"])].double().numpy()
        np.testing.assert_allclose(first, check["first"], rtol=1e-4, atol=1e-6)
        assert made.double().mean().item() == pytest.approx(check["mean"], rel=1e-4, abs=1e-6)
        assert made.double().std(unbiased=False).item() == pytest.approx(check["std"], rel=1e-4)
    return made


def _wave(generator: torch.Generator, samples: int, sample_rate: int) -> Tensor:
    """(samples,): six modulated sinusoids and a little noise."""
    time = torch.arange(samples, dtype=torch.float64) / sample_rate
    drawn = torch.rand(6, 3, generator=generator).double()
    frequency = 80.0 * (0.45 * sample_rate / 80.0) ** drawn[:, :1]
    amplitude, phase = 0.02 + 0.1 * drawn[:, 1:2], 2 * math.pi * drawn[:, 2:]
    wave = (amplitude * torch.sin(2 * math.pi * frequency * time + phase)).sum(0)
    wave = wave * (0.6 + 0.4 * torch.sin(4 * math.pi * time))
    wave = wave + 0.02 * torch.randn(samples, generator=generator).double()
    return wave.clamp(-1, 1).float()


def assert_golden(found: Tensor | np.ndarray, golden: np.ndarray, *, rel_l2: float = REL_L2) -> None:
    """Relative L2 error, and the same after the mean over all axes but the last was taken off both sides.

    With random weights much of a network's output hardly depends on its input: the second number looks at the rest.
    """
    a, b = np.asarray(found, np.float64), np.asarray(golden, np.float64)
    assert a.shape == b.shape
    error = float(np.linalg.norm(a - b) / np.linalg.norm(b))
    centered = 0.0
    if a.ndim >= 2 and a.size > a.shape[-1]:
        axes = tuple(range(a.ndim - 1))
        a, b = a - a.mean(axes, keepdims=True), b - b.mean(axes, keepdims=True)
        centered = float(np.linalg.norm(a - b) / np.linalg.norm(b))
    test = os.environ.get("PYTEST_CURRENT_TEST", "").split("::")[-1].split(" ")[0]
    ERRORS[test] = max(ERRORS.get(test, (0.0, 0.0))[0], error), max(ERRORS.get(test, (0.0, 0.0))[1], centered)
    assert error <= rel_l2, f"relative L2 error {error:.2e}"
    assert centered <= rel_l2 * REL_CENTERED / REL_L2, f"relative error of the centred values {centered:.2e}"


def assert_summary(found: Tensor | np.ndarray, summary: Mapping[str, Any], *, rel_l2: float = REL_L2) -> None:
    """Shape, mean, spread, first values and eight random projections: of a whole tensor, whatever part is stored."""
    x = torch.as_tensor(np.asarray(found)).double()
    assert list(x.shape) == summary["shape"]
    flat = x.flatten()
    scale = float(flat.square().mean().sqrt())
    assert float(flat.mean()) == pytest.approx(summary["mean"], abs=rel_l2 * scale)
    assert float(flat.std(unbiased=False)) == pytest.approx(summary["std"], rel=10 * rel_l2)
    np.testing.assert_allclose(
        flat[:64].numpy(), summary["first"], atol=10 * rel_l2 * max(scale, 1e-3), rtol=10 * rel_l2
    )
    for index, golden in enumerate(summary.get("proj", ())):
        random = torch.randn(flat.numel(), generator=torch.Generator().manual_seed(1000 + index)).double()
        # A projection of an error of relative size r is about r * scale.
        assert float(flat @ random) / math.sqrt(flat.numel()) == pytest.approx(golden, abs=5 * rel_l2 * scale)
