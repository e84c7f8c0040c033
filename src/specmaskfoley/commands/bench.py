"""How long the way from a video file to one with sound takes on this machine, part by part; batch 1.

Shape letters: t sync frames, u semantic frames, d feature width, P prompt width.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specmaskfoley.encoders.features import Features
from specmaskfoley.media.frames import read_views
from specmaskfoley.media.writing import mux, write_audio
from specmaskfoley.sampling.generator import Generator
from specmaskfoley.settings import Params
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
"""What the paper's inference times measure: from features in memory to a waveform, one clip at a time."""


def bench(
    params: Params,
    device: torch.device,
    videos: Sequence[Path],
    *,
    runs: int,
    trained: bool = True,
    out: Path | None = None,
) -> list[str]:
    """Time every part `runs` times, after once to warm up; lines of a table.

    Args:
        videos: used in turn; none: the first test clips. Only their first window gets sound.
        trained: False takes new networks of the profile's sizes and noise in place of features: times depend on sizes
            alone, and can be measured before anything is trained or fetched. Only sampler and vocoder are timed.
        out: also write the numbers there.

    Raises:
        ValueError: the models are not trained yet, or there is no video.
    """
    generator = Generator(params, device, trained=trained)
    features = Features(params, device) if trained else None
    if trained and not videos:
        rows = ready_clips(params.paths.usable, "test")
        videos = [Path(row.path) for row in rows[:runs]]
    seconds: dict[str, list[float]] = {part: [] for part in (PARTS if trained else GENERATE)}
    with tempfile.TemporaryDirectory() as folder:
        for run in range(-1, runs):
            if features is None:
                spent = _generate(generator, _noise(params), run)[1]
            else:
                spent = _whole(generator, features, videos[run % len(videos)], Path(folder), run)
            for part, value in spent.items():
                if run >= 0:
                    seconds[part].append(value)
    report = _report(params, device, seconds, trained)
    if out is not None:
        write_json(out, report)
    return _lines(report)


def _whole(generator: Generator, features: Features, video: Path, folder: Path, run: int) -> dict[str, float]:
    """A video file to one with sound: seconds of each part."""
    spent: dict[str, float] = {}
    views = (features.sync_view, features.semantic_view)
    with _timed(spent, "decode", generator.device):
        frames = read_views(video, views)
    with _timed(spent, "encode", generator.device):
        sync, semantic = features.video(*(torch.from_numpy(frames[view])[None] for view in views))
        prompt = features.text_prompt([video.stem])
    waveform, generated = _generate(generator, (prompt.float(), sync.float(), semantic.float()), run)
    rate = generator.params.audio.sample_rate
    with _timed(spent, "mux", generator.device):
        write_audio(folder / "sound.flac", waveform, rate)
        mux(video, waveform, rate, folder / "sound.mp4")
    return spent | generated


def _generate(
    generator: Generator, features: tuple[Tensor, Tensor, Tensor], run: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Prompt (1, P), sync (1, t, d) and semantic (1, u, d) to a waveform; seconds of each part."""
    spent: dict[str, float] = {}
    prompt, sync, semantic = features
    with _timed(spent, "sample", generator.device):
        tokens = generator.tokens(prompt=prompt, sync=sync, semantic=semantic, seeds=[run + 1])
    with _timed(spent, "vocode", generator.device):
        waveform = generator.decode(tokens)[0].numpy()
    return waveform, spent


def _noise(params: Params) -> tuple[Tensor, Tensor, Tensor]:
    encoders = params.encoders
    return (
        torch.randn(1, encoders.prompt.width),
        torch.randn(1, params.num_sync_frames, encoders.sync.width),
        torch.randn(1, params.num_semantic_frames, encoders.semantic.width),
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
    params: Params, device: torch.device, seconds: Mapping[str, Sequence[float]], trained: bool
) -> dict[str, Any]:
    sums = {"generate": GENERATE} | ({"total": tuple(PARTS)} if trained else {})
    times = {**seconds, **{name: np.sum([seconds[part] for part in parts], axis=0) for name, parts in sums.items()}}
    cuda = device.type == "cuda"
    return {
        "profile": params.profile,
        "device": torch.cuda.get_device_name(device) if cuda else f"{platform.machine()} cpu",
        "threads": torch.get_num_threads(),
        "steps": params.sample.steps,
        "mode": params.cfg.mode,
        "sound_s": round(params.audio.token_duration_s, 3),
        "runs": len(times["generate"]),
        "seconds": {
            name: {"median": round(float(np.median(values)), 4), "p95": round(float(np.percentile(values, 95)), 4)}
            for name, values in times.items()
        },
    }


def _lines(report: Mapping[str, Any]) -> list[str]:
    names = PARTS | {"generate": "features to waveform", "total": "file to file"}
    head = (
        f"{report['profile']}: {report['sound_s']:.2f} s of sound, {report['mode']}, {report['steps']} steps, "
        f"{report['device']}, {report['threads']} threads, {report['runs']} runs"
    )
    lines = [head, f"{'':22}{'median':>9}{'p95':>9}{'of real time':>14}"]
    for name, title in names.items():
        if name in report["seconds"]:
            row = report["seconds"][name]
            share = row["median"] / report["sound_s"]
            lines.append(f"{title:22}{row['median']:>7.3f} s{row['p95']:>7.3f} s{share:>14.3f}")
    return lines
