"""How long the way from a video file to one with sound takes on this machine, part by part.

Shape letters: B clips, t sync frames, u semantic frames, d feature width, P prompt width.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specmaskfoley.device import device_name
from specmaskfoley.encoders.features import Features
from specmaskfoley.media.frames import read_views
from specmaskfoley.media.writing import mux, write_audio
from specmaskfoley.sampling.generator import Generator
from specmaskfoley.settings import Params, Sampling
from specmaskfoley.storage.files import write_json
from specmaskfoley.storage.tables import ready_clips

PARTS = {
    "decode": "video decode",
    "encode": "encoders",
    "sample": "sampler",
    "vocode": "codec and vocoder",
    "mux": "sound file and mux",
}
GENERATE = ("sample", "vocode")
"""What the paper's inference times measure: from features in memory to a waveform, at batch 1."""


def bench(
    params: Params,
    device: torch.device,
    videos: Sequence[Path],
    *,
    runs: int,
    batch: int = 1,
    sampling: Sampling | None = None,
    trained: bool = True,
    out: Path | None = None,
) -> list[str]:
    """Time every part `runs` times, after once to warm up; lines of a table.

    Args:
        videos: used in turn; none: the first test clips. Only their first window gets sound.
        batch: clips that go through each part together; decoding and muxing take one after the other.
        sampling: None: as params.yaml says. Every mode has text prompts, and encoders that see the video: its features
            are of the same size, whatever is in them or is done with them.
        trained: False takes new networks of the profile's sizes and noise in place of features: times depend on sizes
            alone, and can be measured before anything is trained or fetched. Only sampler and vocoder are timed.
        out: also write the numbers there.

    Raises:
        ValueError: the models are not trained yet, or there is no video.
    """
    sampling = sampling or params.sampling
    generator = Generator(params, device, trained=trained)
    features = Features(params, device) if trained else None
    if trained and not videos:
        rows = ready_clips(params.paths.usable, "test")
        videos = [Path(row.path) for row in rows[: runs * batch]]
    seconds: dict[str, list[float]] = {part: [] for part in (PARTS if trained else GENERATE)}
    with tempfile.TemporaryDirectory() as folder:
        for run in range(-1, runs):
            if features is None:
                spent = _generate(generator, _noise(params, batch), sampling)[1]
            else:
                taken = [videos[(run * batch + n) % len(videos)] for n in range(batch)]
                spent = _whole(generator, features, taken, Path(folder), sampling)
            for part, value in spent.items():
                if run >= 0:
                    seconds[part].append(value)
    report = _report(generator, sampling, batch, seconds)
    if out is not None:
        write_json(out, report)
    return _lines(report)


def _whole(
    generator: Generator, features: Features, videos: Sequence[Path], folder: Path, sampling: Sampling
) -> dict[str, float]:
    """B video files to files with sound: seconds of each part."""
    spent: dict[str, float] = {}
    views = (features.sync_view, features.semantic_view)
    with _timed(spent, "decode", generator.device):
        frames = [read_views(video, views) for video in videos]
    with _timed(spent, "encode", generator.device):
        sync, semantic = features.video(*(torch.from_numpy(np.stack([one[view] for one in frames])) for view in views))
        prompt = features.text_prompt([video.stem for video in videos])
    waveforms, generated = _generate(generator, (prompt.float(), sync.float(), semantic.float()), sampling)
    rate = generator.params.audio.sample_rate
    with _timed(spent, "mux", generator.device):
        for video, waveform in zip(videos, waveforms, strict=True):
            write_audio(folder / "sound.flac", waveform, rate)
            mux(video, waveform, rate, folder / "sound.mp4")
    return spent | generated


def _generate(
    generator: Generator, features: tuple[Tensor, Tensor, Tensor], sampling: Sampling
) -> tuple[np.ndarray, dict[str, float]]:
    """Prompt (B, P), sync (B, t, d) and semantic (B, u, d) to waveforms (B, S); seconds of each part."""
    spent: dict[str, float] = {}
    prompt, sync, semantic = features
    seeds = list(range(len(prompt)))
    with _timed(spent, "sample", generator.device):
        tokens = generator.tokens(prompt=prompt, sync=sync, semantic=semantic, seeds=seeds, sampling=sampling)
    with _timed(spent, "vocode", generator.device):
        waveforms = generator.decode(tokens).numpy()
    return waveforms, spent


def _noise(params: Params, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    encoders = params.encoders
    return (
        torch.randn(batch, *encoders.prompt.shape),
        torch.randn(batch, len(params.sync_features_s), encoders.sync.width),
        torch.randn(batch, params.num_semantic_frames, encoders.semantic.width),
    )


@contextmanager
def _timed(spent: dict[str, float], part: str, device: torch.device) -> Iterator[None]:
    """Store the seconds that a block takes; on CUDA, until the device has done its work."""
    begin = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    spent[part] = time.perf_counter() - begin


def _report(
    generator: Generator, sampling: Sampling, batch: int, seconds: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    sums = {"generate": GENERATE} | ({"total": tuple(PARTS)} if set(PARTS) <= set(seconds) else {})
    times = {**seconds, **{name: np.sum([seconds[part] for part in parts], axis=0) for name, parts in sums.items()}}
    return {
        "profile": generator.params.profile,
        "device": device_name(generator.device),
        "precision": generator.precision,
        "threads": torch.get_num_threads(),
        "steps": sampling.steps,
        "mode": sampling.mode,
        "batch": batch,
        "sound_s": round(generator.params.audio.token_duration_s, 3),
        "runs": len(times["generate"]),
        "seconds": {name: _summary(values) for name, values in times.items()},
        "seconds_per_clip": {name: _summary(np.asarray(values) / batch) for name, values in times.items()},
    }


def _summary(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    return {"median": round(float(np.median(values)), 4), "p95": round(float(np.percentile(values, 95)), 4)}


def _lines(report: Mapping[str, Any]) -> list[str]:
    steps = report["steps"]
    names = PARTS | {"generate": "features to waveform", "total": "file to file"}
    head = (
        f"{report['profile']}: {report['sound_s']:.2f} s of sound, {report['mode']}, "
        f"{steps if isinstance(steps, int) else '+'.join(map(str, steps))} steps, "
        f"batch {report['batch']}, {report['precision']}, {report['device']}, {report['runs']} runs"
    )
    lines = [head, f"{'':22}{'median':>9}{'p95':>9}{'a clip':>9}{'of real time':>14}"]
    for name, title in names.items():
        if name in report["seconds"]:
            row, clip = report["seconds"][name], report["seconds_per_clip"][name]["median"]
            share = clip / report["sound_s"]
            lines.append(f"{title:22}{row['median']:>7.3f} s{row['p95']:>7.3f} s{clip:>7.3f} s{share:>14.3f}")
    return lines
