"""Whether takes can be chosen before they are finished, by what their tokens would be after some of the steps.

    python benchmarks/choosing.py [--windows 1] [--clips 48] [--drafts 16] [--out FILE]
    python benchmarks/choosing.py --times       # processor time of a step, and of judging a draft
    python benchmarks/choosing.py --paper       # the same in operations, at the paper's size

Needs the model that `dvc repro` trains. Of every unseen clip of the world all drafts are made to their end, and each
is looked at after some steps of its first window: a masked token gets the code that this step drew (`drawn`), its
likeliest (`likely`), or the likeliest by the guidance of the last step (`guided`, from the same passes). The judges of
`generate --candidates` score these sounds and the finished ones. Prints how well the former order the latter, and what
is chosen at equal numbers of steps, as the mean of 200 random choices of the drafts, with 95 % intervals over clips.
--out keeps the scores; where the file is there, they are read from it.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from specmaskfoley.backbone.layers import take as rows_of
from specmaskfoley.backbone.role import Inputs
from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.clips.world import render_clip
from specmaskfoley.codec.trained import build_codec
from specmaskfoley.control.trained import build_control
from specmaskfoley.encoders.synchformer import Synchformer
from specmaskfoley.foley import Foley, Take
from specmaskfoley.foley.choosing import judge
from specmaskfoley.foley.levels import level_of
from specmaskfoley.judges.imagebind import ImageBind
from specmaskfoley.media.writing import write_video
from specmaskfoley.metrics.onsets import detect_onsets, onset_f1
from specmaskfoley.sampling.fast import Sampler
from specmaskfoley.settings import NeuralVocoder, Params
from specmaskfoley.vocoders.trained import build_vocoder

KINDS = ("drawn", "likely", "guided")
DRAWS = 200
SILENT = 10.0
"""What a nearly silent sound loses, far more than scores differ, so that it comes last; tables show scores without."""


class Watched(Sampler):
    """Keeps, for every window that begins from nothing, the tokens as they would be `after` some steps."""

    calls: int
    after: tuple[int, ...]
    seen: list[dict[tuple[str, int], Tensor]]
    _step = 0

    def _decode(self, given: Any, decoding: Any, passes: Any, fresh: bool, before_step: Any = None) -> Tensor:
        def note(index: int) -> None:
            self._step = index + 1 if fresh else 0
            before_step(index)

        self.calls += 1
        if fresh:
            self.seen.append({})
        return super()._decode(given, decoding, passes, fresh, note)

    def _logits(self, given: Any, tokens: Tensor, at: Tensor, step: Any, passes: Any, weights: Tensor) -> Tensor:
        logits = super()._logits(given, tokens, at, step, passes, weights)
        if self._step in self.after:
            noise = rows_of(given.deciding[0][self._step - 1], at)
            last = super()._logits(given, tokens, at, step, passes, given.weights[-1])
            for kind, found in zip(KINDS, (logits.log_softmax(-1) + noise, logits, last), strict=True):
                self.seen[-1][kind, self._step] = tokens.scatter(1, at, found.argmax(-1))[0]
        return logits


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--windows", type=int, default=1, help="length of the videos, in lengths of the training clips")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--drafts", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--after", type=int, nargs="+", default=[2, 4, 6, 8, 10], help="steps")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--paper", action="store_true")
    arguments = parser.parse_args()
    if arguments.paper:
        return count_operations(arguments.params)
    if arguments.out is not None and arguments.out.exists():
        return print_tables(dict(np.load(arguments.out)))
    foley = Foley.load(arguments.params)
    torch.set_num_threads(1)
    if arguments.times:
        return measure_times(foley, arguments.drafts)
    for found in measure(foley, arguments):
        print(f"{len(found['overall'])} clips, {time.process_time():.0f} s of processor time", flush=True)
        if arguments.out is not None:
            np.savez(arguments.out, **found)
    print_tables(found)


def measure(foley: Foley, arguments: argparse.Namespace) -> Iterator[dict[str, np.ndarray]]:
    """After each clip overall and onset_f1 (clips, drafts) of finished takes, and early (clips, kinds, after, drafts).

    Where there are several windows, the last of `after` is the finished first window.
    """
    params, sampler = foley.params, foley.generator.sampler
    sampler.__class__ = Watched
    assert isinstance(sampler, Watched)
    sampler.after, (steps,) = tuple(arguments.after), params.sampling.steps_of(1)
    overall: list[list[float]] = []
    onsets, early = [], []
    with tempfile.TemporaryDirectory() as folder:
        video, index = Path(folder) / "clip.mp4", 0
        while len(overall) < arguments.clips:
            clip = render(foley, video, arguments.windows, arguments.seed, index)
            index += 1
            if not clip.events:
                continue
            sampler.seen, sampler.calls = [], 0
            takes = foley.generate(video, text=clip.label, candidates=arguments.drafts)
            takes = sorted(takes, key=lambda take: take.seed)
            scores = [take.scores or {} for take in takes]
            overall.append(
                [one["overall"] - SILENT * take.level.nearly_silent for one, take in zip(scores, takes, strict=True)]
            )
            onsets.append([onsets_of(foley, take, clip.events) for take in takes])
            columns = params.grid.columns
            for seen, take in zip(sampler.seen, takes, strict=True):
                if arguments.windows > 1:
                    whole = torch.from_numpy(take.tokens[:, :columns].copy())
                    seen |= {(kind, steps): whole for kind in arguments.kinds}
            after = sorted({step for _, step in sampler.seen[0]})
            early.append(
                [
                    [score(foley, video, torch.stack([seen[kind, step] for seen in sampler.seen])) for step in after]
                    for kind in arguments.kinds
                ]
            )
            yield {
                "overall": np.array(overall), "onset_f1": np.array(onsets), "early": np.array(early),
                "kinds": np.array(arguments.kinds), "after": np.array(after), "steps": np.array(steps),
                "windows": np.array(sampler.calls // arguments.drafts),
            }  # fmt: skip


def render(foley: Foley, video: Path, windows: int, seed: int, index: int) -> Any:
    """Write an unseen clip, of whole frames that fit into so many lengths of the training clips."""
    fps = foley.params.world.fps
    length = int(foley.params.audio.token_duration_s * fps) / fps
    clip = render_clip(
        seed=seed, split=f"choosing {windows}", index=index, duration_s=windows * length, fps=fps,
        sample_rate=foley.params.audio.sample_rate,
    )  # fmt: skip
    write_video(video, clip.frames, clip.fps)
    return clip


def onsets_of(foley: Foley, take: Take, events: tuple[float, ...]) -> float:
    found = detect_onsets(take.waveform, take.sample_rate).tolist()
    return onset_f1(events, found, foley.params.evaluate.onset_tolerance_s)


def score(foley: Foley, video: Path, tokens: Tensor) -> list[float]:
    """overall of drafts of the first window, (D, F * T) or (D, F, T)."""
    audio, grid = foley.params.audio, foley.params.grid
    waves = foley.generator.decode(tokens.view(-1, grid.rows, grid.columns)).numpy()
    scores = judge(foley.judges, video, audio.token_duration_s, [(wave, audio.sample_rate) for wave in waves])
    silent = [level_of(wave, audio.sample_rate).nearly_silent for wave in waves]
    return [one["overall"] - SILENT * quiet for one, quiet in zip(scores, silent, strict=True)]


def print_tables(found: dict[str, np.ndarray]) -> None:
    overall, onsets, early = found["overall"], found["onset_f1"], found["early"]
    kinds, after, steps, windows = found["kinds"], found["after"].tolist(), int(found["steps"]), int(found["windows"])
    whole = windows * steps - 1  # the first step of the first window is the same for all
    clips, pool = overall.shape
    print(f"{clips} clips, {pool} drafts each, {windows} windows: {whole} steps a take\n")
    print("rank correlation, mean over clips, of `overall` of drafts with that of finished takes, and with onset F1\n")
    print(f"| draft | {' | '.join(f'step {step}' for step in after)} |\n| --- |{' ---: |' * len(after)}")
    for target, name in ((overall, "overall"), (onsets, "onset F1")):
        for number, kind in enumerate(kinds):
            cells = [correlation(early[:, number, at], target) for at in range(len(after))]
            print(f"| {kind}, {name} | {' | '.join(cells)} |")
    print(f"| finished take, onset F1 | {correlation(overall, onsets)} |\n")
    print("| chosen | steps | onset F1 | difference to the best of K | overall | difference |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    rng = np.random.default_rng(0)
    print(row("random", whole, choose(overall, overall, onsets, 1, 1, rng)))
    for count in (2, 4, 8):
        best = choose(overall, overall, onsets, count, count, rng)
        oracle = choose(onsets, onsets, onsets, count, 1, rng)[0]
        print(row(f"best of {count}", count * whole, best))
        print(row(f"of {count}, the best onset F1", count * whole, (oracle, np.full(clips, np.nan))))
        for at, step in enumerate(after):
            for kept in (1, 2, 4):
                drafts = min(pool, (count * whole - kept * (whole - step + 1)) // (step - 1))
                if drafts <= kept:
                    continue
                for number, kind in enumerate(kinds):
                    made = choose(early[:, number, at], overall, onsets, drafts, kept, rng)
                    spent = drafts * (step - 1) + kept * (whole - step + 1)
                    print(row(f"{kept} of {drafts} drafts after step {step}, {kind}", spent, made, best))


def choose(
    early: np.ndarray, overall: np.ndarray, onsets: np.ndarray, drafts: int, kept: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Onset F1 and overall (clips,) of the take that comes first: of the `kept` best drafts the best finished one."""
    clips, pool = overall.shape
    rows = np.arange(clips)[:, None]
    plain, sums = np.where(overall < -SILENT / 2, overall + SILENT, overall), np.zeros((2, clips))
    for _ in range(DRAWS):
        drawn = rng.permuted(np.tile(np.arange(pool), (clips, 1)), axis=1)[:, :drafts]
        best = np.take_along_axis(drawn, np.argsort(-early[rows, drawn], axis=1)[:, :kept], axis=1)
        first = best[rows[:, 0], (overall[rows, best].argmax(1) if kept > 1 else 0)]
        sums += onsets[rows[:, 0], first], plain[rows[:, 0], first]
    return sums[0] / DRAWS, sums[1] / DRAWS


def row(
    name: str, steps: int, made: tuple[np.ndarray, np.ndarray], best: tuple[np.ndarray, np.ndarray] | None = None
) -> str:
    cells = []
    for number, values in enumerate(made):
        cells += [f"{values.mean():.3f}", "" if best is None else interval(values - best[number])]
    return f"| {name} | {steps} | {' | '.join(cells)} |"


def interval(values: np.ndarray) -> str:
    return f"{values.mean():+.3f} ± {1.96 * values.std(ddof=1) / len(values) ** 0.5:.3f}"


def correlation(early: np.ndarray, late: np.ndarray) -> str:
    """Of (clips, drafts), over the clips whose drafts differ."""
    pairs = [(one, other) for one, other in zip(early, late, strict=True) if np.ptp(one) > 0 and np.ptp(other) > 0]
    return f"{np.mean([spearmanr(*pair).statistic for pair in pairs]):.2f}"


def measure_times(foley: Foley, drafts: int) -> None:
    """Print milliseconds of processor time, one thread, medians of `drafts` runs."""
    audio, (steps,) = foley.params.audio, foley.params.sampling.steps_of(1)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "clip.mp4"
        clip = render(foley, video, 1, 0, 0)
        marks: list[float] = []
        takes = [
            foley.generate(video, text=clip.label, seed=seed, progress=lambda *_: marks.append(time.process_time()))[0]
            for seed in range(drafts)
        ]
        tokens = torch.from_numpy(takes[0].tokens[None].copy())
        sound = takes[0].waveform, audio.sample_rate
        print(f"a guided step: {1e3 * np.median(np.diff(marks)):.1f} ms, of {steps - 1} in a window")
        print(f"draft to sound: {timed(lambda: foley.generator.decode(tokens), drafts):.1f} ms")
        one, two = (
            timed(partial(judge, foley.judges, video, audio.token_duration_s, [sound] * count), drafts)
            for count in (1, 2)
        )
        print(f"judging a sound: {two - one:.1f} ms; looking at the video, once: {2 * one - two:.1f} ms")


def timed(run: Callable[[], object], runs: int) -> float:
    """Median milliseconds of processor time."""
    spent = []
    for _ in range(runs):
        begin = time.process_time()
        run()
        spent.append(time.process_time() - begin)
    return 1e3 * float(np.median(spent))


def count_operations(path: str) -> None:
    """Print TFLOP at the paper's size, counted on networks that take no memory."""
    params = Params.load(path, profile="vggsound")
    audio, grid = params.audio, params.grid
    with torch.device("meta"), torch.no_grad():
        backbone, codec = build_backbone(params), build_codec(params)
        control = build_control(backbone, params)
        tokens = torch.zeros(1, grid.rows, grid.columns, dtype=torch.int64)
        x = torch.zeros(1, grid.size, params.backbone.width)
        inputs = Inputs(x, [None] * params.backbone.depth, 0)
        operations(
            "a guided step", lambda: (backbone(inputs), *(backbone(inputs, control(inputs, x)) for _ in range(2)))
        )
        operations("codec, tokens to mel", lambda: codec.decode(tokens))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        hifigan = build_vocoder(NeuralVocoder(kind="hifigan", weights="hifigan"), params)
        mel = torch.zeros(1, audio.num_mels, audio.num_frames)
        operations("HiFi-GAN, mel to sound", lambda: hifigan(mel))
        imagebind, wave = ImageBind(), torch.zeros(1, int(16000 * audio.duration_s))
        operations("ImageBind, of a sound", lambda: imagebind.encode_audio(wave))
    synchformer, wave = Synchformer(), torch.zeros(1, int(16000 * audio.duration_s))
    with torch.no_grad():
        operations("Synchformer, of a sound", lambda: synchformer.encode_audio(wave))


def operations(name: str, run: Callable[[], object]) -> None:
    with FlopCounterMode(display=False) as counter:
        run()
    print(f"{name}: {counter.get_total_flops() / 1e12:.2f} TFLOP", flush=True)


if __name__ == "__main__":
    main()
