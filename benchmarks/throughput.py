"""Clips a second and memory over many clips: sampling, vocoder and writing as in stage sample.

    python benchmarks/throughput.py [--clips 1000] [--batch N] [--alone]      # --alone: writing not overlapped

Needs the trained model of `dvc repro`; takes of its test clips follow each other. Memory is the process's resident set.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil

from specmaskfoley.device import start
from specmaskfoley.media.writing import write_audio
from specmaskfoley.sampling.generator import Generator
from specmaskfoley.sampling.synthesis import Overlap, Sounds, synthesise
from specmaskfoley.settings import Params


def write(sounds: Sounds, folder: Path, rate: int) -> None:
    for clip_id, waveform in zip(sounds.ids, sounds.waveform.numpy(), strict=True):
        write_audio(folder / f"{clip_id}.flac", waveform, rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--alone", action="store_true")
    given = parser.parse_args()
    params = Params.load("params.yaml")
    if given.batch:
        params = params.model_copy(update={"sample": params.sample.model_copy(update={"batch_size": given.batch})})
    generator = Generator(params, start(params))
    process, made, take, first = psutil.Process(), 0, 0, 0.0
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Overlap() as later:
        while made < given.clips:
            out = Path(folder) / f"{take}"
            for sounds in synthesise(generator, "specmaskfoley", take, params):
                task = partial(write, sounds, out, params.audio.sample_rate)
                if given.alone:
                    task()
                else:
                    later.run(task)
                made += len(sounds.ids)
            held = process.memory_info().rss / 2**20
            first = first or held
            seconds = time.perf_counter() - begin
            print(f"{made} clips, {made / seconds:.2f} a second, {held:.0f} MiB ({held - first:+.0f})", flush=True)
            take += 1


if __name__ == "__main__":
    main()
