"""What to measure first on a GPU, as a table in Markdown: python benchmarks/first_gpu_hour.py [--minutes 10]

| part | what it measures |
| --- | --- |
| tokens | whether CUDA graph, eager sampler and plain reference give the same tokens in float32 |
| sampler | time of a batch of 1 and of 32 at the paper's size, and the share of the matmul ceiling |
| training | a training step of the control branch at batch 64, compiled and eager, with its peak memory |
| extractors | clips a second of each encoder, judge and vocoder at full size, with random weights |
| ranks | a training step on two processes (NCCL on two GPUs), and whether their weights agree |
| pipeline | the whole of `mini` in a clone of the last commit |

Each part runs in a process of its own for its share of the time. What fails is a row with the first line of its error,
and the other parts go on. Without a GPU, or with --tiny, sizes are those of `mini` and only the first stages run: to
try the script, not to measure.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from specmaskfoley.backbone.role import Backbone
from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.control.trained import build_control
from specmaskfoley.device import device_name, start
from specmaskfoley.sampling.fast import Sampler
from specmaskfoley.sampling.guidance import Condition, guidance_plan
from specmaskfoley.sampling.reference import sample_tokens
from specmaskfoley.settings import Params

ROOT = Path(__file__).resolve().parents[1]
WORKER = "worker"
"""One of the processes of part `ranks`."""

Row = tuple[str, str]
"""What was measured, and the result."""


@dataclass(frozen=True)
class Here:
    params: Params
    device: torch.device
    tiny: bool


class Eager(Sampler):
    """The fast sampler without a CUDA graph."""

    def _graph(self, given, *loop):  # type: ignore[no-untyped-def]
        return lambda given: self._decode(given, *loop)


# ---------------------------------------------------------------------- parts


def tokens(here: Here) -> Iterator[Row]:
    """The same networks and seeds, sampled in each way."""
    params, batch = here.params, 2
    backbone, control = networks(here)
    condition, plan, seeds = conditions(here, batch), plan_of(params), list(range(batch))
    with_reference = sample_tokens(
        backbone, control, condition, plan=plan, settings=params.sample, seeds=seeds, precision="float32"
    )  # fmt: skip
    for name, kind in (("capture" if here.device.type == "cuda" else "as on CPUs", Sampler), ("eager", Eager)):
        sampler = kind(*copy.deepcopy((backbone, control)), precision="float32")
        found = sampler.sample(condition, plan=plan, settings=params.sample, seeds=seeds)
        same = (found == with_reference).float().mean().item()
        yield f"{name} against reference, float32, batch {batch}", f"{same:.2%} of the tokens equal"


def sampler(here: Here) -> Iterator[Row]:
    from sampling import ceiling, flops, timed

    params = here.params
    backbone, control = networks(here)
    fast = Sampler(backbone, control, precision=params.run.precision)
    plan, top = plan_of(params), ceiling(here.device, fast.dtype)
    yield f"matmul ceiling, {name_of(fast.dtype)}", f"{top:.3g} TFLOP/s"
    for batch in (1, 32) if not here.tiny else (1, 2):
        condition = conditions(here, batch)

        def run(condition: Condition = condition, batch: int = batch) -> Tensor:
            return fast.sample(condition, plan=plan, settings=params.sample, seeds=list(range(batch)))

        median = statistics.median(timed({"": run}, 1 if here.tiny else 5, here.device)[""].wall)
        share = batch * flops(params, plan) / median / 1e12 / top
        yield (
            f"{params.cfg.mode}, {params.sample.steps} steps, {name_of(fast.dtype)}, batch {batch}",
            f"{1000 * median:.1f} ms, {1000 * median / batch:.1f} ms a clip, {share:.0%} of the ceiling",
        )


def training(here: Here) -> Iterator[Row]:
    from training_step import Ours, made_up, timed

    cuda, batch = here.device.type == "cuda", 2 if here.tiny else 64
    clips = made_up(here.params, 4 * batch)
    for name, compiles in (("compiled", "always"), ("eager", "never")) if cuda else (("eager", "never"),):
        if cuda:
            torch.cuda.reset_peak_memory_stats(here.device)
        ours = Ours(here.params, clips, batch, "bfloat16" if cuda else "float32", compiles, here.device)
        begin = time.perf_counter()
        for _ in range(3):
            timed(ours.step, here.device)
        first = time.perf_counter() - begin
        median = statistics.median(timed(ours.step, here.device) for _ in range(3 if here.tiny else 20))
        peak = f", peak {torch.cuda.max_memory_allocated(here.device) / 1e9:.1f} GB" if cuda else ""
        yield f"control, batch {batch}, {name}", f"{1000 * median:.1f} ms a step{peak}; first three {first:.0f} s"
        del ours


def extractors(here: Here) -> Iterator[Row]:
    from extractors import JOBS, ceiling, timed

    judges = ("passt", "vggish", "imagebind_audio", "imagebind_video", "synchformer_audio")  # always in float32
    batch = 1 if here.tiny else 4
    for name in ("vggish", "melgan") if here.tiny else JOBS:
        half = here.device.type == "cuda" and name not in judges
        dtype = torch.bfloat16 if half else torch.float32
        try:
            net = JOBS[name].build().to(here.device).eval()
            with torch.inference_mode(), torch.autocast(here.device.type, torch.bfloat16, enabled=half):
                seconds = timed(partial(JOBS[name].run, net, batch, here.device, False), here.device, 2)
            result = f"{batch / seconds:.3g} clips/s"
        except RuntimeError as error:  # too little memory for one of them says nothing about the next
            result = failed(error)
        yield f"{name}, {name_of(dtype)}, batch {batch}", result
    yield "matmul ceiling, float32", f"{ceiling(here.device, torch.float32) / 1e12:.3g} TFLOP/s"


def ranks(here: Here) -> Iterator[Row]:
    if here.device.type == "cuda" and torch.cuda.device_count() < 2:
        yield "two processes, NCCL", f"not run: {torch.cuda.device_count()} GPU"
        return
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launch, *command(WORKER, here)], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    yield from rows_of(done.stdout)


def worker(here: Here) -> Iterator[Row]:
    """One of two processes; both print the same."""
    from torch import distributed
    from training_step import Ours, made_up, timed

    cuda, batch = here.device.type == "cuda", 4 if here.tiny else 64
    ours = Ours(
        here.params, made_up(here.params, 4 * batch), batch, "bfloat16" if cuda else "float32", "never", here.device
    )
    for _ in range(3):
        ours.step()
    median = statistics.median(timed(ours.step, here.device) for _ in range(3 if here.tiny else 20))
    mine = torch.stack([value.detach().double().sum() for value in ours.fitting.objective.modules.parameters()])
    first = mine.clone()
    distributed.broadcast(first, 0)
    agree = torch.tensor(torch.equal(mine, first), device=here.device).int()
    distributed.all_reduce(agree, distributed.ReduceOp.MIN)
    backend, count = distributed.get_backend(), distributed.get_world_size()
    distributed.destroy_process_group()
    result = f"{1000 * median:.1f} ms a step; weights {'agree' if agree.item() else 'DIFFER'}"
    if os.environ["RANK"] == "0":
        yield f"control, {count} processes, {backend}, batch {batch}", result


def pipeline(here: Here) -> Iterator[Row]:
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        settings = yaml.safe_load((clone / "params.yaml").read_text(encoding="utf-8"))
        stages = list(yaml.safe_load((clone / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
        if here.tiny:
            settings["profiles"]["mini"]["world"] |= {"train_clips": 12, "val_clips": 12, "test_clips": 12}
            stages = stages[: stages.index("encoders")]
        settings["run"]["device"] = here.device.type
        (clone / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        begin = time.perf_counter()
        for stage in stages:  # one by one, so that a run that ends early has told something
            since = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "dvc", "repro", "--single-item", stage], cwd=clone,
                env=os.environ | {"PATH": path}, stdout=sys.stderr, check=True,
            )  # fmt: skip
            yield f"mini, stage {stage}", f"{time.perf_counter() - since:.0f} s"
        yield f"mini, these stages, run.device={here.device.type}", f"{time.perf_counter() - begin:.0f} s"
        if not here.tiny:
            ours = json.loads((clone / "metrics" / "scores.json").read_text(encoding="utf-8"))
            yield "mini, SpecMaskFoley", ", ".join(f"{name} {ours[name]:.3g}" for name in ("fad", "desync", "onset_f1"))


PARTS: dict[str, tuple[Callable[[Here], Iterator[Row]], float]] = {
    "tokens": (tokens, 1.0),
    "sampler": (sampler, 1.0),
    "training": (training, 2.0),
    "extractors": (extractors, 2.0),
    "ranks": (ranks, 1.0),
    "pipeline": (pipeline, 4.0),
}
"""Each part, and its share of what is left of the time."""


# ---------------------------------------------------------------------- what parts need


def networks(here: Here) -> tuple[Backbone, ControlBranch]:
    """Backbone and control branch of the profile's sizes; the branch acts as a trained one does."""
    torch.manual_seed(0)
    backbone = build_backbone(here.params).to(here.device).eval()
    control = build_control(backbone, here.params).to(here.device).eval()
    for linear in [control.zero_in, *control.zero_out]:
        nn.init.normal_(linear.weight, std=0.02)
    return backbone, control


def conditions(here: Here, batch: int) -> Condition:
    encoders = here.params.encoders
    shapes = (
        encoders.prompt.shape,
        (len(here.params.sync_features_s), encoders.sync.width),
        (encoders.semantic.width,),
    )
    return Condition(*(torch.randn(batch, *shape, device=here.device) for shape in shapes))


def plan_of(params: Params) -> list[dict]:
    steps = params.sample.steps_of(params.backbone.levels)
    return guidance_plan(params.cfg.mode, steps, params.cfg.scale, params.cfg.start, ramp=params.cfg.ramp)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def failed(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "").replace("|", r"\|")
    return f"FAILED: {type(error).__name__}: {first}"


# ---------------------------------------------------------------------- one process a part


def command(part: str, here: Here) -> list[str]:
    return [str(Path(__file__).resolve()), "--part", part, *(["--tiny"] if here.tiny else [])]


def rows_of(output: bytes) -> list[Row]:
    """The rows that a part printed, a line of JSON each."""
    lines = output.decode("utf-8", "replace").splitlines()
    return [tuple(json.loads(line)) for line in lines if line.startswith('["')]


def run_part(part: str, here: Here, limit_s: float) -> list[Row]:
    """A part in a process group of its own, ended when its time is over; the rows it gave until then."""
    with tempfile.TemporaryDirectory() as scratch:  # an ended part leaves its files there
        process = subprocess.Popen(
            [sys.executable, *command(part, here)], cwd=ROOT, env=os.environ | {"TMPDIR": scratch},
            stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        trouble = ""
        try:
            output, _ = process.communicate(timeout=limit_s)
            trouble = f"exit code {process.returncode}" if process.returncode else ""
        except subprocess.TimeoutExpired:
            trouble = f"not done after {limit_s:.0f} s"
            os.killpg(process.pid, signal.SIGTERM)
            try:
                output, _ = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
    rows = rows_of(output)
    return rows + ([(part, f"FAILED: {trouble}")] if trouble or not rows else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all parts together")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--part", choices=[*PARTS, WORKER], help=argparse.SUPPRESS)
    given = parser.parse_args()

    tiny = given.tiny or not torch.cuda.is_available()
    params = Params.load(ROOT / "params.yaml", "mini" if tiny else "vggsound")
    if tiny:
        params = params.model_copy(update={"sample": params.sample.model_copy(update={"steps": 3})})
    if given.part == WORKER and not tiny:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    here = Here(params, start(params), tiny)
    if given.part:
        measure = worker if given.part == WORKER else PARTS[given.part][0]
        try:
            for row in measure(here):
                print(json.dumps(row), flush=True)
        except Exception as error:
            traceback.print_exc()
            print(json.dumps([given.part, failed(error)]), flush=True)
        return
    print(f"{device_name(here.device)}, torch {torch.__version__}, {'tiny sizes' if tiny else 'sizes of vggsound'}\n")
    print("| part | measured | result |\n| --- | --- | --- |", flush=True)
    end = time.monotonic() + 60 * given.minutes
    for number, part in enumerate(given.only):
        share = PARTS[part][1] / sum(PARTS[other][1] for other in given.only[number:])
        for what, result in run_part(part, here, max(1.0, share * (end - time.monotonic()))):
            print(f"| {part} | {what} | {result} |", flush=True)


if __name__ == "__main__":
    main()
