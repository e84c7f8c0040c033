"""The fast sampler against the plain reference, in one process, at a profile's sizes with random weights.

    python benchmarks/sampling.py [--profile vggsound] [--runs 3] [--batch 1] [--threads 2] [--out FILE]

Times are of one batch, with the steps and guidance of params.yaml, without encoders and vocoder. Random weights make
the same products as trained ones; the tokens are compared in float32. `ceiling` is the rate of a large matrix product
alone on this device.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.codec.network import Codec
from specmaskfoley.control.trained import build_control
from specmaskfoley.device import fast_bfloat16, pick_device
from specmaskfoley.sampling.fast import Sampler
from specmaskfoley.sampling.guidance import Condition, guidance_plan
from specmaskfoley.sampling.int8 import supports_int8
from specmaskfoley.sampling.reference import sample_tokens
from specmaskfoley.settings import GriffinLim, NeuralVocoder, Params
from specmaskfoley.vocoders.trained import build_vocoder


def timed(run: Callable[[], Tensor], runs: int, device: torch.device) -> tuple[list[float], Tensor]:
    """Seconds of each run after one that warms up, and the last result."""
    seconds = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        result = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return seconds[1:], result


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of (8192, 768) x (768, 3072)."""
    x, linear = torch.randn(8192, 768, device=device, dtype=dtype), nn.Linear(768, 3072, device=device, dtype=dtype)
    with torch.inference_mode():
        seconds, _ = timed(lambda: linear(x), 10, device)
    return 2 * 8192 * 768 * 3072 / statistics.median(seconds) / 1e12


def flops(params: Params, plan: list[dict], batch: int) -> float:
    """Multiplications and additions of the plan's passes, each counted in full as a plain sampler makes them."""
    backbone, tokens = params.backbone, params.audio.token_rows * params.audio.token_columns
    width, mlp = backbone.width, backbone.mlp_width
    block = tokens * 2 * (4 * width**2 + 2 * width * mlp) + 4 * tokens**2 * width
    whole = backbone.depth * block + 2 * tokens * width * params.codec.codebook_size
    branch = params.control.depth * (block + 2 * tokens * width**2)
    return batch * sum(len(weights) * whole + sum(row.video for row in weights) * branch for weights in plan)


def vocoders(params: Params, batch: int, runs: int, device: torch.device) -> None:
    """Print the times of tokens to mel and of mel to sound."""
    audio, sound_s = params.audio, params.audio.token_duration_s * batch
    codec = Codec(params.codec).to(device).eval()
    tokens = torch.randint(params.codec.codebook_size, (batch, audio.token_rows, audio.token_columns), device=device)
    with torch.inference_mode():
        mel = codec.decode(tokens)[:, 0]
        parts: dict[str, Callable[[], Tensor]] = {"codec": lambda: codec.decode(tokens)}
        for kind in ("hifigan", "bigvgan"):
            network = build_vocoder(audio, NeuralVocoder(kind=kind, weights=kind)).to(device).eval()
            parts[kind] = partial(network, mel)
        settings = GriffinLim(kind="griffin_lim", iterations=12, momentum=0.99)
        parts["griffin_lim, 12 iterations"] = partial(build_vocoder(audio, settings).to(device).eval(), mel)
        for name, run in parts.items():
            seconds, _ = timed(run, runs, device)
            median = statistics.median(seconds)
            print(
                f"{name}: {median:.2f} s (worst {max(seconds):.2f}), real-time factor {median / sound_s:.3f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="vggsound")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int)
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
        vocoders(params, given.batch, given.runs, device)
        return
    backbone = build_backbone(params).to(device).eval()
    control = build_control(backbone, params).to(device).eval()
    for linear in [control.zero_in, *control.zero_out]:
        nn.init.normal_(linear.weight, std=0.02)  # a trained branch: zero weights would hide the video
    condition = Condition(
        torch.randn(given.batch, params.encoders.prompt.width, device=device),
        torch.randn(given.batch, 240, params.encoders.sync.width, device=device),
        torch.randn(given.batch, params.encoders.semantic.width, device=device),
    )
    settings = params.sample.model_copy(update={"steps": given.steps or params.sample.steps})
    mode = given.mode or params.cfg.mode
    start = params.cfg.start if given.start is None else given.start
    plan = guidance_plan(mode, settings.steps, params.cfg.scale, start)
    seeds = list(range(given.batch))

    def plain(precision: str) -> Callable[[], Tensor]:
        return lambda: sample_tokens(
            backbone, control, condition, mode=mode, scale=params.cfg.scale, start=start, settings=settings,
            seeds=seeds, precision=precision,
        )  # fmt: skip

    def fast(precision: str, int8: bool = False) -> Callable[[], Tensor]:
        # Copies, since a sampler converts the networks that it is given.
        sampler = Sampler(*copy.deepcopy((backbone, control)), precision=precision, int8=int8)
        return lambda: sampler.sample(condition, plan=plan, settings=settings, seeds=seeds)

    kinds: dict[str, Callable[[], Callable[[], Tensor]]] = {
        "reference float32": lambda: plain("float32"),
        "fast float32": lambda: fast("float32"),
    }
    if fast_bfloat16(device):
        kinds |= {"reference bfloat16": lambda: plain("bfloat16"), "fast bfloat16": lambda: fast("bfloat16")}
    if supports_int8(device):
        kinds["fast int8"] = lambda: fast("bfloat16" if fast_bfloat16(device) else "float32", int8=True)

    sound_s = params.audio.token_duration_s * given.batch
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{where}, {given.threads} threads, batch {given.batch}, {sound_s:.2f} s of sound")
    print(f"{mode}, {settings.steps} steps, {len(plan[-1])} passes in the last")
    rates = {str(dtype): ceiling(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    print("ceiling:", ", ".join(f"{name} {rate:.3f} TFLOP/s" for name, rate in rates.items()))
    work = flops(params, plan, given.batch)
    table, tokens = {}, {}
    for kind in given.only or kinds:
        seconds, tokens[kind] = timed(kinds[kind](), given.runs, device)
        median = statistics.median(seconds)
        base = table.get(f"reference {kind.split()[1]}", next(iter(table.values()), None))
        table[kind] = {"median_s": median, "worst_s": max(seconds), "real_time_factor": median / sound_s}
        ratio = f", {base['median_s'] / median:.2f} times as fast as the reference" if base and "fast" in kind else ""
        print(f"{kind}: {median:.2f} s (worst {max(seconds):.2f}), real-time factor {median / sound_s:.2f}, "
              f"{work / median / 1e12:.2f} TFLOP/s of the plain sampler's work{ratio}", flush=True)  # fmt: skip
    if {"reference float32", "fast float32"} <= set(tokens):
        same = (tokens["reference float32"] == tokens["fast float32"]).float().mean().item()
        print(f"tokens equal in float32: {same:.2%}")
        table["tokens_equal_float32"] = same
    if given.out:
        given.out.write_text(json.dumps({"device": where, "ceiling_tflops": rates, "kinds": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
