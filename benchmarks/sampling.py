"""The fast sampler against the plain reference, in one process, at a profile's sizes with random weights.

    python benchmarks/sampling.py [--profile vggsound] [--runs 3] [--batch 1] [--threads 2] [--out FILE]

Times are of one batch, with the steps and guidance of params.yaml, without encoders and vocoder. The kinds take turns;
on a busy machine compare processor times, with --threads 1. Random weights make the same products as trained ones.
`--vocoders` times codec and vocoders instead, in float32 and as the product runs them here. `ceiling` is the rate of a
large matrix product alone on this device.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.codec.trained import load_tokenizer
from specmaskfoley.control.trained import build_control
from specmaskfoley.device import fast_bfloat16, pick_device
from specmaskfoley.media.mel import build_mel, decibels
from specmaskfoley.sampling import fast as sampler_module
from specmaskfoley.sampling.fast import Sampler
from specmaskfoley.sampling.guidance import Condition, Pass, guidance_plan
from specmaskfoley.sampling.int8 import supports_int8
from specmaskfoley.sampling.packed import supports_packing
from specmaskfoley.sampling.reference import sample_tokens
from specmaskfoley.settings import GriffinLim, NeuralVocoder, Params, Vocoder


class Timed(NamedTuple):
    """wall and processor: seconds of each run, the latter of all threads; result: of the last."""

    wall: list[float]
    processor: list[float]
    result: Tensor

    def __str__(self) -> str:
        wall, processor = statistics.median(self.wall), statistics.median(self.processor)
        return f"{wall:.2f} s (worst {max(self.wall):.2f}), {processor:.2f} s of processors"


def timed(parts: Mapping[str, Callable[[], Tensor]], runs: int, device: torch.device) -> dict[str, Timed]:
    """Each part in turn, `runs` times, after a turn that warms up."""
    done: dict[str, Timed] = {}
    for turn in range(runs + 1):
        for name, run in parts.items():
            begin, used = time.perf_counter(), time.process_time()
            result = run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent = time.perf_counter() - begin, time.process_time() - used
            before = done[name] if turn > 1 else Timed([], [], result)
            done[name] = Timed([*before.wall, spent[0]], [*before.processor, spent[1]], result)
    return done


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of (8192, 768) x (768, 3072)."""
    x, linear = torch.randn(8192, 768, device=device, dtype=dtype), nn.Linear(768, 3072, device=device, dtype=dtype)
    with torch.inference_mode():
        seconds = timed({"linear": lambda: linear(x)}, 10, device)["linear"].wall
    return 2 * 8192 * 768 * 3072 / statistics.median(seconds) / 1e12


def flops(params: Params, plan: Sequence[Mapping[Pass, float]]) -> float:
    """Multiplications and additions for a clip of the plan's passes, each in full as a plain sampler makes them."""
    with torch.device("meta"), torch.inference_mode():
        backbone = build_backbone(params)
        control = build_control(backbone, params)
        tokens = torch.empty(1, params.grid.size, dtype=torch.int64)
        inputs = backbone.embed(
            tokens, tokens.bool(), torch.empty(1, *params.encoders.prompt.shape), tokens[:, 0].bool()
        )
        with FlopCounterMode(display=False) as whole:
            backbone(inputs)
        with FlopCounterMode(display=False) as branch:
            control(inputs, torch.empty_like(inputs.x))
    video = sum(one.video for weights in plan for one in weights)
    return float(sum(map(len, plan)) * whole.get_total_flops() + video * branch.get_total_flops())


def vocoders(params: Params, batch: int, runs: int, device: torch.device, only: Sequence[str] | None) -> None:
    """Print the times of tokens to mel and of mel to sound in float32 and as the product runs them, and how far what
    is made lies from float32's."""
    grid, sound_s = params.grid, params.audio.token_duration_s * batch
    tokens = torch.randint(params.codec.codebook_size, (batch, grid.rows, grid.columns))
    kinds: dict[str, Vocoder] = {
        "griffin_lim": GriffinLim(kind="griffin_lim", iterations=12, momentum=0.99),
        **{kind: NeuralVocoder(kind=kind, weights=kind) for kind in ("hifigan", "bigvgan")},
    }
    recipe = build_mel(params.audio).to(device)
    parts: dict[str, Callable[[], Tensor]] = {}
    for name, vocoder in kinds.items():
        if only and name not in only:
            continue
        for precision in ("float32", "auto"):
            changes = {"run": params.run.model_copy(update={"precision": precision}), "vocoder": vocoder}
            torch.manual_seed(0)  # the same weights
            tokenizer = load_tokenizer(params.model_copy(update=changes), device, trained=False)
            if precision == "float32":
                mel = tokenizer.frames(tokens)
            parts.setdefault(f"codec {precision}", partial(tokenizer.frames, tokens))
            parts[f"{name} {precision}"] = partial(tokenizer.sound, mel)
    done = timed(parts, runs, device)
    for name, found in done.items():
        kind, precision = name.split()
        text = f"{name}: {found}, real-time factor {statistics.median(found.wall) / sound_s:.3f}"
        if precision == "auto":
            plain = done[f"{kind} float32"]
            ratio = statistics.median(plain.processor) / statistics.median(found.processor)
            mels = [one.result if kind == "codec" else recipe(one.result) for one in (plain, found)]
            error = (decibels(recipe, mels[0]) - decibels(recipe, mels[1])).abs().mean()
            text += f", {ratio:.2f} times as fast as in float32, mel error {error:.3f} dB"
        print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="vggsound")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, nargs="+", help="one number, or those of each level")
    parser.add_argument("--mode")
    parser.add_argument("--start", type=float)
    parser.add_argument("--only", nargs="*", help="kinds to run; default: all that the device has")
    parser.add_argument("--vocoders", action="store_true", help="time codec and vocoders instead")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    params = Params.load(Path(__file__).parents[1] / "params.yaml", given.profile)
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device = pick_device(given.device)
    if given.vocoders:
        vocoders(params, given.batch, given.runs, device, given.only)
        return
    backbone = build_backbone(params).to(device).eval()
    control = build_control(backbone, params).to(device).eval()
    for linear in [control.zero_in, *control.zero_out]:
        nn.init.normal_(linear.weight, std=0.02)  # a trained branch: zero weights would hide the video
    condition = Condition(
        torch.randn(given.batch, *params.encoders.prompt.shape, device=device),
        torch.randn(given.batch, len(params.sync_features_s), params.encoders.sync.width, device=device),
        torch.randn(given.batch, params.encoders.semantic.width, device=device),
    )
    settings = params.sample
    if given.steps:
        steps = tuple(given.steps) if len(given.steps) > 1 else given.steps[0]
        settings = settings.model_copy(update={"steps": steps})
    mode = given.mode or params.cfg.mode
    start = params.cfg.start if given.start is None else given.start
    plan = guidance_plan(mode, settings.steps_of(backbone.levels), params.cfg.scale, start, ramp=params.cfg.ramp)
    seeds = list(range(given.batch))

    def plain(precision: str) -> Callable[[], Tensor]:
        return lambda: sample_tokens(
            backbone, control, condition, plan=plan, settings=settings, seeds=seeds, precision=precision
        )  # fmt: skip

    def fast(precision: str, int8: bool = False, packs: bool = True) -> Callable[[], Tensor]:
        # Copies, since a sampler converts the networks that it is given.
        with patch.object(sampler_module, "supports_packing", supports_packing if packs else lambda *_: False):
            sampler = Sampler(*copy.deepcopy((backbone, control)), precision=precision, int8=int8)
        return lambda: sampler.sample(condition, plan=plan, settings=settings, seeds=seeds)

    kinds: dict[str, Callable[[], Callable[[], Tensor]]] = {
        "reference float32": lambda: plain("float32"),
        "fast float32": lambda: fast("float32"),
    }
    if fast_bfloat16(device):
        kinds |= {"reference bfloat16": lambda: plain("bfloat16"), "fast bfloat16": lambda: fast("bfloat16")}
        if device.type == "cpu":
            kinds["fast bfloat16, not packed"] = lambda: fast("bfloat16", packs=False)
    if supports_int8(device):
        kinds["fast int8"] = lambda: fast("bfloat16" if fast_bfloat16(device) else "float32", int8=True)

    sound_s = params.audio.token_duration_s * given.batch
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{where}, {given.threads} threads, batch {given.batch}, {sound_s:.2f} s of sound")
    print(f"{mode}, {settings.steps} steps, {len(plan[-1])} passes in the last")
    rates = {str(dtype): ceiling(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    print("ceiling:", ", ".join(f"{name} {rate:.3f} TFLOP/s" for name, rate in rates.items()))
    work = given.batch * flops(params, plan)
    done = timed({kind: kinds[kind]() for kind in given.only or kinds}, given.runs, device)
    table = {}
    for kind, found in done.items():
        median, processor = statistics.median(found.wall), statistics.median(found.processor)
        table[kind] = {"median_s": median, "worst_s": max(found.wall), "processor_s": processor,
                       "real_time_factor": median / sound_s}  # fmt: skip
        print(f"{kind}: {found}, real-time factor {median / sound_s:.2f}, "
              f"{work / median / 1e12:.2f} TFLOP/s of the plain sampler's work", flush=True)  # fmt: skip
    first, *others = done
    for kind in others:
        ratio = table[first]["processor_s"] / table[kind]["processor_s"]
        same = table[kind]["equal_tokens"] = (done[first].result == done[kind].result).float().mean().item()
        print(f"{kind}: processor time {ratio:.2f} times as short as of {first}, {same:.2%} of its tokens")
    if given.out:
        given.out.write_text(json.dumps({"device": where, "ceiling_tflops": rates, "kinds": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
