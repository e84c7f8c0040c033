"""What words do in `mini`: what is not to be heard, parts of a sound, a sound to be like, and sound without a video.

    python benchmarks/words.py [TABLE ...] [--split val] [--takes 3] [--threads 1]   # default: all tables, one take

Needs the trained model of `dvc repro`. The tagger of the judges, which steers nothing, says what is heard. In brackets
are 95 % intervals of the mean: bootstrap over clips. `the other` is a label at random that is not the clip's. Onset F1
is of clips with events.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.special import softmax

from specmaskfoley.clips.world import LABELS, render_clip
from specmaskfoley.foley import Foley, Take
from specmaskfoley.foley.prompts import Prompt, embed
from specmaskfoley.judges.mini_panel import MiniPanel
from specmaskfoley.media.sound import read_audio
from specmaskfoley.media.writing import write_video
from specmaskfoley.metrics.onsets import HOP_S, detect_onsets, onset_f1, onset_strength
from specmaskfoley.sampling.generator import clip_seed
from specmaskfoley.storage.tables import read_arrays, ready_clips

SCALES = (0.5, 1.0, 2.0)
PAIRS, PAIRS_SEEN = 36, 24
"""Sounds of two parts, without a video and with one."""
NEAR_S, APART_S = 0.025, 0.1


@dataclass(frozen=True)
class Clip:
    clip_id: str
    path: str
    label: str
    other: str
    """A label that does not belong to it."""
    events: tuple[float, ...]


class Bench:
    """The model, the clips of a split with their features, and the tagger."""

    def __init__(self, split: str, takes: int) -> None:
        self.foley, self.takes = Foley.load("."), takes
        params = self.foley.params
        assert isinstance(self.foley.judges, MiniPanel)
        self.panel = self.foley.judges
        self.labels = self.panel.texts
        rows = {row.clip_id: row for row in ready_clips(params.paths.usable, split)}
        ids, arrays = read_arrays(params.paths.features, split, ["sync", "semantic"])
        self.sync, self.semantic = (torch.from_numpy(arrays[name]).float() for name in ("sync", "semantic"))
        until, self.rng = params.audio.token_duration_s, np.random.default_rng(0)
        self.clips = [
            Clip(
                one, str(rows[one].path), rows[one].label, self.others(rows[one].label, 1)[0],
                tuple(event for event in rows[one].events or () if event < until),
            )
            for one in ids
        ]  # fmt: skip

    def others(self, label: str, count: int) -> list[str]:
        """Labels that are not this one."""
        return list(self.rng.choice([one for one in self.labels if one != label], count, replace=False))

    def sounds(
        self, mode: str, prompts: Sequence[Prompt], negative_scale: float = 0.0, seen: bool = True
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Number of the clip, and a sound (samples,) for it; all takes of all clips.

        Args:
            prompts: of every clip.
            seen: whether its video steers the sound.
        """
        foley, size = self.foley, self.foley.params.sample.batch_size
        embedded = [embed(prompt, foley.features) for prompt in prompts]
        prompt = torch.cat([one for one, _ in embedded])
        negative = None
        if negative_scale:
            negative = torch.stack([one for _, one in embedded if one is not None])
        for take in range(self.takes):
            how = foley.params.sampling.changed(mode=mode, seed=take, negative_scale=negative_scale)
            for first in range(0, len(prompts), size):
                rows = slice(first, first + size)
                tokens = foley.generator.tokens(
                    prompt=prompt[rows],
                    negative=None if negative is None else negative[rows],
                    sync=self.sync[rows] if seen else None,
                    semantic=self.semantic[rows] if seen else None,
                    seeds=[clip_seed(take, clip.clip_id) for clip in self.clips[rows]],
                    sampling=how,
                )
                yield from enumerate(foley.generator.decode(tokens).numpy(), start=first)

    def tag(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities (n, labels) of sounds as long as the token grid."""
        found = []
        for first in range(0, len(waves), self.panel.batch_size):
            batch = torch.from_numpy(np.stack(waves[first : first + self.panel.batch_size]))
            found.append(self.panel.hear({self.panel.sound: batch}).logits)
        return np.asarray(softmax(np.concatenate(found).astype(np.float64), axis=1))

    def chance_of(self, probabilities: np.ndarray, wanted: Sequence[str]) -> np.ndarray:
        """(n,) of the label wanted in each."""
        return probabilities[np.arange(len(wanted)), [self.labels.index(label) for label in wanted]]

    def onsets(self, wave: np.ndarray, clip: Clip) -> float:
        if not clip.events:
            return np.nan
        found = detect_onsets(wave, self.foley.params.audio.sample_rate)
        return onset_f1(clip.events, found.tolist(), self.foley.params.evaluate.onset_tolerance_s)

    def measured(self, *how: object, **more: object) -> dict[str, np.ndarray]:
        """Of every clip, the mean over takes: chances of its label and of the other, whether one of them is what the
        tagger hears, and onset F1."""
        numbers, waves = zip(*self.sounds(*how, **more), strict=True)  # type: ignore[arg-type]
        clips, heard = [self.clips[number] for number in numbers], self.tag(waves)
        top = heard.argmax(1)
        found = {
            "seen": self.chance_of(heard, [clip.label for clip in clips]),
            "other": self.chance_of(heard, [clip.other for clip in clips]),
            "is seen": np.array([self.labels[which] == clip.label for which, clip in zip(top, clips, strict=True)]),
            "is other": np.array([self.labels[which] == clip.other for which, clip in zip(top, clips, strict=True)]),
            "onset F1": np.array([self.onsets(wave, clip) for wave, clip in zip(waves, clips, strict=True)]),
        }
        return {name: values.reshape(self.takes, -1).mean(0) for name, values in found.items()}


def shown(values: np.ndarray) -> str:
    """The mean and its 95 % interval."""
    values = values[np.isfinite(values)].astype(np.float64)
    draws = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def head(*cells: str) -> None:
    print()
    row(*cells)
    row("---", *["---:"] * (len(cells) - 1))


def negative(bench: Bench) -> None:
    """With the video: what its label, or another, as what is not to be heard does."""
    head(
        "text", "not to be heard", "weight", "p(what is seen)", "heard as it", "p(the other)", "onset F1", "its change"
    )
    for mode, text, unwanted, scales in (
        ("no_text_video", "", "label", SCALES),
        ("no_text_video", "", "other", [1.0]),
        ("multi", "label", "other", [1.0]),
        ("multi", "other", "label", SCALES),
    ):
        plain: dict[str, np.ndarray] = {}
        for scale in (0.0, *scales):
            prompts = [
                Prompt.of(getattr(clip, text) if text else "", negative=getattr(clip, unwanted)) for clip in bench.clips
            ]
            found = bench.measured(mode, prompts, scale)
            plain = plain or found
            names = {"": "none", "label": "its label", "other": "the other label"}
            row(
                names[text], names[unwanted], f"{scale:g}",
                *(shown(found[name]) for name in ("seen", "is seen", "other", "onset F1")),
                shown(found["onset F1"] - plain["onset F1"]) if scale else "",
            )  # fmt: skip


def like(bench: Bench) -> None:
    """The other label: nothing, its words, or the sound of another clip of it."""
    by_label: dict[str, list[str]] = {}
    for clip in bench.clips:
        by_label.setdefault(clip.label, []).append(clip.path)
    given: dict[str, Callable[[int, Clip], Prompt]] = {
        "nothing": lambda number, clip: Prompt.of(),
        "its words": lambda number, clip: Prompt.of(clip.other),
        "a sound of it": lambda number, clip: Prompt.of(
            like=by_label[clip.other][number % len(by_label[clip.other])]
        ),
    }  # fmt: skip
    head("another label by", "with", "p(it)", "heard as it", "p(what is seen)", "onset F1")
    for name, make in given.items():
        prompts = [make(number, clip) for number, clip in enumerate(bench.clips)]
        for seen, mode in ((True, "multi"), (False, "text")):
            if name == "nothing" and not seen:
                continue
            found = bench.measured(mode if name != "nothing" else "no_text_video", prompts, seen=seen)
            row(
                name, "the video" if seen else "no video", shown(found["other"]), shown(found["is other"]),
                *((shown(found["seen"]), shown(found["onset F1"])) if seen else ("", "")),
            )  # fmt: skip


def alone(bench: Bench) -> None:
    """Sound from words alone, beside the true sounds."""
    prompts = [Prompt.of(clip.label) for clip in bench.clips]
    found = bench.measured("text", prompts, seen=False)
    sound = bench.panel.sound
    waves = [
        read_audio(clip.path, sample_rate=sound.sample_rate, num_samples=sound.num_samples) for clip in bench.clips
    ]
    heard = bench.tag(waves)
    true = bench.chance_of(heard, [clip.label for clip in bench.clips])
    hits = [bench.labels[top] == clip.label for top, clip in zip(heard.argmax(1), bench.clips, strict=True)]
    head("words alone", "p(it)", "heard as it")
    row("true sounds", shown(true), shown(np.array(hits)))
    row(f"all {len(bench.labels)} labels", shown(found["seen"]), shown(found["is seen"]))
    for label in bench.labels:
        own = np.array([clip.label == label for clip in bench.clips])
        row(label, f"{found['seen'][own].mean():.2f}", f"{found['is seen'][own].mean():.2f}")


def parts(bench: Bench) -> None:
    """Two halves with a text each, of sounds of two windows' length."""
    audio = bench.foley.params.audio
    border = audio.token_duration_s
    head("two halves", "texts", "heard as its own", "p(its own)", "p(the other half's)", "louder at the border")
    for seen, count in ((False, PAIRS), (True, PAIRS_SEEN)):
        with tempfile.TemporaryDirectory() as folder:
            rows: dict[str, list[tuple[Take, str, str]]] = {}
            for number in range(count):
                shown_label = LABELS[number % len(LABELS)]
                first, second = bench.others(shown_label, 2)
                video = film(bench.foley, Path(folder), number, 2 * border) if seen else None
                halves = [(0.0, border, first), (border, 3 * border, second)]
                given: dict[str, dict[str, Any]] = {
                    "one for each half": {"text": halves}, "both for all": {"text": f"{first} and {second}"},
                }  # fmt: skip
                if seen:
                    given["one for each half, without what is seen"] = {"text": halves, "negative": shown_label}
                for name, said in given.items():
                    length = None if seen else 2 * border
                    take = bench.foley.generate(video, duration_s=length, seed=number, **said)[0]
                    rows.setdefault(name, []).append((take, first, second))
            for name, made in rows.items():
                row("with another video" if seen else "no video", name, *heard_in_halves(bench, made, border))


def film(foley: Foley, folder: Path, number: int, duration_s: float) -> Path:
    """A video of the world, with the labels by turns."""
    fps = foley.params.world.fps
    clip = render_clip(
        seed=0, split="words", index=number, duration_s=int(duration_s * fps) / fps, fps=fps,
        sample_rate=foley.params.audio.sample_rate,
    )  # fmt: skip
    write_video(folder / f"{number}.mp4", clip.frames, clip.fps)
    return folder / f"{number}.mp4"


def heard_in_halves(bench: Bench, made: Sequence[tuple[Take, str, str]], border: float) -> Iterator[str]:
    size = bench.foley.params.audio.num_samples
    waves = []
    for take, _, _ in made:
        wave = np.asarray(take.waveform)
        wave = np.pad(wave, (0, max(0, 2 * size - len(wave))))
        waves += [wave[:size], wave[size : 2 * size]]
    own = [label for _, first, second in made for label in (first, second)]
    others = [label for _, first, second in made for label in (second, first)]
    heard = bench.tag(waves)
    hits = np.array([bench.labels[top] == label for top, label in zip(heard.argmax(1), own, strict=True)])
    for values in (hits, bench.chance_of(heard, own), bench.chance_of(heard, others)):
        yield shown(values.astype(float).reshape(-1, 2).mean(1))
    yield f"{np.mean([above(take, border) for take, _, _ in made]):.0%}"


def above(take: Take, border: float) -> bool:
    """Whether there is more flux at a moment than at 95 % of those that are no seams."""
    flux, times = onset_strength(take.waveform, take.sample_rate)
    if not len(flux):
        return False
    near = ndimage.maximum_filter1d(flux, 2 * round(NEAR_S / HOP_S) + 1)
    seams = np.array([*take.seams_s, border])
    elsewhere = np.abs(times[:, None] - seams).min(axis=1) > APART_S
    return bool(near[np.abs(times - border).argmin()] > np.percentile(near[elsewhere], 95))


TABLES: dict[str, Callable[[Bench], None]] = {"negative": negative, "parts": parts, "like": like, "alone": alone}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []])
    parser.add_argument("--split", choices=["val", "test"], default="test", help="choose a setting on val")
    parser.add_argument("--takes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    bench = Bench(given.split, given.takes)
    torch.set_num_threads(given.threads)
    for name in given.tables or TABLES:
        TABLES[name](bench)


if __name__ == "__main__":
    main()
