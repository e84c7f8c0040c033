"""Speed of every official network on 10 s clips: python benchmarks/extractors.py [NAMES] [--precision bfloat16]

For each: clips a second, what it computes (counted by torch, in 10^12 floating-point operations a clip), and the share
of the machine's matmul ceiling, which is measured first. Weights are random: they change no time. --quick runs a part
of what is long (CLIP: 8 of 80 frames, Synchformer: 6 of 30 segments, ImageBind: 1 of 4 frame pairs) and scales it up.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from specmaskfoley.codec.trained import build_codec
from specmaskfoley.encoders.clap import ClapEncoder
from specmaskfoley.encoders.clip import ClipEncoder
from specmaskfoley.encoders.synchformer import Synchformer, SynchformerEncoder
from specmaskfoley.judges.imagebind import ImageBind
from specmaskfoley.judges.passt import PaSST
from specmaskfoley.judges.vggish import VGGish
from specmaskfoley.settings import Params
from specmaskfoley.vocoders.bigvgan import BigVGAN
from specmaskfoley.vocoders.hifigan import HiFiGAN
from specmaskfoley.vocoders.melgan import MelGAN

PARAMS = Params.from_mapping(yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")) | {"profile": "vggsound"})
CEILING_SIDE = {"cpu": 2048, "cuda": 8192}


@dataclass(frozen=True)
class Job:
    """A network, what it is asked to do with a batch of clips, and the share of a clip that this is."""

    build: Callable[[], nn.Module]
    run: Callable[[Any, int, torch.device, bool], object]
    quick_share: float = 1.0


def clap() -> ClapEncoder:
    """With a tokenizer of four tokens: only the audio tower is timed."""
    tokens = {token: index for index, token in enumerate(("<s>", "<pad>", "</s>", "<unk>", "<mask>"))}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(tokens))
        Path(folder, "merges.txt").write_text("#version: 0.2\n")
        Path(folder, "config.json").write_text(json.dumps({"vocab_size": len(tokens)}))
        return ClapEncoder(folder)


def frames(batch: int, count: int, size: int, device: torch.device) -> torch.Tensor:
    return torch.randint(256, (batch, count, size, size, 3), dtype=torch.uint8, device=device)


def wave(batch: int, rate: int, device: torch.device) -> torch.Tensor:
    return torch.rand(batch, 10 * rate, device=device) * 0.2 - 0.1


def pairs(batch: int, count: int, device: torch.device) -> torch.Tensor:
    return torch.rand(batch, 3, count, 3, 224, 224, device=device)


def mel(batch: int, device: torch.device) -> torch.Tensor:
    return torch.rand(batch, 80, 848, device=device)


JOBS: dict[str, Job] = {
    "synchformer_video": Job(
        SynchformerEncoder, lambda net, n, d, quick: net(frames(n, 56 if quick else 250, 224, d)), 6 / 30
    ),
    "clip": Job(ClipEncoder, lambda net, n, d, quick: net(frames(n, 8 if quick else 80, 384, d)), 8 / 80),
    "clap_audio": Job(clap, lambda net, n, d, quick: net.embed_audio(wave(n, 48000, d))),
    "codec_encode": Job(lambda: build_codec(PARAMS), lambda net, n, d, quick: net.tokens(mel(n, d)[:, None])),
    "codec_decode": Job(
        lambda: build_codec(PARAMS),
        lambda net, n, d, quick: net.decode(torch.zeros(n, 5, 53, dtype=torch.int64, device=d)),
    ),
    "hifigan": Job(HiFiGAN, lambda net, n, d, quick: net(mel(n, d))),
    "bigvgan": Job(BigVGAN, lambda net, n, d, quick: net(mel(n, d)[..., : 106 if quick else 848]), 106 / 848),
    "melgan": Job(MelGAN, lambda net, n, d, quick: net(mel(n, d))),
    "passt": Job(PaSST, lambda net, n, d, quick: net(wave(n, 32000, d))),
    "vggish": Job(VGGish, lambda net, n, d, quick: net(wave(n, 16000, d))),
    "imagebind_audio": Job(ImageBind, lambda net, n, d, quick: net.encode_audio(wave(n, 16000, d))),
    "imagebind_video": Job(ImageBind, lambda net, n, d, quick: net.encode_video(pairs(n, 2 if quick else 5, d)), 1 / 4),
    "synchformer_audio": Job(Synchformer, lambda net, n, d, quick: net.encode_audio(wave(n, 16000, d))),
}


def timed(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Best of some runs, in seconds, after one to warm up."""
    run()
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return best


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of one large matrix product."""
    side = CEILING_SIDE[device.type]
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    return 2 * side**3 / timed(lambda: a @ b, device, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(JOBS)}; none: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", type=int, default=1, help="clips at once")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - set(JOBS):
        parser.error(f"{', '.join(sorted(unknown))}: choose of {', '.join(JOBS)}")
    device, dtype = torch.device(options.device), getattr(torch, options.precision)
    top = ceiling(device, dtype)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{name}, {options.precision}, batch {options.batch}: matmul ceiling {top / 1e12:.3g} TFLOP/s\n")
    print("| network | s a clip | clips/s | TFLOP a clip | share of ceiling |\n| --- | ---: | ---: | ---: | ---: |")
    for job_name in options.names or JOBS:
        job = JOBS[job_name]
        share = job.quick_share if options.quick else 1.0
        net = job.build().to(device).eval()
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype != torch.float32):

            def run(job: Job = job, net: nn.Module = net) -> object:
                return job.run(net, options.batch, device, options.quick)

            seconds = timed(run, device, options.repeats) / options.batch / share
            with FlopCounterMode(display=False) as counter:
                run()
        work = counter.get_total_flops() / options.batch / share
        print(
            f"| {job_name} | {seconds:.3g} | {1 / seconds:.3g} | {work / 1e12:.3g} | {work / seconds / top:.0%} |",
            flush=True,
        )
        del net


if __name__ == "__main__":
    main()
