"""How many operations a GPU is given for a clip's tokens: counted on fake tensors, without a GPU.

    python benchmarks/operations.py [--profile vggsound] [--batch 1]

Views and empty tensors do not count. `grouped` is what runs with few clips, `block by block` what runs with many. A
grouped product that has a bias copies it first, in the same operation: `copies` of a guided step.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.control.trained import build_control
from specmaskfoley.sampling import fast
from specmaskfoley.sampling.guidance import Condition, guidance_plan
from specmaskfoley.settings import Params

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.fake_gpu import CUDA, Watch, fake_gpu, on_gpu  # noqa: E402


def count(params: Params, batch: int, few_rows: int) -> list[Counter[str]]:
    """Operations of 2 steps, of 3, and of as many as params.yaml has; the first step needs no network."""
    with torch.device("meta"):
        backbone = build_backbone(params)
        control = build_control(backbone, params)
    encoders, found = params.encoders, []
    shapes = [
        (batch, *encoders.prompt.shape),
        (batch, len(params.sync_features_s), encoders.sync.width),
        (batch, encoders.semantic.width),
    ]

    class Loop:
        """Instead of a CUDA graph."""

        def __init__(self, sampler: fast.Sampler, _: fast._Given, *loop: Any) -> None:
            self.sampler, self.loop = sampler, loop

        def __call__(self, given: fast._Given) -> torch.Tensor:
            with Watch() as watch:
                tokens = self.sampler._decode(given, *self.loop)
            found.append(watch.kernels)
            return tokens

    with fake_gpu(), patch.object(fast, "_Graph", Loop), patch.object(fast, "_FEW_ROWS", few_rows):
        sampler = fast.Sampler(on_gpu(backbone), on_gpu(control))
        condition = Condition(*(torch.empty(shape, device=CUDA) for shape in shapes))
        for steps in (2, 3, params.sample.steps):
            settings = params.sample.model_copy(update={"steps": steps})
            plan = guidance_plan(params.cfg.mode, settings.steps_of(sampler.backbone.levels), params.cfg.scale)
            sampler.sample(condition, plan=plan, settings=settings, seeds=list(range(batch)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="vggsound")
    parser.add_argument("--batch", type=int, default=1)
    given = parser.parse_args()
    params = Params.load(ROOT / "params.yaml", given.profile)
    print(f"{given.profile}, {params.cfg.mode}, {params.sample.steps} steps, batch {given.batch}")
    for name, few_rows in (("block by block", 0), ("grouped", sys.maxsize)):
        two, three, whole = count(params, given.batch, few_rows)
        step = three - two
        print(f"{name}: {step.total()} a guided step ({step['baddbmm']} copies), {whole.total()} in all")
        print("   ", ", ".join(f"{operation} {times}" for operation, times in step.most_common()))


if __name__ == "__main__":
    main()
