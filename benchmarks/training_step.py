"""Time of a training step of the control branch at the paper's size, beside a plain loop of the same networks.

    python benchmarks/training_step.py [--batch 64] [--precision bfloat16] [--steps 10]

The plain loop is what one writes first: eager PyTorch, float32 or autocast, loss and gradient norm read at every step.
Both take steps in turn, in one process. Work is counted by PyTorch's own counter of matrix products and convolutions;
the ceiling is what a product of two large matrices reaches here in the same precision. The default batch is 64 on a GPU
and 2 on a CPU.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from specmaskfoley.backbone.objective import TokenClips
from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.control.objective import ControlObjective
from specmaskfoley.control.trained import build_control
from specmaskfoley.settings import Params, Run
from specmaskfoley.training import loop


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64 if cuda else 2)
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=30 if cuda else 6)
    parser.add_argument("--compile", default="auto", choices=("auto", "always", "never"))
    given = parser.parse_args()
    device = torch.device("cuda" if cuda else "cpu")
    params = Params.load(profile="vggsound")
    clips = made_up(params, 4 * given.batch)

    ours = Ours(params, clips, given.batch, given.precision, given.compile, device)
    plain = Plain(params, clips, given.batch, given.precision, device)
    with FlopCounterMode(display=False) as counter:
        plain.step()
    work = counter.get_total_flops()
    ours.step()  # compiles, if it does
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(given.steps):  # in turn, so that a busy machine slows both
        times["ours"].append(timed(ours.step, device))
        times["plain"].append(timed(plain.step, device))
    ceiling = matmul_flops(torch.bfloat16 if given.precision == "bfloat16" else torch.float32, device)

    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{name}; batch {given.batch}, {given.precision}, {work / 1e12:.2f} TFLOP a step; "
        f"ceiling {ceiling / 1e12:.2f} TFLOP/s"
    )
    print("| loop | s a step | clips/s | TFLOP/s | of the ceiling |\n| --- | ---: | ---: | ---: | ---: |")
    for which, seconds in times.items():
        median = statistics.median(seconds)
        rate = work / median
        print(f"| {which} | {median:.3f} | {given.batch / median:.1f} | {rate / 1e12:.2f} | {rate / ceiling:.0%} |")
    ratio = statistics.median(p / o for p, o in zip(times["plain"], times["ours"], strict=True))
    print(f"plain / ours, median of pairs: {ratio:.2f}")
    print(json.dumps({"ours_s": times["ours"], "plain_s": times["plain"], "flops": work, "ceiling": ceiling}))


def made_up(params: Params, count: int) -> TokenClips:
    """Clips of the profile's shapes."""
    generator = torch.Generator().manual_seed(0)
    encoders, shape = params.encoders, (count, params.grid.size)
    tokens = torch.randint(params.codec.codebook_size, shape, generator=generator, dtype=torch.int16)
    return TokenClips(
        [f"clip{n}" for n in range(count)],
        tokens,
        torch.randn(count, *encoders.prompt.shape, generator=generator).half(),
        torch.randn(count, len(params.sync_features_s), encoders.sync.width, generator=generator).half(),
        torch.randn(count, encoders.semantic.width, generator=generator),
    )


class Ours:
    """Steps of `training.loop`, one at a time; every tenth is recorded, as in a training."""

    def __init__(
        self, params: Params, clips: TokenClips, batch: int, precision: str, compiles: str, device: torch.device
    ) -> None:
        torch.manual_seed(0)
        backbone = build_backbone(params).to(device)
        objective = ControlObjective(
            backbone, build_control(backbone, params).to(device), clips,
            prompt_dropout=0.9, device=device, precision=precision,
        )  # fmt: skip
        settings = params.train_control.optim.model_copy(update={"batch_size": batch})
        how: dict[str, Any] = {"precision": precision, "compile": compiles}
        run = Run(device=device.type, threads=0, workers=1, **how)
        self.folder = TemporaryDirectory()
        self.fitting = loop.Fitting(
            objective=objective,  # type: ignore[arg-type]  # its criterion is a str, never None
            rows=clips.rows(), settings=settings, run=run,
            accelerator=Accelerator(cpu=device.type == "cpu"), seed=0, name="control",
            scratch=Path(self.folder.name), log=Silent(),
        )  # fmt: skip
        self.fitting._distribute()
        objective.modules.train()
        self.batches = self.fitting._batches(0, 10_000)
        self.batches.__enter__()
        self.stream, self.number = iter(self.batches), 0

    def step(self) -> None:
        self.fitting._step(self.number, next(self.stream))
        self.number += 1
        if self.number % loop.RECORD_EVERY == 0:
            self.fitting._check_finite()


class Silent:
    def metrics(self, network: str, values: dict[str, float], step: int) -> None:
        pass


class Plain:
    """The first loop one would write."""

    def __init__(self, params: Params, clips: TokenClips, batch: int, precision: str, device: torch.device) -> None:
        torch.manual_seed(0)
        self.backbone = build_backbone(params).to(device).requires_grad_(False)
        self.control = build_control(self.backbone, params).to(device)
        self.clips, self.batch, self.device = clips, batch, device
        self.half = precision == "bfloat16"
        self.optimizer = torch.optim.AdamW(self.control.parameters(), lr=1e-4)
        self.generator = torch.Generator().manual_seed(0)

    def step(self) -> None:
        rows = torch.randperm(len(self.clips), generator=self.generator)[: self.batch]
        clips, device = self.clips, self.device
        assert clips.sync is not None
        assert clips.semantic is not None
        tokens = clips.tokens[rows].long().to(device)
        masked = self.backbone.random_mask(self.batch, 0, self.generator).to(device)
        use = (torch.rand(self.batch, generator=self.generator) > 0.9).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.half):
            inputs = self.backbone.embed(tokens, masked, clips.prompt[rows].float().to(device), use)
            aligned = self.control.align(clips.sync[rows].float().to(device), clips.semantic[rows].to(device))
            logits = self.backbone(inputs, self.control(inputs, aligned))
        masked, tokens = (self.backbone.of_level(one, 0) for one in (masked, tokens))
        loss = F.cross_entropy(logits[masked].float(), tokens[masked])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.control.parameters(), 1.0)
        assert torch.isfinite(loss).item()
        assert torch.isfinite(norm).item()
        self.optimizer.step()


def timed(step: Callable[[], object], device: torch.device) -> float:
    begin = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def matmul_flops(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a product of two large square matrices, the best of some."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = min(timed(lambda: torch.mm(a, b), device) for _ in range(10))
    return 2 * size**3 / best


if __name__ == "__main__":
    main()
