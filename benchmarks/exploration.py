"""Quality for time in `mini`: other schedules, orders, temperatures, steps, guidance and precisions than the default.

    python benchmarks/exploration.py --out FILE [VARIANT ...]      # default: all; results are added to FILE
    python benchmarks/exploration.py --out FILE --list | --table   # prints them

Needs the trained model of `dvc repro`. Every variant makes three takes of every test clip, which the mini judges score
as stage evaluate does. `s/clip` is the sampler's time alone, in batches of sample.batch_size.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specmaskfoley.backbone.specmaskgit import decoding
from specmaskfoley.backbone.specmaskgit.schedule import mask_counts
from specmaskfoley.device import start
from specmaskfoley.evaluation.agreement import Found
from specmaskfoley.evaluation.comparison import ComparedFiles, compare_systems
from specmaskfoley.evaluation.judging import judging
from specmaskfoley.judges.trained import load_panel
from specmaskfoley.media.writing import write_audio
from specmaskfoley.sampling import fast
from specmaskfoley.sampling.generator import Generator, clip_seed
from specmaskfoley.sampling.guidance import TEXT_VIDEO, Condition, Pass, guidance_plan
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import write_json
from specmaskfoley.storage.tables import read_arrays, ready_clips

TAKES = 3
METRICS = {"fd": "FD ↓", "fad": "FAD ↓", "kl": "KL ↓", "ib": "IB ↑", "desync": "DeSync ↓", "onset_f1": "Onset F1 ↑"}
DIGITS = {"fd": 1, "fad": 2, "kl": 2, "ib": 3, "desync": 2, "onset_f1": 2}
Plan = list[dict[Pass, float]]


def arccos_counts(num_tokens: int, steps: int, _: str) -> list[int]:
    """Masked share 2 / pi * arccos(progress): settles more tokens early than cosine does, fewer than linear."""
    shares = [2 / math.pi * math.acos((step + 1) / steps) for step in range(steps)]
    return [math.floor(num_tokens * share) for share in shares[:-1]] + [0]


def halton_order(rows: int, columns: int) -> Tensor:
    """Rank (N,) of every token in a low-discrepancy walk over the grid, bases 2 (time) and 3 (frequency)."""

    def radical_inverse(index: int, base: int) -> float:
        result, fraction = 0.0, 1.0 / base
        while index:
            index, digit = divmod(index, base)
            result += digit * fraction
            fraction /= base
        return result

    rank = torch.full((rows * columns,), -1)
    index = found = 0
    while found < rows * columns:
        index += 1
        row, column = int(radical_inverse(index, 3) * rows), int(radical_inverse(index, 2) * columns)
        if rank[row * columns + column] < 0:
            rank[row * columns + column] = found
            found += 1
    return rank


class HaltonSampler(fast.Sampler):
    """Tokens settle in the order of the walk, whatever their confidence: noise so large that nothing else counts."""

    rank: Tensor

    def _decode(self, given: fast._Given, *loop: Any) -> Tensor:
        draw, order, keep = given.deciding
        order = (-1e6 * self.rank.float()).expand_as(order)
        return super()._decode(given._replace(deciding=(draw, order, keep)), *loop)


def unguided(plan: Plan, where: Callable[[float], bool]) -> Plan:
    """The prompted pass with video alone in the steps whose progress, 0 to 1, is asked for."""
    last = len(plan) - 1
    return [{TEXT_VIDEO: 1.0} if where(step / last) else weights for step, weights in enumerate(plan)]


@dataclass(frozen=True)
class Variant:
    plan: Plan
    settings: dict[str, float | str] = field(default_factory=dict)
    order: str = "confidence"
    counts: Callable[[int, int, str], list[int]] | None = None
    precision: str = "float32"
    int8: bool = False


def variants(scale: float) -> dict[str, Variant]:
    multi = {steps: guidance_plan("multi", [steps], scale) for steps in (4, 6, 8, 12)}
    single = {steps: guidance_plan("no_video", [steps], 2 * scale) for steps in (6, 7, 8, 12)}
    found = {f"{steps} steps": Variant(plan) for steps, plan in multi.items()}
    found |= {
        "12 steps, linear": Variant(multi[12], {"schedule": "linear"}),
        "12 steps, arccos": Variant(multi[12], counts=arccos_counts),
        "8 steps, arccos": Variant(multi[8], counts=arccos_counts),
        "12 steps, halton": Variant(multi[12], order="halton"),
        "8 steps, halton": Variant(multi[8], order="halton"),
        "12 steps, temperature 4.5": Variant(multi[12], {"gumbel_temperature": 4.5}),
        "12 steps, temperature 18": Variant(multi[12], {"gumbel_temperature": 18.0}),
        "8 steps, temperature 18": Variant(multi[8], {"gumbel_temperature": 18.0}),
        "12 steps, unguided first third": Variant(guidance_plan("multi", [12], scale, 0.34)),
        "12 steps, unguided last third": Variant(unguided(multi[12], lambda p: p > 2 / 3)),
        "12 steps, guided middle third": Variant(unguided(multi[12], lambda p: p < 1 / 3 or p > 2 / 3)),
        "12 steps, unguided first third, temperature 4.5": Variant(
            guidance_plan("multi", [12], scale, 0.34), {"gumbel_temperature": 4.5}
        ),
        "8 steps, unguided first third": Variant(guidance_plan("multi", [8], scale, 0.34)),
        "8 steps, unguided last third": Variant(unguided(multi[8], lambda p: p > 2 / 3)),
        **{f"{steps} steps, no_video, twice the scale": Variant(plan) for steps, plan in single.items()},
        "12 steps, bfloat16": Variant(multi[12], precision="bfloat16"),
        "12 steps, int8": Variant(multi[12], int8=True),
        "8 steps, int8": Variant(multi[8], int8=True),
        "8 steps, no_video, twice the scale, int8": Variant(single[8], int8=True),
        "7 steps, no_video, twice the scale, int8": Variant(single[7], int8=True),
        "7 steps, no_video, twice the scale, int8, temperature 4.5": Variant(
            single[7], {"gumbel_temperature": 4.5}, int8=True
        ),
        "6 steps, no_video, twice the scale, int8": Variant(single[6], int8=True),
    }
    return found


def make(variant: Variant, params: Params, split: str, device: torch.device, folder: Path) -> tuple[list[Found], float]:
    """Sounds of all takes, and seconds of sampling a clip."""
    chosen = params.sample.model_copy(update={"steps": len(variant.plan), "int8": variant.int8, **variant.settings})
    changed = params.model_copy(
        update={"sample": chosen, "run": params.run.model_copy(update={"precision": variant.precision})}
    )
    generator = Generator(changed, device)
    sampler = generator.sampler
    vars(decoding)["mask_counts"] = variant.counts or mask_counts
    if variant.order == "halton":
        sampler.__class__ = HaltonSampler
        assert isinstance(sampler, HaltonSampler)
        sampler.rank = halton_order(params.grid.rows, params.grid.columns)
    ids, features = read_arrays(params.paths.features, split)
    inputs = {name: torch.from_numpy(array).float() for name, array in features.items()}
    takes, spent = [], 0.0
    for take in range(TAKES):
        files = {}
        for first in range(0, len(ids), params.sample.batch_size):
            rows = slice(first, first + params.sample.batch_size)
            condition = Condition(inputs["text_prompt"][rows], inputs["sync"][rows], inputs["semantic"][rows].mean(1))
            seeds = [clip_seed(params.seed + take, clip_id) for clip_id in ids[rows]]
            begin = time.perf_counter()
            tokens = sampler.sample(condition, plan=variant.plan, settings=chosen, seeds=seeds)
            spent += time.perf_counter() - begin
            waves = generator.decode(tokens.view(len(seeds), params.grid.rows, -1)).numpy()
            for clip_id, wave in zip(ids[rows], waves, strict=True):
                files[clip_id] = folder / f"{take}" / f"{clip_id}.flac"
                write_audio(files[clip_id], wave, params.audio.sample_rate)
        takes.append(Found(files, {}))
    return takes, spent / (TAKES * len(ids))


def score(
    name: str, takes: Sequence[Found], params: Params, split: str, device: torch.device
) -> dict[str, list[float]]:
    """Metric -> mean and standard deviation over takes."""
    rows = ready_clips(params.paths.usable, split)
    videos = Found({row.clip_id: Path(row.path) for row in rows}, {})
    entries = ComparedFiles(
        reference=videos,
        videos=videos,
        systems={name: takes},
        shortest_s=0.0,
        events={row.clip_id: row.events for row in rows},
        events_until_s=params.audio.token_duration_s,
    )
    with judging(load_panel(params, device), params) as judge:
        comparison = compare_systems(judge, entries, params.evaluate, params.seed)
    mean, spread = comparison.scores()[name], comparison.intervals(2, params.seed)[name]
    return {metric: [mean[metric], spread[metric]["sd"] or 0.0] for metric in METRICS}


def table(results: Mapping[str, Mapping[str, list[float]]]) -> str:
    lines = ["| variant | s/clip | " + " | ".join(METRICS.values()) + " |", "| --- |" + " ---: |" * (len(METRICS) + 1)]
    for name, row in results.items():
        cells = [f"{row[metric][0]:.{DIGITS[metric]}f} ± {row[metric][1]:.{DIGITS[metric]}f}" for metric in METRICS]
        lines.append(f"| {name} | {row['seconds'][0]:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--split", choices=["val", "test"], default="test", help="choose a setting on val")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    params = Params.load("params.yaml", "mini")
    known = variants(params.cfg.scale)
    results = json.loads(given.out.read_text()) if given.out.exists() else {}
    if given.list:
        print("\n".join(known))
    elif given.table:
        print(table({name: results[name] for name in known if name in results}))
    else:
        device = start(params)
        torch.set_num_threads(given.threads or params.run.threads or torch.get_num_threads())
        for name in given.variants or known:
            with tempfile.TemporaryDirectory() as folder:
                takes, seconds = make(known[name], params, given.split, device, Path(folder))
                results[name] = {**score(name, takes, params, given.split, device), "seconds": [seconds, 0.0]}
            write_json(given.out, results)
            print(table({name: results[name]}).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
