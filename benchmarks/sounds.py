"""What sounds without picture cost (stage audio, less its networks): python benchmarks/sounds.py [--files N]

First 10 s of stereo noise in three formats: processor time of inspection, and of reading for codec and CLAP. Then the
listing of many files that were all inspected before: what every run of the stage takes, and its memory. Processor time
is told, which other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from specmaskfoley.clips import inspection, sounds
from specmaskfoley.media.clips import model_sound, read_clip
from specmaskfoley.media.sound import Sound
from specmaskfoley.settings import Params
from specmaskfoley.storage.store import Store
from specmaskfoley.storage.tables import LEDGER_SCHEMA, write_table

RATE, SECONDS, COPIES = 44_100, 10, 8
CODECS = {".flac": "flac", ".mp3": "libmp3lame", ".m4a": "aac"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    options = parser.parse_args()
    params = Params.load("params.yaml", "vggsound")
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        os.environ["DVC_ROOT"] = scratch
        for suffix, codec in CODECS.items():
            cost(Path(f"noise{suffix}"), codec, params)
        many(options.files, params)


def cost(path: Path, codec: str, params: Params) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (2, SECONDS * RATE)).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray((noise.T.reshape(1, -1) * 32767).astype(np.int16), "s16", "stereo")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    heard = (model_sound(params), Sound(48_000, 480_000))  # CLAP's
    demands = inspection.demands(params)
    inspected = processor_s(lambda: sounds.inspect_sound(str(path), demands=demands))
    read = processor_s(lambda: read_clip(path, (), heard))
    print(f"{SECONDS} s of {path.suffix}: inspected in {inspected:.3f}, read in {read:.3f} core-s", flush=True)


def processor_s(work: Callable[[], object]) -> float:
    """Seconds of one call; imports and caches are warmed by a first."""
    work()
    began = time.process_time()
    for _ in range(COPIES):
        work()
    return (time.process_time() - began) / COPIES


def many(files: int, params: Params) -> None:
    """Files with invented findings of 10 s each."""
    folder = Path("many").absolute()
    settings = params.model_copy(update={"data": params.data.model_copy(update={"audio": (str(folder),)})})
    write_table(params.paths.ledger, [], LEDGER_SCHEMA)
    with sounds._kept(settings) as store:
        for number in range(files):
            invent(folder / f"{number % 1000:03d}" / f"Y{number:011d}.flac", number, store, settings)
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parts = sounds.inspect_sounds(settings)
    write_table(params.paths.audio_ledger, [part.row for part in parts], LEDGER_SCHEMA)
    took = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    print(f"{len(parts)} sounds known from before: ledger in {took:.1f} core-s, {grown:.2f} GB more than before")


def invent(path: Path, number: int, store: Store, params: Params) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    findings = {
        "state": "ready",
        "reason": "",
        "size_bytes": 0,
        "sha256": f"{number:064x}",
        "decoder": inspection.decoder_version(),
        "duration_s": 10.0,
        "audio_rate": RATE,
        "audio_channels": 2,
        "audio_start_s": 0.0,
        "parts": [{"start_s": 0.0, "padded_s": 0.0, "state": "ready", "reason": ""}],
    }
    entry = {"version": inspection._version(str(path)), "limits": inspection._limits(params), "findings": findings}
    store.put({str(path): entry})


if __name__ == "__main__":
    main()
